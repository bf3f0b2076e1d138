"""OpenCLIP's PE Core; run by an interpreter with open_clip. timm has no tiny one, so that it is
registered there, and here by `prepare`.

timm's pooling has 8 heads, so that the widths are multiples of 8.
"""

import openclip_vit
from weight_reference import SIZES, perturb

FORMAT = "openclip"
NEEDS = "open_clip"
save, inputs = openclip_vit.save, openclip_vit.inputs
outputs, ours = openclip_vit.outputs, openclip_vit.ours
CLASS_TOKENS = 1, 0, 1  # as the published ones, but for the largest


def name_of(variant):
    """Of timm's model."""
    sizes = SIZES[variant]
    return f"vit_pe_core_test{variant}_patch{sizes.patch_size}_{sizes.image_size}"


def prepare():
    """Adds the sizes of the tiny models to ours."""
    from vlp_jax.weights.families import openclip_pe

    names = [name_of(variant) for variant in range(len(SIZES))]
    openclip_pe.NAMES = tuple(dict.fromkeys((*openclip_pe.NAMES, *names)))
    for variant, sizes in enumerate(SIZES):
        openclip_pe.SIZES[f"test{variant}"] = (
            sizes.image_width,
            sizes.image_depth,
            sizes.image_heads,
            sizes.image_mlp,
            CLASS_TOKENS[variant],
        )


def register(variant):
    """Adds a tiny model to timm, with the arguments of the published ones."""
    import functools

    import timm
    from timm.layers import LayerNorm
    from timm.models import register_model

    name, sizes = name_of(variant), SIZES[variant]
    if timm.is_model(name):
        return

    def make(pretrained=False, **changes):
        settings = dict(
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.image_width,
            depth=sizes.image_depth,
            num_heads=sizes.image_heads,
            mlp_ratio=sizes.image_mlp / sizes.image_width,
            class_token=CLASS_TOKENS[variant] == 1,
            attn_type="rope",
            use_pre_transformer_norm=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(sizes.image_size // sizes.patch_size,) * 2,
            rope_grid_offset=float(CLASS_TOKENS[variant]),
            rope_grid_indexing="xy",
            attn_pool_num_heads=8,
            attn_pool_mlp_ratio=4.0,
            norm_layer=functools.partial(LayerNorm, eps=1e-5),
        )
        own = {key: value for key, value in changes.items() if not key.endswith(("cfg", "overlay"))}
        own.pop("cache_dir", None)
        return timm.models.Eva(**{**settings, **own})

    make.__name__, make.__module__ = name, "timm.models.eva"
    register_model(make)


def model_cfg(variant):
    return dict(
        openclip_vit.model_cfg(variant),
        quick_gelu=False,
        vision_cfg=dict(
            image_size=SIZES[variant].image_size,
            timm_model_name=name_of(variant),
            timm_model_pretrained=False,
            timm_pool="map",
            timm_proj=None,
        ),
    )


def build(variant):
    import open_clip

    register(variant)
    model = open_clip.CustomTextCLIP(**model_cfg(variant))
    model.cfg = {**model_cfg(variant), "custom_text": True}
    return perturb(model, variant)
