"""transformers' DeiTModel with and without a pooler, and with both heads of distillation."""

import clip_image
import vit
from weight_reference import SIZES, perturb, save_huggingface

FORMAT = "huggingface"
save, inputs, ours = save_huggingface, clip_image.inputs, vit.ours


def build(variant):
    import transformers

    config = transformers.DeiTConfig(**clip_image.image_config(SIZES[variant]), num_labels=5)
    if variant == 2:
        return perturb(transformers.DeiTForImageClassificationWithTeacher(config), variant)
    return perturb(transformers.DeiTModel(config, add_pooling_layer=variant == 0), variant)


def outputs(model, inputs):
    return vit.outputs(getattr(model, "deit", model), inputs)
