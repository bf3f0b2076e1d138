"""transformers' Siglip2Model, on square images with the patches of its table of positions."""

import numpy as np
import siglip
from weight_reference import SIZES, numbers, perturb, save_huggingface

FORMAT = "huggingface"
save, inputs, ours = save_huggingface, siglip.inputs, siglip.ours


def build(variant):
    from transformers import Siglip2Config, Siglip2Model

    known, sizes = siglip.build(variant).config, SIZES[variant]
    image = {
        key: getattr(known.vision_config, key)
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "patch_size",
        )
    }
    image["num_patches"] = (sizes.image_size // sizes.patch_size) ** 2
    config = Siglip2Config(vision_config=image, text_config=known.text_config.to_dict())
    return perturb(Siglip2Model._from_config(config, attn_implementation="eager"), variant)


def outputs(model, inputs):
    import torch

    images, patch = inputs["image"], model.config.vision_config.patch_size
    rows, side = len(images), images.shape[1] // patch
    patches = images.reshape(rows, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(inputs["text"]).long(),
            pixel_values=torch.from_numpy(
                np.ascontiguousarray(patches.reshape(rows, side * side, -1))
            ),
            pixel_attention_mask=torch.ones(rows, side * side, dtype=torch.long),
            spatial_shapes=torch.tensor([[side, side]] * rows),
            return_loss=True,
        )
    return numbers(
        image_embedding=found.image_embeds, text_embedding=found.text_embeds, loss=found.loss
    )
