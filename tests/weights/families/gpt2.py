"""transformers' GPT2LMHeadModel, and its loss."""

import numpy as np
from weight_reference import (
    SIZES,
    draw_texts,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    seen,
    torch_labels,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def sizes_of(variant):
    sizes = SIZES[variant]
    return dict(
        n_embd=sizes.text_width,
        n_inner=(sizes.text_mlp, None, sizes.text_mlp)[variant],
        n_layer=sizes.text_depth + 1,
        n_head=sizes.text_heads,
        vocab_size=sizes.vocabulary,
        n_positions=sizes.length,
        bos_token_id=57,
        eos_token_id=58,
    )


def build(variant):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**sizes_of(variant), attn_implementation="eager")
    return perturb(GPT2LMHeadModel(config), variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng)
    return dict(text=text, text_mask=mask)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            **torch_texts(inputs), labels=torch_labels(inputs["text"], inputs["text_mask"])
        )
    arrays = numbers(logits=found.logits, loss=found.loss)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.captioning import next_token_loss

    text, mask = inputs["text"], inputs["text_mask"]
    logits = model.module.apply(
        variables, text, mask, method=lambda module, *text: module.model.decode(*text)
    )
    loss = next_token_loss(logits, text, mask)
    return dict(logits=seen(np.asarray(logits), inputs), loss=loss)


def load(folder):
    return load_huggingface("GPT2LMHeadModel", folder)
