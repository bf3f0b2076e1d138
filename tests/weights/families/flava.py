"""transformers' FlavaForPreTraining, without its codebook, and its losses of single modalities."""

import bert
from vision_text_dual_encoder import image_config
from weight_reference import (
    SIZES,
    draw_images,
    draw_masked,
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
HEADS = {
    "mim": ("patches", "head"),
    "mlm": ("words", "head"),
    "mmm_image": ("both", "image_head"),
    "mmm_text": ("both", "text_head"),
}


def config_of(variant):
    """A config of one width, as the heads of transformers take for granted."""
    from transformers import FlavaConfig

    sizes = SIZES[variant]
    width = dict(hidden_size=sizes.image_width)
    text = bert.sizes_of(variant) | width | dict(num_attention_heads=2, num_hidden_layers=1)
    multimodal = width | dict(
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.image_heads,
        intermediate_size=sizes.text_mlp,
    )
    return FlavaConfig(
        image_config=dict(image_config(variant), vocab_size=13),
        text_config=text,
        multimodal_config=multimodal,
        projection_dim=sizes.embedding,
        **width,
        init_codebook=False,
    )


def build(variant):
    from transformers import FlavaForPreTraining

    config = config_of(variant)
    config.text_config.hidden_act = "gelu"  # of all heads
    return perturb(FlavaForPreTraining._from_config(config, attn_implementation="eager"), variant)


def inputs(variant, rng):
    words = draw_masked(bert.inputs(variant, rng), rng)
    return dict(image=draw_images(SIZES[variant], rng), **words)


def outputs(model, inputs):
    import torch
    from torch.nn import functional

    text, masked = torch_texts(inputs), torch_texts({**inputs, "text": inputs["masked"]})
    images = torch_images(inputs)
    with torch.no_grad():
        flava = model.flava
        image, words = flava.image_model(images)[0], flava.text_model(**text)[0]
        given = flava(pixel_values=images, **text)
        both = given.multimodal_output.last_hidden_state
        words_logits = model.mlm_head(flava.text_model(**masked)[0])
        count = image.shape[1]
        loss = functional.cross_entropy(
            words_logits.flatten(0, 1), torch_labels(inputs["text"], inputs["chosen"]).flatten()
        )
        arrays = numbers(
            image_embedding=functional.normalize(flava.image_projection(image[:, 0]), dim=-1),
            text_embedding=functional.normalize(flava.text_projection(words[:, 0]), dim=-1),
            matching=model.itm_head(both),
            mlm=words_logits,
            mim=model.mim_head(image[:, 1:]),
            mmm_image=model.mmm_image_head(both[:, 2 : count + 1]),
            mmm_text=model.mmm_text_head(both[:, count + 1 :]),
            loss=loss,
        )
    return {**arrays, **{name: seen(arrays[name], inputs) for name in ("mlm", "mmm_text")}}


def ours(model, variables, inputs):
    from vlp_jax.models.text.lm_head import WordHead
    from vlp_jax.objectives.masked_language import masked_loss

    def encoded(module, image, text, mask, masked):
        model = module.model
        images, texts = model.encode_image(image), model.encode_text(text, mask)
        fused = model.fuse(images, texts)
        tokens = dict(
            mim=images.tokens[:, 1:],
            mlm=model.encode_text(masked, mask).tokens,
            mmm_image=fused.image_tokens[:, 1:],
            mmm_text=fused.tokens,
        )
        found = dict(
            image_embedding=model.embed_image(images),
            text_embedding=model.embed_text(texts),
            matching=module.objectives["matching"].logits(model, images, texts),
        )
        return tokens, found

    text, mask = inputs["text"], inputs["text_mask"]
    tokens, found = model.module.apply(
        variables, inputs["image"], text, mask, inputs["masked"], method=encoded
    )
    config = model.config.model
    for name, (objective, head) in HEADS.items():
        tower = config.image if "im" in name[-5:] and name != "mlm" else config.text
        options = tower.layer_options(model.module.precision)
        params = variables["params"][f"objectives_{objective}"][head]
        size = params["bias"].shape[0]
        found[name] = WordHead(options, size).apply({"params": params}, tokens[name])
    loss = masked_loss(found["mlm"], text, inputs["chosen"]).value
    return {
        **found,
        **{name: seen(found[name], inputs) for name in ("mlm", "mmm_text")},
        "loss": loss,
    }


def load(folder):
    return load_huggingface("FlavaForPreTraining", folder)
