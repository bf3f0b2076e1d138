"""Writes tests/golden/resnet.npz: what torchvision's ResNets and open_clip's ModifiedResNet
compute, in train and eval mode.

Run in an environment with torch, torchvision and open_clip: `PYTHONPATH=tests/helpers python
tests/golden/make_resnet.py`. Parameters are drawn by `drawn`, in torch's layouts, here as in the
test; the file holds outputs and running statistics alone.
"""

import pathlib

import numpy as np
from torch_weights import drawn

SIZE = 64
BASIC, BOTTLENECK, CLIP = "basic", "bottleneck", "clip"
CLIP_SHAPE = dict(width=8, heads=4, output_dim=12)


def pictures() -> np.ndarray:
    """[3, H, W, 3] float32."""
    return np.random.default_rng(1).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)


def thinned(found: np.ndarray) -> np.ndarray:
    """Every 16th of many channels, to keep the file small."""
    return found[..., ::16] if found.shape[-1] > 64 else found


def main() -> None:
    import torch
    from open_clip.modified_resnet import ModifiedResNet
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    models = {
        BASIC: ResNet(BasicBlock, [2, 1, 1, 1]),
        BOTTLENECK: ResNet(Bottleneck, [1, 2, 1, 1]),
        CLIP: ModifiedResNet((2, 1, 1, 1), image_size=SIZE, **CLIP_SHAPE),
    }
    found = {}
    for kind, model in models.items():
        if kind != CLIP:
            model.fc = torch.nn.Identity()
        state = {
            name: value
            if name.endswith("tracked")
            else torch.from_numpy(drawn(name, tuple(value.shape)))
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(state)
        images = torch.from_numpy(pictures().transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            found[f"{kind}/eval"] = thinned(model.eval()(images).numpy())
            found[f"{kind}/train"] = thinned(model.train()(images).numpy())
        for name in ("bn1", "layer1.0.bn2", "layer4.0.downsample.1"):
            for statistic in ("running_mean", "running_var"):
                found[f"{kind}/{name}.{statistic}"] = thinned(
                    model.state_dict()[f"{name}.{statistic}"].numpy()
                )
    np.savez_compressed(pathlib.Path(__file__).with_name("resnet.npz"), **found)


if __name__ == "__main__":
    main()
