"""transformers' ViTModel with and without a pooler, and ViTForImageClassification."""

import json

import clip_image
from weight_reference import SIZES, numbers, perturb, save_huggingface, torch_images

FORMAT = "huggingface"
save, inputs = save_huggingface, clip_image.inputs


def build(variant):
    import transformers

    config = transformers.ViTConfig(
        **clip_image.image_config(SIZES[variant]),
        hidden_act=("gelu", "gelu_new", "gelu")[variant],
        num_labels=5,
    )
    if variant == 2:
        return perturb(transformers.ViTForImageClassification(config), variant)
    return perturb(transformers.ViTModel(config, add_pooling_layer=variant == 0), variant)


def outputs(model, inputs):
    import torch

    tower = getattr(model, "vit", model)
    with torch.no_grad():
        found = tower(pixel_values=torch_images(inputs))
    tokens = found.last_hidden_state
    pooled = found.pooler_output if tower.pooler is not None else tokens[:, 0]
    embedding = pooled / pooled.norm(dim=-1, keepdim=True)
    return numbers(tokens=tokens, pooled=pooled, image_embedding=embedding)


def encoded(model, variables, image):
    """Our Encoding."""
    return model.module.apply(
        variables, image, method=lambda module, x: module.model.encode_image(x)
    )


def ours(model, variables, inputs):
    encoding = encoded(model, variables, inputs["image"])
    return dict(
        tokens=encoding.tokens,
        pooled=encoding.pooled,
        image_embedding=model.embed(variables, image=inputs["image"])[0],
    )


def load(folder):
    import transformers

    pooler = json.loads((folder / "config.json").read_text())["pooler"]
    model, info = transformers.ViTModel.from_pretrained(
        folder, output_loading_info=True, add_pooling_layer=pooler
    )
    return model.eval(), [name for names in info.values() for name in names]
