"""transformers' VisionTextDualEncoderModel: CLIP's image tower and BERT, ViT and RoBERTa, ViT and
BERT."""

import bert
import roberta
from clip import ours as ours
from clip import outputs as outputs
from weight_reference import SIZES, draw_images, load_huggingface, perturb, save_huggingface

FORMAT = "huggingface"
save = save_huggingface


def image_config(variant):
    """Sizes of an image tower."""
    sizes = SIZES[variant]
    return dict(
        hidden_size=sizes.image_width,
        intermediate_size=sizes.image_mlp,
        num_hidden_layers=sizes.image_depth,
        num_attention_heads=sizes.image_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
    )


def build(variant):
    from transformers import (
        BertConfig,
        CLIPVisionConfig,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        ViTConfig,
    )

    image = (CLIPVisionConfig if variant == 0 else ViTConfig)(**image_config(variant))
    text = roberta.config_of(1) if variant == 1 else BertConfig(**bert.sizes_of(variant))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        image, text, projection_dim=SIZES[variant].embedding
    )
    model = VisionTextDualEncoderModel(config)
    model.set_attn_implementation("eager")
    return perturb(model, variant)


def inputs(variant, rng):
    text = roberta.inputs(variant, rng) if variant == 1 else bert.inputs(variant, rng)
    return dict(image=draw_images(SIZES[variant], rng), **text)


def load(folder):
    return load_huggingface("VisionTextDualEncoderModel", folder)
