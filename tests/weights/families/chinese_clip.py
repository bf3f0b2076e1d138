"""transformers' ChineseCLIPModel."""

import bert
from clip import ours as ours
from clip import outputs as outputs
from vision_text_dual_encoder import image_config
from weight_reference import SIZES, draw_images, load_huggingface, perturb, save_huggingface

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    config = ChineseCLIPConfig(
        vision_config=image_config(variant),
        text_config=bert.sizes_of(variant),
        projection_dim=SIZES[variant].embedding,
    )
    return perturb(ChineseCLIPModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **bert.inputs(variant, rng))


def load(folder):
    return load_huggingface("ChineseCLIPModel", folder)
