"""transformers' ViltForImageAndTextRetrieval."""

import bert
import vilt_masked
from weight_reference import (
    SIZES,
    draw_images,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import ViltForImageAndTextRetrieval

    return perturb(ViltForImageAndTextRetrieval(vilt_masked.config_of(variant)), variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **bert.inputs(variant, rng))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(pixel_values=torch_images(inputs), **torch_texts(inputs))
    return numbers(odds=found.logits[:, 0])


def ours(model, variables, inputs):
    def logits_of(module, image, text, mask):
        pair = module.model.encode_image(image), module.model.encode_text(text, mask)
        return module.objectives["matching"].logits(module.model, *pair)

    logits = model.module.apply(
        variables, inputs["image"], inputs["text"], inputs["text_mask"], method=logits_of
    )
    return dict(odds=logits[:, 1] - logits[:, 0])


def load(folder):
    return load_huggingface("ViltForImageAndTextRetrieval", folder)
