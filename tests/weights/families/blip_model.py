"""transformers' BlipModel, and its loss."""

import blip_retrieval
import numpy as np
from blip_retrieval import inputs as inputs
from weight_reference import (
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import BlipModel

    config = blip_retrieval.config_of(variant)
    return perturb(BlipModel._from_config(config, attn_implementation="eager"), variant)


def outputs(model, inputs):
    import torch

    arguments = dict(pixel_values=torch_images(inputs), **torch_texts(inputs))
    with torch.no_grad():
        found = model(**arguments, return_loss=True)
        pairs = model.get_multimodal_features(**arguments)
    return numbers(
        image_embedding=found.image_embeds,
        text_embedding=found.text_embeds,
        image_tokens=found.vision_model_output.last_hidden_state,
        image_pooled=found.vision_model_output.pooler_output,
        pairs=pairs,
        loss=found.loss,
    )


def ours(model, variables, inputs):
    import jax.numpy as jnp

    from vlp_jax import losses

    image, text = model.embed(variables, **inputs)
    scale = jnp.exp(variables["params"]["objectives_contrastive"]["log_scale"])

    def encoded(module, image, text, mask):
        images = module.model.encode_image(image)
        fused = module.model.fuse(images, module.model.encode_text(text, mask), False)
        return images.tokens, images.pooled, fused.pooled

    arrays = inputs["image"], inputs["text"], inputs["text_mask"]
    tokens, pooled, fused = model.module.apply(variables, *arrays, method=encoded)
    projection = variables["params"]["model"]["text_projection"]["kernel"]
    return dict(
        image_embedding=image,
        text_embedding=text,
        image_tokens=tokens,
        image_pooled=pooled,
        pairs=np.asarray(fused) @ np.asarray(projection),
        loss=losses.softmax_contrastive(image, text, scale),
    )


def load(folder):
    return load_huggingface("BlipModel", folder)
