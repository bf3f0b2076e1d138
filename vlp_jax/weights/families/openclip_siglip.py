"""SigLIP and SigLIP 2 in OpenCLIP folders: an image tower of timm with attention pooling, and
OpenCLIP's text tower without a causal mask (Zhai et al. 2023, Tschannen et al. 2025)."""

import re
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.weights.families.openclip_vit import (
    LAYERS,
    TEXT_GIVEN,
    TEXT_KEYS,
    OpenClipVit,
    completed,
)
from vlp_jax.weights.family import resolved
from vlp_jax.weights.rules import (
    Shape,
    from_heads,
    fused_attention,
    fused_heads,
    leading,
    linear,
    norm,
    patches,
    same,
    to_heads,
    within,
)
from vlp_jax.weights.settings import Given, Key, Settings

# Width, layers, heads and width of the MLP of timm's models vit_SIZE_patchP_siglip_S.
SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
# Those of timm's models, by size, patch and image.
NAMES = (
    "vit_base_patch32_siglip_256",
    *(f"vit_base_patch16_siglip_{side}" for side in (224, 256, 384, 512)),
    *(f"vit_large_patch16_siglip_{side}" for side in (256, 384, 512)),
    *(f"vit_so400m_patch14_siglip_{side}" for side in (224, 378, 384)),
    *(f"vit_so400m_patch16_siglip_{side}" for side in (256, 384, 512)),
    *(f"vit_giantopt_patch16_siglip_{side}" for side in (256, 384)),
)
# Those that approximate GELU; the others do not.
TANH = ("base_patch32", "large_patch16_siglip_512", "so400m_patch16", "giantopt")
IMAGE = within(
    "visual.trunk.",
    "model/image/",
    patches("patch_embed.proj", "patch_embedding"),
    same("pos_embed", "position"),
    within(
        "blocks.{}.",
        "transformer/layer_{}/",
        norm("norm1", "attention_norm"),
        fused_attention("attn.qkv.weight", "attn.qkv.bias", "attn.proj"),
        norm("norm2", "mlp_norm"),
        linear("mlp.fc1", "mlp/in"),
        linear("mlp.fc2", "mlp/out"),
    ),
    norm("norm", "norm"),
    within(
        "attn_pool.",
        "pooling_head/",
        same("latent", "probe"),
        to_heads("q", "attention/query"),
        fused_heads("kv.weight", "kv.bias", ("attention/key", "attention/value")),
        from_heads("proj", "attention/out"),
        norm("norm", "mlp_norm"),
        linear("mlp.fc1", "mlp/in"),
        linear("mlp.fc2", "mlp/out"),
    ),
)
TEXT = within(
    "text.",
    "model/",
    within(
        "",
        "text/",
        same("token_embedding.weight", "tokens/embedding"),
        leading("positional_embedding", "position"),
        LAYERS,
        norm("ln_final", "norm"),
    ),
    linear("text_projection", "text_projection"),
)
DIFFERENT = ("no_causal_mask", "pool_type", "proj_bias", "act_kwargs", "norm_kwargs")


class OpenClipSiglip(OpenClipVit):
    """OpenCLIP's SigLIP.

    The name of timm's model says all of the image tower, its image size too.
    """

    title = "OpenCLIP SigLIP"
    free = ("model.image.cut_remainder",)
    settings = Settings(
        keys=(
            Key("embed_dim", "model.embedding_dim"),
            Key("trunk.width", "model.image.width"),
            Key("trunk.depth", "model.image.depth"),
            Key("trunk.heads", "model.image.heads"),
            Key("trunk.mlp_dim", "model.image.mlp_dim"),
            Key("trunk.patch_size", "model.image.patch_size"),
            Key("trunk.image_size", "model.image.image_size"),
            Key("trunk.activation", "model.image.activation"),
            Key("trunk.cut_remainder", "model.image.cut_remainder"),
            *TEXT_KEYS,
            Key("text_cfg.epsilon", "model.text.norm_epsilon"),
            Key(
                "text_cfg.approximate",
                "model.text.activation",
                {"none": "gelu", "tanh": "gelu_tanh"},
            ),
        ),
        given=(
            *(
                given
                for given in TEXT_GIVEN
                if given.theirs.removeprefix("text_cfg.") not in DIFFERENT
            ),
            Given("text_cfg.no_causal_mask", True),
            Given("text_cfg.pool_type", "last"),
            Given("text_cfg.proj_bias", True),
            Given("vision_cfg.timm_pool", "map"),
            Given("vision_cfg.timm_proj", "none"),
            Given("custom_text", True),
            Given("quick_gelu", False),
        ),
        fixed={
            "model.image.norm_epsilon": 1e-6,
            "model.image.pooling": "map",
            "model.image.projection": "none",
            "model.text.causal": False,
            "model.text.padding_mask": False,
            "model.text.pooling": "last",
            "model.text.projection": "linear_with_bias",
            "objectives.contrastive.kind": "siglip",
        },
    )
    rules = (
        *IMAGE,
        *TEXT,
        same("logit_scale", "objectives_contrastive/log_scale"),
        same("logit_bias", "objectives_contrastive/bias"),
    )
    text_tokens = (None, "eos_token")
    default_tokens = {"eos_token": "</s>", "pad_token": "</s>"}

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "text."."""
        return {name: name for name in shapes}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings of `model_cfg`, with those of timm's model.

        Raises:
          CheckpointError: it is not one of SigLIP's.
        """
        name = theirs["vision_cfg"]["timm_model_name"]
        if name not in NAMES:
            raise CheckpointError(
                f"{place}: vision_cfg.timm_model_name {name!r} is not supported; supported are "
                f"{', '.join(NAMES)}"
            )
        return super().config(theirs, shapes, place)

    def completed(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """With OpenCLIP's defaults, and the sizes of timm's model under `trunk`."""
        found = completed(theirs)
        image = {"timm_pool": "avg", "timm_proj": "linear", **theirs["vision_cfg"]}
        text = {"no_causal_mask": False, "pool_type": "argmax", "proj_bias": False}
        text |= found["text_cfg"]
        text["epsilon"] = (text.get("norm_kwargs") or {}).get("eps", 1e-5)
        text["approximate"] = (text.get("act_kwargs") or {}).get("approximate", "none")
        trunk = trunk_of(image["timm_model_name"])
        return {**found, "vision_cfg": image, "text_cfg": text, "trunk": trunk}

    def their_config(self, config: Any) -> dict[str, Any]:
        """`model_cfg` as OpenCLIP writes it.

        Raises:
          ConfigError: timm has no model of these sizes.
        """
        found = self.settings.give(resolved(config), {})
        trunk = found.pop("trunk")
        text, image = without_defaults(found["text_cfg"]), found["vision_cfg"]
        found.pop("quick_gelu")
        trunk["cut_remainder"] = trunk["image_size"] % trunk["patch_size"] != 0
        name = next((name for name in NAMES if trunk_of(name) == trunk), None)
        if name is None:
            raise ConfigError(
                f"model.image: timm has no SigLIP of the sizes {trunk}; it has {', '.join(NAMES)}"
            )
        text["mlp_ratio"] = text.pop("mlp_dim") / text["width"]
        text["norm_kwargs"] = {"eps": text.pop("epsilon")}
        approximate = text.pop("approximate")
        if approximate != "none":
            text["act_kwargs"] = {"approximate": approximate}
        image |= {"timm_model_name": name, "image_size": trunk["image_size"]}
        return {**found, "text_cfg": text, "init_logit_bias": -10}


def trunk_of(name: str) -> dict[str, Any]:
    """The settings of a model of timm, vit_SIZE_patchP_siglip_S."""
    match = re.fullmatch(r"vit_([^_]+)_patch(\d+)_siglip_(\d+)", name)
    assert match is not None, name
    width, depth, heads, mlp_dim = SIZES[match[1]]
    patch, side = int(match[2]), int(match[3])
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_dim": mlp_dim,
        "patch_size": patch,
        "image_size": side,
        "activation": "gelu_tanh" if any(part in name for part in TANH) else "gelu",
        "cut_remainder": side % patch != 0,
    }


def without_defaults(text: Mapping[str, Any]) -> dict[str, Any]:
    """A `text_cfg` without what OpenCLIP takes by itself."""
    return {
        key: value
        for key, value in text.items()
        if value not in (None, False) and f"text_cfg.{key}" != "text_cfg.proj_type"
    }
