"""transformers' SiglipVisionModel."""

import clip_image
from safetensors.numpy import load_file, save_file
from weight_reference import SIZES, load_huggingface, perturb, save_huggingface

FORMAT = "huggingface"
inputs, outputs, ours = (clip_image.inputs, clip_image.outputs, clip_image.ours)


def build(variant):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**clip_image.image_config(SIZES[variant]))
    return perturb(SiglipVisionModel._from_config(config, attn_implementation="eager"), variant)


def save(model, folder):
    save_huggingface(model, folder)
    if model.config.num_hidden_layers in (1, 3):  # as published before transformers 5.6
        path = folder / "model.safetensors"
        weights = {f"vision_model.{name}": value for name, value in load_file(path).items()}
        save_file(weights, path, {"format": "pt"})


def load(folder):
    return load_huggingface("SiglipVisionModel", folder)
