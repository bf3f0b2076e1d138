"""transformers' VisionEncoderDecoderModel with ViT and GPT-2, and its loss."""

import gpt2
import numpy as np
from vision_text_dual_encoder import image_config
from weight_reference import (
    SIZES,
    draw_images,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    seen,
    torch_images,
    torch_labels,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )

    sizes = gpt2.sizes_of(variant) | dict(n_embd=SIZES[variant].image_width, n_head=2)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**image_config(variant)), GPT2Config(**sizes)
    )
    model = VisionEncoderDecoderModel(config)
    model.set_attn_implementation("eager")
    return perturb(model, variant)


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **gpt2.inputs(variant, rng))


def outputs(model, inputs):
    import torch

    text = torch_texts(inputs)
    next_mask = np.pad(inputs["text_mask"][:, 1:], ((0, 0), (0, 1)))
    with torch.no_grad():
        found = model(
            pixel_values=torch_images(inputs),
            decoder_input_ids=text["input_ids"],
            decoder_attention_mask=text["attention_mask"],
            labels=torch_labels(np.roll(inputs["text"], -1, axis=1), next_mask),
        )
    arrays = numbers(logits=found.logits, loss=found.loss)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.captioning import next_token_loss

    text, mask = inputs["text"], inputs["text_mask"]

    def decoded(module, image, text, mask):
        return module.model.decode(text, mask, module.model.encode_image(image))

    logits = model.module.apply(variables, inputs["image"], text, mask, method=decoded)
    return dict(logits=seen(logits, inputs), loss=next_token_loss(logits, text, mask))


def load(folder):
    return load_huggingface("VisionEncoderDecoderModel", folder)
