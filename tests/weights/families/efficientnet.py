"""transformers' EfficientNetModel, whose maps with an odd side are halved to a smaller or a larger
one, and with a head."""

import dataclasses

import vit
from weight_reference import SIZES, draw_images, numbers, perturb, save_huggingface, torch_images

FORMAT = "huggingface"
save, ours = save_huggingface, vit.ours
SIDES = 29, 36, 20
COEFFICIENT = 0.0125  # the last convolution has 1280 channels before it, 16 behind


def build(variant):
    import transformers

    config = transformers.EfficientNetConfig(
        image_size=SIDES[variant],
        width_coefficient=COEFFICIENT,
        depth_coefficient=(1.0, 1.2, 0.5)[variant],
        hidden_dim=16,
        kernel_sizes=[3, 5, 3],
        in_channels=[32, 640, 1280],
        out_channels=[640, 1280, 1920],  # 8, 16, 24
        strides=[2, 2, 1],
        num_block_repeats=[1, 1, 2],
        expand_ratios=[1, 3, 2],
        depthwise_padding=[[], [2], []][variant],  # 36 -> 18 -> 9, before the first of two blocks
    )
    name = "EfficientNetForImageClassification" if variant == 2 else "EfficientNetModel"
    return perturb(getattr(transformers, name)(config), variant)


def inputs(variant, rng):
    sizes = dataclasses.replace(SIZES[variant], image_size=SIDES[variant])
    return dict(image=draw_images(sizes, rng))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = getattr(model, "efficientnet", model)(pixel_values=torch_images(inputs))
    pooled = found.pooler_output
    return numbers(
        tokens=found.last_hidden_state.flatten(2).transpose(1, 2),
        pooled=pooled,
        image_embedding=pooled / pooled.norm(dim=-1, keepdim=True),
    )
