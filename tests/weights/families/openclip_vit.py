"""OpenCLIP's CLIP with a ViT; run by an interpreter with open_clip, as vlp_jax is not needed."""

import json
import pathlib

from weight_reference import (
    END,
    SIZES,
    START,
    draw_images,
    draw_texts,
    numbers,
    perturb,
    torch_images,
    write_json,
)

FORMAT = "openclip"
NEEDS = "open_clip"


def model_cfg(variant):
    sizes = SIZES[variant]
    return dict(
        embed_dim=sizes.embedding,
        quick_gelu=variant == 1,
        vision_cfg=dict(
            image_size=sizes.image_size,
            patch_size=sizes.patch_size,
            width=sizes.image_width,
            layers=sizes.image_depth,
            head_width=sizes.image_width // sizes.image_heads,
            mlp_ratio=sizes.image_mlp / sizes.image_width,
        ),
        text_cfg=dict(
            context_length=sizes.length,
            vocab_size=sizes.vocabulary,
            width=sizes.text_width,
            heads=sizes.text_heads,
            layers=sizes.text_depth,
            mlp_ratio=sizes.text_mlp / sizes.text_width,
        ),
    )


def build(variant):
    import open_clip

    kind = open_clip.CustomTextCLIP if variant == 2 else open_clip.CLIP  # prefix "text."
    model = kind(**model_cfg(variant))
    model.cfg = model_cfg(variant)
    return perturb(model, variant)


def save(model, folder):
    from safetensors.torch import save_file

    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", {"model_cfg": model.cfg, "preprocess_cfg": {}})


def inputs(variant, rng):
    text, mask = draw_texts(SIZES[variant], rng, (START, END, 0), (1, START))
    return dict(image=draw_images(SIZES[variant], rng), text=text, text_mask=mask)


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        image = model.encode_image(torch_images(inputs), normalize=True)
        text = model.encode_text(torch.from_numpy(inputs["text"]).long(), normalize=True)
        logits = model.logit_scale.exp() * image @ text.T
        labels = torch.arange(len(logits))
        entropy = torch.nn.functional.cross_entropy
        loss = (entropy(logits, labels) + entropy(logits.T, labels)) / 2
    return numbers(image_embedding=image, text_embedding=text, loss=loss)


def ours(model, variables, inputs):
    import clip

    return clip.ours(model, variables, inputs)


def load(folder):
    import open_clip
    from safetensors.torch import load_file

    config = json.loads(pathlib.Path(folder, "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**config)
    found = model.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=False)
    return model.eval(), [*found.missing_keys, *found.unexpected_keys]
