"""transformers' ViltForMaskedLM, and its loss."""

import bert_masked
from vision_text_dual_encoder import image_config
from weight_reference import (
    SIZES,
    draw_images,
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


def config_of(variant):
    """A config of one width."""
    from transformers import ViltConfig

    sizes = SIZES[variant]
    return ViltConfig(
        **image_config(variant),
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.length,
        hidden_act=("gelu", "gelu_new", "relu")[variant],
        attn_implementation="eager",
    )


def build(variant):
    from transformers import ViltForMaskedLM

    return perturb(ViltForMaskedLM(config_of(variant)), variant)


def inputs(variant, rng):
    words = bert_masked.inputs(variant, rng)
    return dict(image=draw_images(SIZES[variant], rng), **words)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            pixel_values=torch_images(inputs),
            **torch_texts({**inputs, "text": inputs["masked"]}),
            labels=torch_labels(inputs["text"], inputs["chosen"]),
        )
    arrays = numbers(logits=found.logits, loss=found.loss)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.masked_language import MaskedText, masked_loss

    masked = MaskedText(inputs["masked"], inputs["chosen"], inputs["text_mask"])

    def logits_of(module, image):
        encodings = {"image": module.model.encode_image(image)}
        return module.objectives["words"].logits(encodings, masked, inputs, module.model)

    logits = model.module.apply(variables, inputs["image"], method=logits_of)
    loss = masked_loss(logits, inputs["text"], inputs["chosen"]).value
    return dict(logits=seen(logits, inputs), loss=loss)


def load(folder):
    return load_huggingface("ViltForMaskedLM", folder)
