"""transformers' FlavaModel."""

import bert
import flava
from weight_reference import (
    SIZES,
    draw_images,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    seen,
    torch_images,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import FlavaModel

    config = flava.config_of(variant)
    return perturb(FlavaModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **bert.inputs(variant, rng))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(pixel_values=torch_images(inputs), **torch_texts(inputs))
    arrays = numbers(
        image_tokens=found.image_output.last_hidden_state,
        text_tokens=found.text_output.last_hidden_state,
        pooled=found.multimodal_output.pooler_output,
    )
    return {**arrays, "text_tokens": seen(arrays["text_tokens"], inputs)}


def ours(model, variables, inputs):
    def encoded(module, image, text, mask):
        images, texts = module.model.encode_image(image), module.model.encode_text(text, mask)
        pooled = module.model.fuse(images, texts).pooled
        return dict(image_tokens=images.tokens, text_tokens=texts.tokens, pooled=pooled)

    found = model.module.apply(
        variables, inputs["image"], inputs["text"], inputs["text_mask"], method=encoded
    )
    return {**found, "text_tokens": seen(found["text_tokens"], inputs)}


def load(folder):
    return load_huggingface("FlavaModel", folder)
