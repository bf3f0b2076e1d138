"""OpenCLIP's SigLIP; run by an interpreter with open_clip. timm has no tiny SigLIP, so that one is
registered there, and here by `prepare`."""

import openclip_vit
from weight_reference import SIZES, draw_images, draw_texts, numbers, perturb, torch_images

FORMAT = "openclip"
NEEDS = "open_clip"
save = openclip_vit.save


def name_of(variant):
    """Of timm's model; the last has a patch size that does not divide the image."""
    sizes = SIZES[variant]
    side = sizes.image_size + (variant == 2)
    return f"vit_tiny{variant}_patch{sizes.patch_size}_siglip_{side}"


def prepare():
    """Adds the sizes of the tiny models to ours."""
    from vlp_jax.weights.families import openclip_siglip

    names = [name_of(variant) for variant in range(len(SIZES))]
    openclip_siglip.NAMES = tuple(dict.fromkeys((*openclip_siglip.NAMES, *names)))
    openclip_siglip.TANH = tuple(dict.fromkeys((*openclip_siglip.TANH, "tiny1")))
    for variant, sizes in enumerate(SIZES):
        openclip_siglip.SIZES[f"tiny{variant}"] = (
            sizes.image_width,
            sizes.image_depth,
            sizes.image_heads,
            sizes.image_mlp,
        )


def register(variant):
    """Adds a tiny model to timm."""
    import timm
    from timm.models import register_model

    name, sizes = name_of(variant), SIZES[variant]
    if timm.is_model(name):
        return

    def make(pretrained=False, **changes):
        settings = dict(
            patch_size=sizes.patch_size,
            img_size=int(name.rpartition("_")[2]),
            embed_dim=sizes.image_width,
            depth=sizes.image_depth,
            num_heads=sizes.image_heads,
            mlp_ratio=sizes.image_mlp / sizes.image_width,
            class_token=False,
            global_pool="map",
            act_layer="gelu_tanh" if variant == 1 else None,
        )
        own = {key: value for key, value in changes.items() if not key.endswith(("cfg", "overlay"))}
        own.pop("cache_dir", None)
        return timm.models.VisionTransformer(**{**settings, **own})

    make.__name__, make.__module__ = name, "timm.models.vision_transformer"
    register_model(make)


def model_cfg(variant):
    sizes = SIZES[variant]
    return dict(
        embed_dim=sizes.image_width,
        init_logit_bias=-10,
        vision_cfg=dict(
            image_size=int(name_of(variant).rpartition("_")[2]),
            timm_model_name=name_of(variant),
            timm_model_pretrained=False,
            timm_pool="map",
            timm_proj="none",
        ),
        text_cfg=dict(
            openclip_vit.model_cfg(variant)["text_cfg"],
            no_causal_mask=True,
            proj_bias=True,
            pool_type="last",
            norm_kwargs={"eps": 1e-6},
            **({"act_kwargs": {"approximate": "tanh"}} if variant else {}),
        ),
    )


def build(variant):
    import open_clip

    register(variant)
    model = open_clip.CustomTextCLIP(**model_cfg(variant))
    model.cfg = {**model_cfg(variant), "custom_text": True}
    return perturb(model, variant)


def inputs(variant, rng):
    sizes = SIZES[variant]
    text, mask = draw_texts(sizes, rng, (5, 1, 1), (2, 60))
    image = draw_images(sizes, rng)
    if variant == 2:
        image = image[:, list(range(sizes.image_size)) + [0]][:, :, [*range(sizes.image_size), 0]]
    return dict(image=image, text=text, text_mask=mask)


def outputs(model, inputs):
    import torch
    from open_clip.loss import SigLipLoss

    with torch.no_grad():
        image, text, scale, bias = model(
            torch_images(inputs), torch.from_numpy(inputs["text"]).long()
        )
        loss = SigLipLoss()(image, text, scale, bias)
    return numbers(image_embedding=image, text_embedding=text, loss=loss)


def ours(model, variables, inputs):
    import siglip

    return siglip.ours(model, variables, inputs)


def load(folder):
    import json
    import pathlib

    import open_clip
    from safetensors.torch import load_file

    config = json.loads(pathlib.Path(folder, "open_clip_config.json").read_text())["model_cfg"]
    assert config.pop("custom_text")
    for variant in range(len(SIZES)):
        register(variant)
    model = open_clip.CustomTextCLIP(**config)
    found = model.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=False)
    return model.eval(), [*found.missing_keys, *found.unexpected_keys]
