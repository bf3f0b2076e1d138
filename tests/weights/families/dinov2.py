"""transformers' Dinov2Model, Dinov2WithRegistersModel, and Dinov2ForImageClassification with a
gated MLP."""

import clip_image
import vit
from weight_reference import SIZES, numbers, perturb, save_huggingface, torch_images

FORMAT = "huggingface"
save, inputs, ours = save_huggingface, clip_image.inputs, vit.ours


def build(variant):
    import transformers

    sizes = SIZES[variant]
    shared = {**clip_image.image_config(sizes), "mlp_ratio": 2}
    if variant == 1:
        config = transformers.Dinov2WithRegistersConfig(**shared, num_register_tokens=3)
        return perturb(transformers.Dinov2WithRegistersModel(config), variant)
    config = transformers.Dinov2Config(**shared, use_swiglu_ffn=variant == 2)
    kind = transformers.Dinov2ForImageClassification if variant == 2 else transformers.Dinov2Model
    return perturb(kind(config), variant)


def outputs(model, inputs):
    import torch

    tower = getattr(model, "dinov2", model)
    with torch.no_grad():
        found = tower(pixel_values=torch_images(inputs))
    tokens, registers = found.last_hidden_state, getattr(model.config, "num_register_tokens", 0)
    order = [0, *range(1 + registers, tokens.shape[1]), *range(1, 1 + registers)]
    return numbers(tokens=tokens[:, order], pooled=found.pooler_output)
