"""transformers' DistilBertForMaskedLM, its tokens and its loss."""

import bert_masked
from bert_masked import inputs as inputs
from weight_reference import PADDING, SIZES, numbers, perturb, save_huggingface, seen, torch_texts

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    sizes = SIZES[variant]
    config = DistilBertConfig(
        dim=sizes.text_width,
        n_layers=sizes.text_depth,
        n_heads=sizes.text_heads,
        hidden_dim=sizes.text_mlp,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.length,
        pad_token_id=PADDING,
        activation=("gelu", "relu", "gelu")[variant],
        attn_implementation="eager",
    )
    return perturb(DistilBertForMaskedLM(config), variant)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model.distilbert(**torch_texts(inputs))
    tokens = seen(numbers(tokens=found.last_hidden_state)["tokens"], inputs)
    return {**bert_masked.outputs(model, inputs), "tokens": tokens}


def ours(model, variables, inputs):
    import bert

    words = bert_masked.ours(model, variables, inputs)
    return {**words, "tokens": bert.ours(model, variables, inputs)["tokens"]}
