"""transformers' ViTMAEForPreTraining and ViTMAEModel, by given noise."""

import unittest.mock

import clip_image
import numpy as np
import vit
from weight_reference import (
    SIZES,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    import transformers

    sizes = SIZES[variant]
    config = transformers.ViTMAEConfig(
        **clip_image.image_config(sizes),
        decoder_hidden_size=sizes.text_width,
        decoder_num_hidden_layers=sizes.text_depth,
        decoder_num_attention_heads=sizes.text_heads,
        decoder_intermediate_size=sizes.text_mlp,
        mask_ratio=(0.7, 0.5, 0.75)[variant],
        norm_pix_loss=variant == 0,
        layer_norm_eps=1e-6,
    )
    model = transformers.ViTMAEForPreTraining._from_config(config, attn_implementation="eager")
    return perturb(model, variant)


def inputs(variant, rng):
    sizes = SIZES[variant]
    patches = (sizes.image_size // sizes.patch_size) ** 2
    noise = rng.random((3, patches)).astype(np.float32)
    return dict(**clip_image.inputs(variant, rng), noise=noise)


def outputs(model, inputs):
    import torch

    noise, whole = torch.from_numpy(inputs["noise"]), model.config.mask_ratio
    with torch.no_grad():
        found = model(torch_images(inputs), noise=noise)
        model.vit.embeddings.config.mask_ratio = 0.0
        tokens = model.vit(torch_images(inputs), noise=noise).last_hidden_state
        model.vit.embeddings.config.mask_ratio = whole
    places = torch.argsort(torch.argsort(noise, dim=1), dim=1)  # back from the order of the noise
    patches = torch.take_along_dim(tokens[:, 1:], places[:, :, None], dim=1)
    tokens = torch.cat([tokens[:, :1], patches], dim=1)
    return numbers(tokens=tokens, logits=found.logits, loss=found.loss)


def ours(model, variables, inputs):
    import jax
    import jax.numpy as jnp

    noise = jnp.asarray(inputs["noise"])
    with unittest.mock.patch.object(jax.random, "uniform", lambda key, shape: noise):
        loss, captured = model.module.apply(
            variables,
            {"image": inputs["image"]},
            rngs={"dropout": jax.random.key(0)},
            capture_intermediates=True,
            mutable=["intermediates"],
        )
    head = captured["intermediates"]["objectives_mae"]
    tokens = vit.encoded(model, variables, inputs["image"]).tokens
    return dict(tokens=tokens, logits=head["out"]["__call__"][0], loss=loss.value)


def load(folder):
    return load_huggingface("ViTMAEForPreTraining", folder)
