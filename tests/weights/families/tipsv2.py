"""transformers' Tipsv2Model; the last variant has a gated MLP."""

import clip
from weight_reference import SIZES, numbers, perturb, save_huggingface, torch_images

FORMAT = "huggingface"
inputs, ours = clip.inputs, clip.ours
save = save_huggingface


def build(variant):
    from transformers import Tipsv2Config, Tipsv2Model

    sizes = SIZES[variant]
    config = Tipsv2Config(
        vision_config=dict(
            hidden_size=sizes.image_width,
            mlp_ratio=sizes.image_mlp / sizes.image_width,
            num_hidden_layers=sizes.image_depth,
            num_attention_heads=sizes.image_heads,
            image_size=sizes.image_size,
            patch_size=sizes.patch_size,
            use_swiglu_ffn=variant == 2,
        ),
        text_config=dict(
            hidden_size=sizes.image_width,
            intermediate_size=sizes.text_mlp,
            num_hidden_layers=sizes.text_depth,
            num_attention_heads=sizes.image_heads,
            vocab_size=sizes.vocabulary,
            max_position_embeddings=sizes.length,
        ),
        temperature_init_value=0.4,
    )
    model = Tipsv2Model._from_config(config, attn_implementation="eager")
    return perturb(model, variant)


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
