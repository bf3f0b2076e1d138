"""OpenCLIP's CLIP with a ModifiedResNet, such as OpenAI's RN50 (Radford et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families.clip import TEXT_FIXED
from vlp_jax.weights.families.openclip_vit import (
    ACTIVATION,
    TEXT,
    TEXT_GIVEN,
    TEXT_KEYS,
    OpenClipVit,
    completed,
)
from vlp_jax.weights.rules import (
    Rules,
    attention,
    batch_norm,
    convolution,
    leading,
    same,
    together,
    within,
)
from vlp_jax.weights.settings import Key, Settings

STAGES = 4


def normed(theirs: str, number: int, ours: str) -> Rules:
    """The convolution of this number, from 1, and its norm."""
    return together(
        convolution(f"{theirs}conv{number}", f"convolution_{ours}"),
        batch_norm(f"{theirs}bn{number}", f"norm_{ours}"),
    )


BLOCK = together(
    *(normed("", number + 1, str(number)) for number in range(3)),
    convolution("downsample.0", "convolution_shortcut"),
    batch_norm("downsample.1", "norm_shortcut"),
)
IMAGE = within(
    "visual.",
    "model/image/",
    *(normed("", number + 1, f"stem_{number}") for number in range(3)),
    *(
        within(f"layer{stage + 1}.{{}}.", f"stage_{stage}_block_{{}}/", BLOCK)
        for stage in range(STAGES)
    ),
    within(
        "attnpool.",
        "",
        leading("positional_embedding", "pooling_head/position"),
        attention(query="q_proj", key="k_proj", value="v_proj", out="c_proj", ours="pooling_head"),
    ),
)


class OpenClipResNet(OpenClipVit):
    """OpenCLIP's CLIP with CLIP's variant of a ResNet.

    Of a BatchNorm, the number of batches that it has seen is not read: it changes nothing.
    """

    title = "OpenCLIP ModifiedResNet"
    # `depth` only says that blocks are bottlenecks; the others are those of another stem or norm
    free = (
        "model.text.padding_mask",
        "model.image.depth",
        "model.image.groups",
        "model.image.stem_size",
        "model.image.stem_stride",
        "model.image.max_pool",
    )
    settings = Settings(
        keys=(
            Key("embed_dim", "model.embedding_dim"),
            Key("embed_dim", "model.image.output_dim"),
            Key("vision_cfg.image_size", "model.image.image_size"),
            Key("vision_cfg.width", "model.image.width"),
            Key("vision_cfg.layers", "model.image.blocks"),
            Key("vision_cfg.heads", "model.image.heads"),
            *TEXT_KEYS,
            Key("activation", "model.text.activation", ACTIVATION),
        ),
        given=TEXT_GIVEN,
        fixed={
            **TEXT_FIXED,
            "model.image.kind": "resnet",
            "model.image.clip": True,
            "model.image.norm": "batch",
            "model.image.projection": "none",
            "model.text.norm_epsilon": 1e-5,
            "objectives.contrastive.kind": "clip",
        },
    )
    rules = (*IMAGE, *TEXT, same("logit_scale", "objectives_contrastive/log_scale"))

    def completed(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """With OpenCLIP's defaults; the last stage is 32 times as wide as the first."""
        found = completed({**theirs, "vision_cfg": {"width": 64, **theirs["vision_cfg"]}})
        image = found["vision_cfg"]
        image["heads"] = image["width"] * 32 // image["head_width"]
        image["layers"] = tuple(image["layers"])
        return found

    def their_image(self, image: dict[str, Any]) -> dict[str, Any]:
        """`vision_cfg`, with the width of a head."""
        heads = image.pop("heads")
        layers = list(image.pop("layers"))
        return {
            **image,
            "layers": layers,
            "head_width": image["width"] * 32 // heads,
            "patch_size": None,
        }
