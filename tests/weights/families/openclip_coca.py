"""OpenCLIP's CoCa; run by an interpreter with open_clip."""

import json
import pathlib

import numpy as np
import openclip_vit
from weight_reference import (
    END,
    SIZES,
    START,
    draw_images,
    draw_texts,
    numbers,
    perturb,
    torch_images,
)

FORMAT = "openclip"
NEEDS = "open_clip"
save = openclip_vit.save
QUERIES, HEADS = (6, 5, 4), (2, 4, 2)


def model_cfg(variant):
    """The last variant has a pooler of the width of the image's layers, with one fused weight."""
    config, sizes = openclip_vit.model_cfg(variant), SIZES[variant]
    config["embed_dim"] = sizes.text_width if variant < 2 else sizes.image_width
    config["vision_cfg"] |= dict(
        attentional_pool=True,
        attn_pooler_queries=QUERIES[variant],
        attn_pooler_heads=HEADS[variant],
        output_tokens=True,
    )
    config["text_cfg"] |= dict(embed_cls=True, output_tokens=True, width=config["embed_dim"])
    config["multimodal_cfg"] = dict(
        context_length=sizes.length,
        vocab_size=sizes.vocabulary,
        width=config["embed_dim"],
        heads=4,
        layers=2 - variant % 2,
    )
    return config


def build(variant):
    import torch
    from open_clip.coca_model import CoCa

    model = CoCa(**model_cfg(variant))
    torch.nn.init.zeros_(model.text_decoder.text_projection)  # open_clip leaves it as it finds it
    model.cfg = {**model_cfg(variant), "custom_text": True}
    return perturb(model, variant)


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng, (START, END, 0), (1, START))
    return dict(image=draw_images(SIZES[variant], rng), text=text, text_mask=mask)


def outputs(model, inputs):
    import torch
    from open_clip.loss import CoCaLoss

    with torch.no_grad():
        found = model(torch_images(inputs), torch.from_numpy(inputs["text"]).long())
        contrastive, captioning = CoCaLoss(2.0, 1.0)(**found)
    shown = torch.from_numpy(inputs["text_mask"][:, :-1, None])
    return numbers(
        image_embedding=found["image_features"],
        text_embedding=found["text_features"],
        logits=found["logits"] * shown,
        contrastive=contrastive,
        captioning=captioning,
    )


def ours(model, variables, inputs):
    rows = np.arange(len(inputs["image"]), dtype=np.int32)
    batch = {**inputs, "caption_id": rows[:, None], "image_id": rows[:, None]}

    def both(module):
        encodings = module.encode(
            batch, {"image_embedding", "text_embedding", "decoding"}, train=False
        )
        return encodings, module(batch).metrics

    found, losses = model.module.apply(variables, method=both)
    logits = np.asarray(found["decoding"].logits)[:, :-1]
    return dict(
        image_embedding=found["image_embedding"],
        text_embedding=found["text_embedding"],
        logits=logits * inputs["text_mask"][:, :-1, None],
        contrastive=losses["contrastive/loss"],
        captioning=2.0 * losses["captioning/loss"],
    )


def load(folder):
    from open_clip.coca_model import CoCa
    from safetensors.torch import load_file

    config = json.loads(pathlib.Path(folder, "open_clip_config.json").read_text())["model_cfg"]
    assert config.pop("custom_text")
    model = CoCa(**config)
    found = model.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=False)
    return model.eval(), [*found.missing_keys, *found.unexpected_keys]
