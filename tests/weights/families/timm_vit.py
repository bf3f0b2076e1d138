"""timm's ViT: SigLIP's, DINOv2's with registers, CLIP's, with other sizes."""

import json

import clip_image
import vit
from weight_reference import SIZES, numbers, perturb, torch_images, write_json

FORMAT, NEEDS = "timm", "timm"
inputs = clip_image.inputs
NAMES = (
    "vit_base_patch16_siglip_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_clip_quickgelu_224",
)
CHANGES = ({}, dict(reg_tokens=3), dict(num_classes=5))


def build(variant):
    import timm

    sizes = SIZES[variant]
    model = timm.create_model(
        NAMES[variant],
        **dict(
            num_classes=0,
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.image_width,
            depth=sizes.image_depth,
            num_heads=sizes.image_heads,
            mlp_ratio=sizes.image_mlp / sizes.image_width,
        )
        | CHANGES[variant],
    )
    model.heads = sizes.image_heads
    return perturb(model, variant)


def save(model, folder):
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors")
    pooling = getattr(model, "global_pool", None)
    config = dict(
        architecture=model.pretrained_cfg["architecture"],
        num_classes=model.num_classes,
        global_pool=pooling if isinstance(pooling, str) else "avg",
        model_args=dict(num_heads=model.heads) if model.heads else {},
        pretrained_cfg={
            key: model.pretrained_cfg[key]
            for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
        },
    )
    write_json(folder / "config.json", json.loads(json.dumps(config)))


def outputs(model, inputs):
    import torch

    with torch.no_grad():
        tokens = model.forward_features(torch_images(inputs))
        pooled = model.forward_head(tokens, pre_logits=True)
    front, registers = int(model.cls_token is not None), getattr(model, "num_reg_tokens", 0)
    order = [*range(front), *range(front + registers, tokens.shape[1])]
    order += range(front, front + registers)
    return numbers(tokens=tokens[:, order], pooled=pooled)


def ours(model, variables, inputs):
    encoding = vit.encoded(model, variables, inputs["image"])
    return dict(tokens=encoding.tokens, pooled=encoding.pooled)
