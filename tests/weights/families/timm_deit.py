"""timm's DeiT with a distillation token, a ViT whose norm follows mean pooling, and DINOv2's with a
gated MLP."""

import timm_vit
from weight_reference import SIZES, perturb

FORMAT, NEEDS = "timm", "timm"
inputs, save, ours = timm_vit.inputs, timm_vit.save, timm_vit.ours
NAMES = (
    "deit_tiny_distilled_patch16_224",
    "vit_medium_patch16_reg4_gap_256",
    "vit_giant_patch14_reg4_dinov2",
)


def build(variant):
    import timm

    sizes = SIZES[variant]
    model = timm.create_model(
        NAMES[variant],
        num_classes=0,
        img_size=sizes.image_size,
        patch_size=sizes.patch_size,
        embed_dim=sizes.image_width,
        depth=sizes.image_depth,
        num_heads=sizes.image_heads,
        mlp_ratio=2 if variant == 2 else sizes.image_mlp / sizes.image_width,
        **({"qkv_bias": False, "no_embed_class": False} if variant == 1 else {}),
    )
    model.heads = sizes.image_heads
    return perturb(model, variant)


def outputs(model, inputs):
    import torch
    from weight_reference import numbers, torch_images

    if not hasattr(model, "dist_token"):
        return timm_vit.outputs(model, inputs)
    with torch.no_grad():
        tokens = model.forward_features(torch_images(inputs))
    return numbers(tokens=tokens, pooled=tokens[:, 0])
