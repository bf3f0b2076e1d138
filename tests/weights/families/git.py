"""transformers' GitForCausalLM, and its loss."""

import bert
from vision_text_dual_encoder import image_config
from weight_reference import (
    SIZES,
    draw_images,
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
    from transformers import GitConfig, GitForCausalLM

    config = GitConfig(
        vision_config=image_config(variant),
        **bert.sizes_of(variant),
        tie_word_embeddings=variant == 1,
    )
    return perturb(GitForCausalLM._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **bert.inputs(variant, rng))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            pixel_values=torch_images(inputs),
            **torch_texts(inputs),
            labels=torch_labels(inputs["text"], inputs["text_mask"]),
        )
    arrays = numbers(logits=found.logits[:, -inputs["text"].shape[1] :], loss=found.loss)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.captioning import next_token_loss

    text, mask = inputs["text"], inputs["text_mask"]

    def decoded(module, image, text, mask):
        return module.model.decode(text, mask, module.model.encode_image(image))

    logits = model.module.apply(variables, inputs["image"], text, mask, method=decoded)
    return dict(logits=seen(logits, inputs), loss=next_token_loss(logits, text, mask))
