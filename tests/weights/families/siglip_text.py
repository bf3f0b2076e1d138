"""transformers' SiglipTextModel."""

import clip_text
import siglip
from safetensors.numpy import load_file, save_file
from weight_reference import SIZES, load_huggingface, numbers, perturb, save_huggingface

FORMAT = "huggingface"
ours = clip_text.ours


def build(variant):
    from transformers import SiglipTextConfig, SiglipTextModel

    sizes = SIZES[variant]
    config = SiglipTextConfig(
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_mlp,
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.text_heads,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.length,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
        projection_size=(sizes.embedding, None, sizes.text_width)[variant],
    )
    return perturb(SiglipTextModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    found = siglip.inputs(variant, rng)
    return {name: value for name, value in found.items() if name != "image"}


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        pooled = model(input_ids=torch.from_numpy(inputs["text"]).long()).pooler_output
    return numbers(text_embedding=pooled / pooled.norm(dim=-1, keepdim=True))


def save(model, folder):
    save_huggingface(model, folder)
    if model.config.num_hidden_layers in (1, 3):  # as published before transformers 5.6
        path = folder / "model.safetensors"
        weights = {f"text_model.{name}": value for name, value in load_file(path).items()}
        save_file(weights, path, {"format": "pt"})


def load(folder):
    return load_huggingface("SiglipTextModel", folder)
