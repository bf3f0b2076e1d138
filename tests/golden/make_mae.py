"""Masked autoencoding by transformers' ViTMAEForPreTraining, tiny, by given noise: encodings,
predictions, the loss, its gradient.

pip install torch==2.14.1 transformers==5.24.0
PYTHONPATH=tests/helpers python tests/golden/make_mae.py   # writes mae.npz beside itself

The positions of encoder and decoder are the fixed ones that transformers computes, and then leaves
at zero in a new model.
"""

import pathlib

import numpy as np
import torch
from torch_weights import fill
from transformers import ViTMAEConfig, ViTMAEForPreTraining

SIZE = dict(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    image_size=16,
    patch_size=4,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
)
MASK_RATIO = 0.7  # of 16 patches 4 are seen


def with_positions(model: ViTMAEForPreTraining) -> None:
    """Sets the fixed positions by transformers' own functions, which a new model skips or
    undoes."""
    for skipped in (
        model.vit.embeddings.patch_embeddings.projection,
        model.vit.embeddings.position_embeddings,
        model.decoder.decoder_pos_embed,
    ):
        skipped._is_hf_initialized = False
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights(model.vit.embeddings.patch_embeddings.num_patches)
    assert (
        model.vit.embeddings.position_embeddings.abs().sum() > 0
        and model.decoder.decoder_pos_embed.abs().sum() > 0
    )


def main() -> None:
    torch.manual_seed(0)
    config = ViTMAEConfig(
        **SIZE, hidden_act="gelu", layer_norm_eps=1e-6, mask_ratio=MASK_RATIO, norm_pix_loss=True
    )
    model = ViTMAEForPreTraining._from_config(config, attn_implementation="eager")
    with_positions(model)
    shapes = fill(model)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, SIZE["image_size"], SIZE["image_size"], 3)).astype(np.float32)
    noise = rng.random((3, 16)).astype(np.float32)
    pixels, noise = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), torch.from_numpy(noise)
    output = model(pixels, noise=noise)
    output.loss.backward()
    found = dict(
        tokens=model.vit(pixels, noise=noise).last_hidden_state,
        loss=output.loss,
        logits=output.logits,
        mask=output.mask,
    )
    np.savez_compressed(
        pathlib.Path(__file__).with_name("mae.npz"),
        shapes=shapes,
        image=image,
        noise=noise,
        gradient=model.vit.embeddings.patch_embeddings.projection.weight.grad,
        **{name: value.detach() for name, value in found.items()},
    )
    print(output.loss.item())


if __name__ == "__main__":
    main()
