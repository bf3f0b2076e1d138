"""transformers' CLIPVisionModel and CLIPVisionModelWithProjection."""

from weight_reference import (
    SIZES,
    draw_images,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
)

FORMAT = "huggingface"
PROJECTED = (True, False, True)  # by variant
save = save_huggingface


def image_config(sizes):
    return dict(
        hidden_size=sizes.image_width,
        intermediate_size=sizes.image_mlp,
        num_hidden_layers=sizes.image_depth,
        num_attention_heads=sizes.image_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
    )


def build(variant):
    import transformers

    sizes = SIZES[variant]
    config = transformers.CLIPVisionConfig(
        **image_config(sizes),
        hidden_act=("quick_gelu", "gelu", "quick_gelu")[variant],
        projection_dim=sizes.embedding,
    )
    name = "CLIPVisionModelWithProjection" if PROJECTED[variant] else "CLIPVisionModel"
    kind = getattr(transformers, name)
    return perturb(kind._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(pixel_values=torch_images(inputs))
    pooled = found.image_embeds if "image_embeds" in found else found.pooler_output
    return numbers(image_embedding=pooled / pooled.norm(dim=-1, keepdim=True))


def ours(model, variables, inputs):
    return dict(image_embedding=model.embed(variables, image=inputs["image"])[0])


def load(folder):
    import json

    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    return load_huggingface(name, folder)
