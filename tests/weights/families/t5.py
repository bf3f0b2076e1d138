"""transformers' T5EncoderModel, and the encoder of a whole T5, with several kinds of MLP."""

from weight_reference import (
    SIZES,
    draw_texts,
    numbers,
    perturb,
    save_huggingface,
    seen,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    sizes = SIZES[variant]
    config = T5Config(
        d_model=sizes.text_width,
        d_kv=sizes.text_width // sizes.text_heads,
        d_ff=sizes.text_mlp,
        num_layers=sizes.text_depth + 1,
        num_decoder_layers=1,
        num_heads=sizes.text_heads,
        vocab_size=sizes.vocabulary,
        feed_forward_proj=("relu", "gated-gelu", "gated-silu")[variant],
    )
    kind = T5ForConditionalGeneration if variant == 2 else T5EncoderModel
    return perturb(kind._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng, (5, 1, 0), (2, 60))
    return dict(text=text, text_mask=mask)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model.get_encoder()(**torch_texts(inputs))
    tokens = numbers(tokens=found.last_hidden_state)["tokens"]
    return dict(tokens=seen(tokens, inputs))


def ours(model, variables, inputs):
    found = model.module.apply(
        variables,
        inputs["text"],
        inputs["text_mask"],
        method=lambda module, *text: module.model.encode_text(*text),
    )
    return dict(tokens=seen(found.tokens, inputs))
