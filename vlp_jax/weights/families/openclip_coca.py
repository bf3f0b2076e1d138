"""OpenCLIP's CoCa (Yu et al. 2022): a ViT with attention pooling, a text tower with a class token,
and a decoder on top of it whose layers have two MLPs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlp_jax.errors import ConfigError
from vlp_jax.weights.families.openclip_vit import (
    ACTIVATION,
    IMAGE_GIVEN,
    IMAGE_KEYS,
    LAYERS,
    TEXT_GIVEN,
    TEXT_KEYS,
    OpenClipVit,
    completed,
)
from vlp_jax.weights.rules import (
    Rule,
    Rules,
    Shape,
    class_and_positions,
    fused_attention,
    leading,
    linear,
    norm,
    patches,
    same,
    together,
    transposed,
    within,
)
from vlp_jax.weights.settings import Given, Key, Settings

POOLER = "visual.attn_pool."
# Queries, keys and values of the pooler: one weight where its width is that of the layers.
FUSED, *REST = fused_attention(
    f"{POOLER}attn.in_proj_weight",
    f"{POOLER}attn.in_proj_bias",
    f"{POOLER}attn.out_proj",
    ours="model/image/pooling_head/attention",
)
SEPARATE = tuple(
    transposed(
        f"{POOLER}attn.{name[0]}_proj_weight", f"model/image/pooling_head/attention/{name}/kernel"
    )
    for name in ("query", "key", "value")
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
        leading("attn_pool.query", "pooling_head/probe"),
        norm("attn_pool.ln_q", "pooling_head/probe_norm"),
        norm("attn_pool.ln_k", "pooling_head/token_norm"),
        norm("ln_post", "pooling_head/norm"),
    ),
    same("proj", "image_projection/kernel"),
)
POSITIONS = Rule(
    ("positional_embedding",),
    ("position", "class_position"),
    lambda arrays, shapes: (arrays[0][None, :-1], arrays[0][None, -1:]),
    lambda arrays: (np.concatenate(arrays, axis=1)[0],),
    "split",
)
TEXT = within(
    "text.",
    "model/",
    within(
        "",
        "text/",
        same("token_embedding.weight", "tokens/embedding"),
        leading("cls_emb", "class_token", 2),
        POSITIONS,
        LAYERS,
        norm("ln_final", "norm"),
    ),
    same("text_projection", "text_projection/kernel"),
)
DECODER = within(
    "text_decoder.",
    "model/decoder/",
    within(
        "resblocks.{}.",
        "transformer/layer_{}/",
        norm("ln_1", "attention_norm"),
        fused_attention("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj"),
        norm("ln_2", "inner_mlp_norm"),
        linear("mlp.c_fc", "inner_mlp/in"),
        linear("mlp.c_proj", "inner_mlp/out"),
    ),
    within(
        "cross_attn.{}.",
        "transformer/layer_{}/",
        norm("ln_1", "cross_norm"),
        norm("ln_1_kv", "cross_memory_norm"),
        fused_attention("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj", ours="cross"),
        norm("ln_2", "mlp_norm"),
        linear("mlp.c_fc", "mlp/in"),
        linear("mlp.c_proj", "mlp/out"),
    ),
    norm("ln_final", "norm"),
    transposed("text_projection", "output"),
)
COMMON = together(
    IMAGE, TEXT, DECODER, *REST, same("logit_scale", "objectives_contrastive/log_scale")
)


class OpenClipCoCa(OpenClipVit):
    """OpenCLIP's CoCa.

    Its text tower's class token is behind all padding and attends to the first padding token, as
    all published CoCas of OpenCLIP were trained.
    """

    title = "OpenCLIP CoCa"
    free = ("model.image.norm_before_pooling",)
    settings = Settings(
        keys=(
            Key("embed_dim", "model.embedding_dim"),
            Key("embed_dim", "model.image.query_width"),
            *IMAGE_KEYS,
            Key("vision_cfg.attn_pooler_queries", "model.image.queries"),
            Key("vision_cfg.attn_pooler_heads", "model.image.query_heads"),
            *TEXT_KEYS,
            Key("multimodal_cfg.width", "model.decoder.width"),
            Key("multimodal_cfg.layers", "model.decoder.depth"),
            Key("multimodal_cfg.heads", "model.decoder.heads"),
            Key("multimodal_cfg.mlp_dim", "model.decoder.mlp_dim"),
            *(
                Key("activation", f"model.{part}.activation", ACTIVATION)
                for part in ("image", "text", "decoder")
            ),
        ),
        given=(
            *IMAGE_GIVEN,
            Given("vision_cfg.attentional_pool", True),
            Given("vision_cfg.output_tokens", True),
            *(given for given in TEXT_GIVEN if given.theirs != "text_cfg.embed_cls"),
            Given("text_cfg.embed_cls", True),
            Given("text_cfg.output_tokens", True),
            Given("multimodal_cfg.ls_init_value", None),
            Given("custom_text", True),
        ),
        fixed={
            "model.image.pooling": "queries",
            "model.image.class_tokens": 1,
            "model.image.embedding_norm": True,
            "model.image.patch_bias": False,
            "model.image.projection": "linear",
            "model.text.causal": True,
            "model.text.pooling": "cls_last",
            "model.text.projection": "linear",
            "model.decoder.kind": "on_text_tower",
            "model.decoder.tied": False,
            "model.decoder.memory_norm": True,
            "model.decoder.inner_mlp": True,
            **{f"model.{part}.norm_epsilon": 1e-5 for part in ("image", "text", "decoder")},
            "objectives.contrastive.kind": "clip",
            "objectives.captioning.kind": "captioning",
            "objectives.captioning.weight": 2.0,
        },
    )
    rules = (*COMMON, FUSED, *SEPARATE)

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "text."."""
        return {name: name for name in shapes}

    def written_rules(self, theirs: Mapping[str, Any]) -> Rules:
        """With one weight of the pooler's queries, keys and values, or three."""
        fused = theirs["embed_dim"] == theirs["vision_cfg"]["width"]
        return (*COMMON, FUSED) if fused else (*COMMON, *SEPARATE)

    def completed(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """With OpenCLIP's defaults."""
        found = completed(theirs)
        pooler = {"attn_pooler_queries": 256, "attn_pooler_heads": 8}
        decoder = {"width": 512, "heads": 8, "layers": 12, **theirs["multimodal_cfg"]}
        return {
            **found,
            "vision_cfg": {**pooler, **found["vision_cfg"]},
            "multimodal_cfg": {**decoder, "mlp_dim": 4 * decoder["width"]},
        }

    def their_config(self, config: Any) -> dict[str, Any]:
        """`model_cfg` as OpenCLIP writes it."""
        found = super().their_config(config)
        text, decoder = found["text_cfg"], found["multimodal_cfg"]
        decoder |= {key: text[key] for key in ("context_length", "vocab_size")}
        if decoder.pop("mlp_dim") != 4 * decoder["width"]:
            raise ConfigError("model.decoder.mlp_dim: is 4 times the width in OpenCLIP's CoCa")
        return found
