"""OpenCLIP's CLIP with a ViT and a text transformer of its own (Cherti et al. 2023), such as those
of OpenAI, LAION, MetaCLIP and DFN.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families.clip import IMAGE_FIXED, TEXT_FIXED
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import (
    Shape,
    class_and_positions,
    fused_attention,
    leading,
    linear,
    norm,
    patches,
    same,
    within,
)
from vlp_jax.weights.settings import Given, Key, Settings

LAYERS = within(
    "transformer.resblocks.{}.",
    "transformer/layer_{}/",
    norm("ln_1", "attention_norm"),
    fused_attention("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj"),
    norm("ln_2", "mlp_norm"),
    linear("mlp.c_fc", "mlp/in"),
    linear("mlp.c_proj", "mlp/out"),
)
IMAGE = within(
    "visual.",
    "model/",
    within(
        "",
        "image/",
        leading("class_embedding", "class_token", 2),
        patches("conv1", "patch_embedding"),
        class_and_positions("positional_embedding"),
        norm("ln_pre", "embedding_norm"),
        LAYERS,
        norm("ln_post", "norm"),
    ),
    same("proj", "image_projection/kernel"),
)
TEXT = within(
    "",
    "model/",
    within(
        "",
        "text/",
        same("token_embedding.weight", "tokens/embedding"),
        leading("positional_embedding", "position"),
        LAYERS,
        norm("ln_final", "norm"),
    ),
    same("text_projection", "text_projection/kernel"),
)


# Variants of the layers that we do not have.
PLAIN_BLOCKS = {
    "ls_init_value": None,
    "act_kwargs": None,
    "norm_kwargs": None,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}


ACTIVATION = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
TEXT_KEYS = (
    Key("text_cfg.context_length", "model.text.length"),
    Key("text_cfg.vocab_size", "model.text.vocab_size"),
    Key("text_cfg.width", "model.text.width"),
    Key("text_cfg.layers", "model.text.depth"),
    Key("text_cfg.heads", "model.text.heads"),
    Key("text_cfg.mlp_dim", "model.text.mlp_dim"),
)
# Given settings that are OpenCLIP's defaults, and not written.
DEFAULTS = (
    "vision_cfg.pos_embed_type",
    "vision_cfg.pool_type",
    "text_cfg.pool_type",
    "text_cfg.proj_type",
)
IMAGE_KEYS = (
    Key("vision_cfg.image_size", "model.image.image_size"),
    Key("vision_cfg.patch_size", "model.image.patch_size"),
    Key("vision_cfg.width", "model.image.width"),
    Key("vision_cfg.layers", "model.image.depth"),
    Key("vision_cfg.heads", "model.image.heads"),
    Key("vision_cfg.mlp_dim", "model.image.mlp_dim"),
)
IMAGE_GIVEN = (
    *(Given(f"vision_cfg.{key}", value) for key, value in PLAIN_BLOCKS.items()),
    Given("vision_cfg.no_ln_pre", False),
    Given("vision_cfg.pos_embed_type", "learnable"),
    Given("vision_cfg.final_ln_after_pool", False),
    Given("vision_cfg.pool_type", "tok"),
)
TEXT_GIVEN = (
    *(Given(f"text_cfg.{key}", value) for key, value in PLAIN_BLOCKS.items()),
    Given("text_cfg.embed_cls", False),
    Given("text_cfg.no_causal_mask", False),
    Given("text_cfg.pool_type", "argmax", ("eos",)),
    Given("text_cfg.proj_bias", False),
    Given("text_cfg.proj_type", "linear"),
    Given("text_cfg.final_ln_after_pool", False),
)


class OpenClipVit(Family):
    """OpenCLIP's CLIP; also CustomTextCLIP, whose text tower has the prefix "text."."""

    title = "OpenCLIP ViT"
    free = ("model.text.padding_mask", "model.image.norm_before_pooling")
    settings = Settings(
        keys=(
            Key("embed_dim", "model.embedding_dim"),
            *IMAGE_KEYS,
            *TEXT_KEYS,
            Key("activation", "model.image.activation", ACTIVATION),
            Key("activation", "model.text.activation", ACTIVATION),
        ),
        given=(*IMAGE_GIVEN, Given("vision_cfg.attentional_pool", False), *TEXT_GIVEN),
        fixed={
            **IMAGE_FIXED,
            **TEXT_FIXED,
            "model.image.norm_epsilon": 1e-5,
            "model.text.norm_epsilon": 1e-5,
            "objectives.contrastive.kind": "clip",
        },
    )
    rules = (*IMAGE, *TEXT, same("logit_scale", "objectives_contrastive/log_scale"))
    ignored = r"(^|\.)attn_mask$"
    text_tokens = ("bos_token", "eos_token")

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix "text."."""
        return {name.removeprefix("text."): file for name, file in super().names(shapes).items()}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings of `model_cfg`, with OpenCLIP's own defaults."""
        return super().config(self.completed(theirs), shapes, place)

    def completed(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """A `model_cfg` with OpenCLIP's defaults."""
        return completed(theirs)

    def their_config(self, config: Any) -> dict[str, Any]:
        """`model_cfg` as OpenCLIP writes it."""
        found = super().their_config(config)
        for given in self.settings.given:
            tower, _, key = given.theirs.partition(".")
            if given.value in (None, False) or given.theirs in DEFAULTS:
                del found[tower][key]
        found["vision_cfg"] = self.their_image(found["vision_cfg"])
        text = found["text_cfg"]
        text["mlp_ratio"] = text.pop("mlp_dim") / text["width"]
        found["quick_gelu"] = found.pop("activation") == "quick_gelu"
        return found

    def their_image(self, image: dict[str, Any]) -> dict[str, Any]:
        """`vision_cfg`, with the width of a head and the ratio of the MLP."""
        image["head_width"] = image["width"] // image.pop("heads")
        image["mlp_ratio"] = image.pop("mlp_dim") / image["width"]
        return image


def completed(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A `model_cfg` with OpenCLIP's defaults and the numbers that follow from others."""
    image = {
        "layers": 12,
        "width": 768,
        "head_width": 64,
        "patch_size": 16,
        "mlp_ratio": 4.0,
        "image_size": 224,
        **theirs["vision_cfg"],
    }
    text = {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 512,
        "heads": 8,
        "layers": 12,
        "mlp_ratio": 4.0,
        **theirs["text_cfg"],
    }
    image["heads"] = image["width"] // image["head_width"]
    for tower in (image, text):
        tower["mlp_dim"] = int(tower["width"] * tower["mlp_ratio"])
    activation = "quick_gelu" if theirs.get("quick_gelu", False) else "gelu"
    return {**theirs, "vision_cfg": image, "text_cfg": text, "activation": activation}
