"""transformers' AltCLIPModel."""

import roberta
from clip import ours as ours
from clip import outputs as outputs
from vision_text_dual_encoder import image_config
from weight_reference import SIZES, draw_images, perturb, save_huggingface

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import AltCLIPConfig, AltCLIPModel

    text = roberta.sizes_of(variant) | roberta.places(variant)
    config = AltCLIPConfig(
        vision_config=image_config(variant),
        text_config=dict(text, project_dim=SIZES[variant].embedding + 2, hidden_act="gelu"),
        projection_dim=SIZES[variant].embedding,
    )
    return perturb(AltCLIPModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **roberta.inputs(variant, rng))
