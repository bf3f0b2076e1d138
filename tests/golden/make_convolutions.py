"""Writes tests/golden/convolutions.npz: what torchvision's VGG and Inception-v3 compute, in train
and eval mode.

Run in an environment with torch and torchvision: `PYTHONPATH=tests/helpers python
tests/golden/make_convolutions.py`. Parameters are drawn by `drawn`, in torch's layouts, here as in
the test; the file holds outputs alone.
"""

import pathlib

import numpy as np
from torch_weights import drawn

PLAIN, BATCH, INCEPTION = "plain", "batch", "inception"
SIDES = {PLAIN: 70, BATCH: 64, INCEPTION: 107}
WIDTH, DEPTHS, HIDDEN = 8, (1, 1, 2, 2, 2), 24  # of the VGGs


def pictures(kind: str) -> np.ndarray:
    """[3, H, W, 3] float32."""
    return np.random.default_rng(1).normal(size=(3, SIDES[kind], SIDES[kind], 3)).astype(np.float32)


def thinned(found: np.ndarray) -> np.ndarray:
    """Every 16th of many channels, to keep the file small."""
    return found[..., ::16] if found.shape[-1] > 64 else found


def vgg(batch_norm: bool):
    """torchvision's convolutions of a narrow VGG-11, with narrow first layers of its classifier, or
    the mean."""
    import torch
    from torchvision.models.vgg import make_layers

    layers = [
        entry for i, depth in enumerate(DEPTHS) for entry in [WIDTH * min(2**i, 8)] * depth + ["M"]
    ]
    places = (SIDES[PLAIN] // 32) ** 2
    head = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(8 * WIDTH * places, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
    )
    mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(make_layers(layers, batch_norm), mean if batch_norm else head)


def inception():
    """torchvision's, up to what its classifier sees."""
    import torch
    from torchvision.models import inception_v3

    model = inception_v3(weights=None, aux_logits=False, init_weights=False)
    model.dropout = model.fc = torch.nn.Identity()
    return model


def main() -> None:
    import torch

    found = {}
    for kind, model in {PLAIN: vgg(False), BATCH: vgg(True), INCEPTION: inception()}.items():
        model.load_state_dict(
            {
                name: value
                if name.endswith("tracked")
                else torch.from_numpy(drawn(name, tuple(value.shape)))
                for name, value in model.state_dict().items()
            }
        )
        images = torch.from_numpy(pictures(kind).transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            found[f"{kind}/eval"] = thinned(model.eval()(images).numpy())
            found[f"{kind}/train"] = thinned(model.train()(images).numpy())
    np.savez_compressed(pathlib.Path(__file__).with_name("convolutions.npz"), **found)


if __name__ == "__main__":
    main()
