"""transformers' BeitModel with relative positions of each layer and of all, and with absolute
ones."""

import clip_image
import vit
from weight_reference import SIZES, numbers, perturb, save_huggingface, torch_images

FORMAT = "huggingface"
save, inputs, ours = save_huggingface, clip_image.inputs, vit.ours


def build(variant):
    import transformers

    config = transformers.BeitConfig(
        **clip_image.image_config(SIZES[variant]),
        use_relative_position_bias=variant == 0,
        use_shared_relative_position_bias=variant == 1,
        use_absolute_position_embeddings=variant == 2,
        use_mask_token=variant == 1,
        use_mean_pooling=variant != 1,
        layer_scale_init_value=0.0 if variant == 2 else 0.1,
    )
    kind = transformers.BeitForImageClassification if variant == 2 else transformers.BeitModel
    return perturb(kind(config), variant)


def outputs(model, inputs):
    import torch

    tower = getattr(model, "beit", model)
    with torch.no_grad():
        found = tower(pixel_values=torch_images(inputs))
    return numbers(tokens=found.last_hidden_state, pooled=found.pooler_output)
