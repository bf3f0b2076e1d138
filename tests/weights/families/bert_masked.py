"""transformers' BertForMaskedLM, and its loss."""

from bert import sizes_of
from weight_reference import (
    SIZES,
    draw_masked,
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


def build(variant):
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(**sizes_of(variant), attn_implementation="eager")
    return perturb(BertForMaskedLM(config), variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng)
    return draw_masked(dict(text=text, text_mask=mask), rng)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            **torch_texts({**inputs, "text": inputs["masked"]}),
            labels=torch_labels(inputs["text"], inputs["chosen"]),
        )
    arrays = numbers(logits=found.logits, loss=found.loss)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.masked_language import MaskedText, masked_loss

    masked = MaskedText(inputs["masked"], inputs["chosen"], inputs["text_mask"])

    def logits_of(module):
        return module.objectives["words"].logits({}, masked, inputs, module.model)

    logits = model.module.apply(variables, method=logits_of)
    loss = masked_loss(logits, inputs["text"], inputs["chosen"]).value
    return dict(logits=seen(logits, inputs), loss=loss)


def load(folder):
    return load_huggingface("BertForMaskedLM", folder)
