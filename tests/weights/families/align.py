"""transformers' AlignModel: EfficientNet whose maps with an odd side are halved to a smaller or a
larger one, and BERT."""

import dataclasses

import bert
from weight_reference import (
    SIZES,
    draw_images,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface
SIDES = 37, 36, 33
IMAGES = (
    dict(
        width_coefficient=0.5,
        depth_coefficient=1.2,
        kernel_sizes=[3, 5],
        in_channels=[32, 24],
        out_channels=[24, 44],
        strides=[1, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 3],
    ),
    dict(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        kernel_sizes=[3, 5, 3],
        in_channels=[32, 8, 16],
        out_channels=[8, 16, 24],
        strides=[2, 2, 1],  # 18 -> 9 -> 5
        num_block_repeats=[1, 1, 2],
        expand_ratios=[1, 2, 4],
        depthwise_padding=[1],
    ),
    dict(
        width_coefficient=1.1,
        depth_coefficient=0.5,
        kernel_sizes=[3, 5],
        in_channels=[32, 16],
        out_channels=[16, 32],
        strides=[2, 2],
        num_block_repeats=[3, 4],
        expand_ratios=[2, 6],
        squeeze_expansion_ratio=0.5,
    ),
)
WIDTHS = 24, 24, 32  # of the last block


def build(variant):
    from transformers import AlignConfig, AlignModel

    config = AlignConfig(
        text_config=bert.sizes_of(variant),
        vision_config=dict(IMAGES[variant], image_size=SIDES[variant]),
        projection_dim=WIDTHS[variant],
    )
    return perturb(AlignModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    sizes = dataclasses.replace(SIZES[variant], image_size=SIDES[variant])
    return dict(image=draw_images(sizes, rng), **bert.inputs(variant, rng))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(pixel_values=torch_images(inputs), **torch_texts(inputs), return_loss=True)
    tower = found.vision_model_output
    return numbers(
        image_embedding=found.image_embeds,
        text_embedding=found.text_embeds,
        logits=found.logits_per_image,
        loss=found.loss,
        image_tokens=tower.last_hidden_state.flatten(2).transpose(1, 2),
        image_pooled=tower.pooler_output,
    )


def ours(model, variables, inputs):
    import jax.numpy as jnp

    from vlp_jax import losses

    image, text = model.embed(variables, **inputs)
    scale = 1.0 / variables["params"]["objectives_contrastive"]["temperature"]
    smoothing = model.config.objectives["contrastive"].label_smoothing
    positives = jnp.eye(len(image), dtype=bool)
    loss = losses.softmax_contrastive(image, text, scale, positives, smoothing)
    encoded = model.module.apply(
        variables, inputs["image"], method=lambda module, image: module.model.encode_image(image)
    )
    return dict(
        image_embedding=image,
        text_embedding=text,
        logits=scale * image @ text.T,
        loss=loss,
        image_tokens=encoded.tokens,
        image_pooled=encoded.pooled,
    )
