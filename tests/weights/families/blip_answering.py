"""transformers' BlipForQuestionAnswering, and its loss, on questions without padding, which that
class would see."""

import blip_retrieval
import numpy as np
from weight_reference import (
    SIZES,
    draw_images,
    draw_texts,
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
    from transformers import BlipForQuestionAnswering

    config, sizes = blip_retrieval.config_of(variant), SIZES[variant]
    config.text_config.hidden_size = sizes.image_width  # this class has one width for both
    config.text_config.num_attention_heads = sizes.image_heads
    config.text_config.num_hidden_layers = 1 + (variant == 2)
    return perturb(
        BlipForQuestionAnswering._from_config(config, attn_implementation="eager"), variant
    )


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng)
    question = rng.integers(0, 57, text.shape).astype(np.int32)
    return dict(
        image=draw_images(SIZES[variant], rng), question=question, text=text, text_mask=mask
    )


def outputs(model, inputs):
    import torch

    question = torch.from_numpy(inputs["question"]).long()
    answer = torch_texts(inputs)
    with torch.no_grad():
        common = dict(pixel_values=torch_images(inputs), input_ids=question)
        loss = model(
            **common,
            decoder_input_ids=answer["input_ids"],
            decoder_attention_mask=answer["attention_mask"],
            labels=torch_labels(inputs["text"], inputs["text_mask"]),
        ).loss
        image = model.vision_model(common["pixel_values"])[0]
        fused = model.text_encoder(input_ids=question, encoder_hidden_states=image)[0]
        logits = model.text_decoder(**answer, encoder_hidden_states=fused).logits
    arrays = numbers(logits=logits, loss=loss, fused=fused)
    return {**arrays, "logits": seen(arrays["logits"], inputs)}


def ours(model, variables, inputs):
    from vlp_jax.objectives.captioning import next_token_loss

    text, mask = inputs["text"], inputs["text_mask"]

    def answered(module, image, question, text, mask):
        model = module.model
        fused = model.fuse(model.encode_image(image), model.encode_text(question))
        return fused.tokens, model.answer(fused, text, mask)

    fused, logits = model.module.apply(
        variables, inputs["image"], inputs["question"], text, mask, method=answered
    )
    smoothing = model.config.objectives["words"].label_smoothing
    loss = next_token_loss(logits, text, mask, smoothing)
    return dict(logits=seen(logits, inputs), loss=loss, fused=fused)


def load(folder):
    return load_huggingface("BlipForQuestionAnswering", folder)
