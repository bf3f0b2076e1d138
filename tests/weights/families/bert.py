"""transformers' BertModel."""

import numpy as np
from weight_reference import (
    PADDING,
    SIZES,
    draw_texts,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    seen,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def sizes_of(variant):
    """Of a text tower like BERT's."""
    sizes = SIZES[variant]
    return dict(
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_mlp,
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.text_heads,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.length,
        pad_token_id=PADDING,
        hidden_act=("gelu", "relu", "gelu_new")[variant],
    )


def build(variant):
    from transformers import BertConfig, BertModel

    config = BertConfig(**sizes_of(variant), attn_implementation="eager")
    return perturb(BertModel(config), variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng)
    return dict(text=text, text_mask=mask)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(**torch_texts(inputs))
    arrays = numbers(tokens=found.last_hidden_state, pooled=found.pooler_output)
    return {**arrays, "tokens": seen(arrays["tokens"], inputs)}


def ours(model, variables, inputs):
    text, mask = inputs["text"], inputs["text_mask"]
    found = model.module.apply(
        variables, text, mask, method=lambda module, *text: module.model.encode_text(*text)
    )
    embedded = model.embed(variables, text=text, text_mask=mask)[1]
    assert np.allclose(np.linalg.norm(embedded, axis=-1), 1.0, atol=1e-5)
    return dict(tokens=seen(found.tokens, inputs), pooled=found.pooled)


def load(folder):
    return load_huggingface("BertModel", folder)
