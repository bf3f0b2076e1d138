"""transformers' CLIPModel."""

from weight_reference import (
    END,
    PADDING,
    SIZES,
    START,
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
    from transformers import CLIPConfig, CLIPModel

    sizes = SIZES[variant]
    activation = ("quick_gelu", "gelu", "quick_gelu")[variant]
    config = CLIPConfig(
        vision_config=dict(
            hidden_size=sizes.image_width,
            intermediate_size=sizes.image_mlp,
            num_hidden_layers=sizes.image_depth,
            num_attention_heads=sizes.image_heads,
            image_size=sizes.image_size,
            patch_size=sizes.patch_size,
            hidden_act=activation,
        ),
        text_config=dict(
            hidden_size=sizes.text_width,
            intermediate_size=sizes.text_mlp,
            num_hidden_layers=sizes.text_depth,
            num_attention_heads=sizes.text_heads,
            vocab_size=sizes.vocabulary,
            max_position_embeddings=sizes.length,
            bos_token_id=START,
            eos_token_id=(END, 2, END)[variant],  # 2 in old configs: then the largest id pools
            pad_token_id=PADDING if variant != 1 else 0,
            hidden_act=activation,
        ),
        projection_dim=sizes.embedding,
    )
    return perturb(CLIPModel._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    padding = PADDING if variant != 1 else 0
    text, mask = draw_texts(SIZES[variant], rng, (START, END, padding))
    return dict(image=draw_images(SIZES[variant], rng), text=text, text_mask=mask)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(inputs["text"]).long(),
            pixel_values=torch_images(inputs),
            attention_mask=torch.from_numpy(inputs["text_mask"]).long(),
            return_loss=True,
        )
    return numbers(
        image_embedding=found.image_embeds, text_embedding=found.text_embeds, loss=found.loss
    )


def ours(model, variables, inputs):
    import jax.numpy as jnp

    from vlp_jax import losses

    image, text = model.embed(variables, **inputs)
    scale = jnp.exp(variables["params"]["objectives_contrastive"]["log_scale"])
    loss = losses.softmax_contrastive(image, text, scale)
    return dict(image_embedding=image, text_embedding=text, loss=loss)


def load(folder):
    return load_huggingface("CLIPModel", folder)
