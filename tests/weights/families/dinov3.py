"""transformers' DINOv3ViTModel, also with a gated MLP."""

import clip_image
import dinov2
import vit
from weight_reference import SIZES, perturb, save_huggingface

FORMAT = "huggingface"
save, inputs, ours, outputs = save_huggingface, clip_image.inputs, vit.ours, dinov2.outputs


def build(variant):
    import transformers

    config = transformers.DINOv3ViTConfig(
        **clip_image.image_config(SIZES[variant]),
        num_register_tokens=(4, 0, 2)[variant],
        use_gated_mlp=variant == 1,
        hidden_act="silu" if variant == 1 else "gelu",
    )
    return perturb(transformers.DINOv3ViTModel(config), variant)
