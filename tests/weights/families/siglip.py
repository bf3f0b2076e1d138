"""transformers' SiglipModel, also of SigLIP 2 at a fixed size."""

import numpy as np
from weight_reference import (
    SIZES,
    draw_images,
    draw_texts,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
)

FORMAT = "huggingface"
save = save_huggingface


def build(variant):
    from transformers import SiglipConfig, SiglipModel

    sizes = SIZES[variant]
    config = SiglipConfig(
        vision_config=dict(
            hidden_size=sizes.image_width,
            intermediate_size=sizes.image_mlp,
            num_hidden_layers=sizes.image_depth,
            num_attention_heads=sizes.image_heads,
            image_size=sizes.image_size,
            patch_size=sizes.patch_size,
        ),
        text_config=dict(
            hidden_size=sizes.text_width,
            intermediate_size=sizes.text_mlp,
            num_hidden_layers=sizes.text_depth,
            num_attention_heads=sizes.text_heads,
            vocab_size=sizes.vocabulary,
            max_position_embeddings=sizes.length,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=1,
            projection_size=sizes.image_width,
        ),
    )
    return perturb(SiglipModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng, (5, 1, 1), (2, 60))
    return dict(image=draw_images(SIZES[variant], rng), text=text, text_mask=mask)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(inputs["text"]).long(),
            pixel_values=torch_images(inputs),
            return_loss=True,
        )
    return numbers(
        image_embedding=found.image_embeds, text_embedding=found.text_embeds, loss=found.loss
    )


def ours(model, variables, inputs):
    import jax.numpy as jnp

    from vlp_jax import losses

    image, text = model.embed(variables, **inputs)
    objective = variables["params"]["objectives_contrastive"]
    loss = losses.sigmoid_contrastive(
        image,
        text,
        scale=jnp.exp(objective["log_scale"]),
        bias=objective["bias"],
        positives=jnp.eye(len(image), dtype=bool),
    )
    return dict(image_embedding=image, text_embedding=text, loss=np.asarray(loss))


def load(folder):
    return load_huggingface("SiglipModel", folder)
