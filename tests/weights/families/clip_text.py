"""transformers' CLIPTextModel and CLIPTextModelWithProjection."""

import clip
import clip_image
from weight_reference import END, PADDING, SIZES, START, numbers, perturb, save_huggingface

FORMAT = "huggingface"
PROJECTED = (False, True, False)  # by variant
save, load = save_huggingface, clip_image.load


def build(variant):
    import transformers

    sizes = SIZES[variant]
    config = transformers.CLIPTextConfig(
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_mlp,
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.text_heads,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=sizes.length,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=PADDING if variant != 1 else 0,
        hidden_act=("quick_gelu", "gelu", "quick_gelu")[variant],
        projection_dim=sizes.embedding,
    )
    name = "CLIPTextModelWithProjection" if PROJECTED[variant] else "CLIPTextModel"
    kind = getattr(transformers, name)
    return perturb(kind._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    found = clip.inputs(variant, rng)
    return {name: value for name, value in found.items() if name != "image"}


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(inputs["text"]).long(),
            attention_mask=torch.from_numpy(inputs["text_mask"]).long(),
        )
    pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
    return numbers(text_embedding=pooled / pooled.norm(dim=-1, keepdim=True))


def ours(model, variables, inputs):
    return dict(text_embedding=model.embed(variables, **inputs)[1])
