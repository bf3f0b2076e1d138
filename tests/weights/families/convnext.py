"""transformers' ConvNextModel, and with a head."""

import dataclasses

import vit
from weight_reference import SIZES, draw_images, numbers, perturb, save_huggingface, torch_images

FORMAT = "huggingface"
save, ours = save_huggingface, vit.ours
SIDES = 32, 36, 45


def build(variant):
    import transformers

    config = transformers.ConvNextConfig(
        hidden_sizes=[[6, 10, 14], [8, 12], [5, 7, 9, 11]][variant],
        depths=[[1, 2, 1], [2, 1], [1, 1, 1, 1]][variant],
        num_stages=(3, 2, 4)[variant],
        patch_size=(4, 3, 2)[variant],
        image_size=SIDES[variant],
        layer_scale_init_value=(0.5, 0.0, 1e-6)[variant],
        hidden_act=("gelu", "gelu_new", "gelu")[variant],
    )
    name = "ConvNextForImageClassification" if variant == 2 else "ConvNextModel"
    return perturb(getattr(transformers, name)(config), variant)


def inputs(variant, rng):
    sizes = dataclasses.replace(SIZES[variant], image_size=SIDES[variant])
    return dict(image=draw_images(sizes, rng))


def outputs(model, inputs):
    import torch

    tower = getattr(model, "convnext", model)
    with torch.no_grad():
        found = tower(pixel_values=torch_images(inputs))
    tokens = found.last_hidden_state.flatten(2).transpose(1, 2)
    return numbers(tokens=tokens, pooled=found.pooler_output)
