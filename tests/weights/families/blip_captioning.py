"""transformers' BlipForConditionalGeneration, and its loss."""

import blip_retrieval
from blip_retrieval import inputs as inputs
from weight_reference import (
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    seen,
    torch_images,
    torch_labels,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import BlipForConditionalGeneration

    config = blip_retrieval.config_of(variant)
    return perturb(
        BlipForConditionalGeneration._from_config(config, attn_implementation="eager"), variant
    )


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            pixel_values=torch_images(inputs),
            **torch_texts(inputs),
            labels=torch_labels(inputs["text"], inputs["text_mask"]),
        )
    arrays = numbers(logits=found.logits, loss=found.loss)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.captioning import next_token_loss

    text, mask = inputs["text"], inputs["text_mask"]

    def decoded(module, image, text, mask):
        return module.model.decode(text, mask, module.model.encode_image(image))

    logits = model.module.apply(variables, inputs["image"], text, mask, method=decoded)
    smoothing = model.config.objectives["words"].label_smoothing
    loss = next_token_loss(logits, text, mask, smoothing)
    return dict(logits=seen(logits, inputs), loss=loss)


def load(folder):
    return load_huggingface("BlipForConditionalGeneration", folder)
