"""transformers' BlipForImageTextRetrieval."""

import bert
from vision_text_dual_encoder import image_config
from weight_reference import (
    SIZES,
    draw_images,
    load_huggingface,
    numbers,
    perturb,
    save_huggingface,
    torch_images,
    torch_texts,
)

FORMAT = "huggingface"
save = save_huggingface


def config_of(variant):
    """A config with towers of different sizes."""
    from transformers import BlipConfig

    sizes = SIZES[variant]
    return BlipConfig(
        vision_config=image_config(variant),
        text_config=bert.sizes_of(variant)
        | dict(
            bos_token_id=57,
            eos_token_id=58,
            sep_token_id=58,
            label_smoothing=(0.0, 0.1, 0.0)[variant],
            encoder_hidden_size=sizes.image_width,
        ),
        projection_dim=sizes.embedding,
        image_text_hidden_size=sizes.embedding,
    )


def build(variant):
    from transformers import BlipForImageTextRetrieval

    config = config_of(variant)
    return perturb(
        BlipForImageTextRetrieval._from_config(config, attn_implementation="eager"), variant
    )


def inputs(variant, rng):
    return dict(image=draw_images(SIZES[variant], rng), **bert.inputs(variant, rng))


def outputs(model, inputs):
    import torch

    arguments = dict(pixel_values=torch_images(inputs), **torch_texts(inputs))
    with torch.no_grad():
        pairs = model(**arguments, use_itm_head=True)
        alone = model(**arguments, use_itm_head=False)
    return numbers(
        image_tokens=pairs.last_hidden_state, matching=pairs.itm_score, cosines=alone.itm_score
    )


def ours(model, variables, inputs):
    arrays = inputs["image"], inputs["text"], inputs["text_mask"]

    def computed(module, image, text, mask):
        images, texts = module.model.encode_image(image), module.model.encode_text(text, mask)
        logits = module.objectives["matching"].logits(module.model, images, texts)
        embeddings = module.model.embed_image(images) @ module.model.embed_text(texts).T
        return dict(image_tokens=images.tokens, matching=logits, cosines=embeddings)

    return model.module.apply(variables, *arrays, method=computed)


def load(folder):
    return load_huggingface("BlipForImageTextRetrieval", folder)
