"""ALBEF in the layout of its released code (Li et al. 2021; models/model_pretrain.py and
models/model_retrieval.py).

The lower half of its BERT, up to `fusion_layer`, is the text tower, the upper half the fusion. Not
read is what is of training alone: the momentum model (names with `_m`), whose parameters follow
those that are read, and its queues of embeddings.
"""

import re
from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families import bert, timm_vit
from vlp_jax.weights.families.released_code import (
    ReleasedCode,
    depth_of,
    heads_of,
    rows_of,
    tokenizer_of,
)
from vlp_jax.weights.rules import Shape, class_and_positions, linear, norm, patches, same, within
from vlp_jax.weights.settings import ACTIVATIONS, Key, Settings, look_up

LAYER = re.compile(r"text_encoder\.encoder\.layer\.(\d+)\.(.+)")
IMAGE = within(
    "visual_encoder.",
    "model/image/",
    same("cls_token", "class_token"),
    class_and_positions("pos_embed", dims=3),
    patches("patch_embed.proj", "patch_embedding"),
    timm_vit.LAYERS,
    norm("norm", "norm"),
)
TEXT = within("text_encoder.", "model/text/", bert.EMBEDDINGS, bert.LAYERS)
FUSION = within("fusion.layer.{}.", "model/fusion/transformer/layer_{}/", bert.LAYER)
WORDS = "text_encoder.cls.predictions."
OF_BOTH = (
    ("hidden_size", "width", {}),
    ("num_attention_heads", "heads", {}),
    ("intermediate_size", "mlp_dim", {}),
    ("layer_norm_eps", "norm_epsilon", {}),
    ("hidden_act", "activation", ACTIVATIONS),
)


class Albef(ReleasedCode):
    """ALBEF: its pretrained model, and its model of retrieval, which has no head for masked words.

    The config is that of a run, such as configs/Pretrain.yaml, with the contents of its
    `bert_config` in place of the path.
    """

    title = "ALBEF"
    settings = Settings(
        keys=(
            Key("image_res", "model.image.image_size"),
            Key("vision_width", "model.image.width"),
            Key("embed_dim", "model.embedding_dim"),
            *(
                Key(f"bert_config.{there}", f"model.{part}.{here}", values)
                for there, here, values in OF_BOTH
                for part in ("text", "fusion")
            ),
            Key("bert_config.fusion_layer", "model.text.depth"),
            Key("bert_config.max_position_embeddings", "model.text.length"),
            Key("bert_config.type_vocab_size", "model.text.token_types"),
            Key("bert_config.vocab_size", "model.text.vocab_size"),
        ),
        fixed={
            "model.image.pooling": "cls",
            "model.image.norm_epsilon": 1e-6,
            "model.image.projection": "linear_with_bias",
            **bert.TEXT_FIXED,
            "model.text.projection": "linear_with_bias",
            "model.fusion.kind": "cross_attention",
            "model.fusion.norm": "post",
            "model.fusion.final_norm": False,
            "objectives.contrastive.kind": "clip",
            "objectives.contrastive.scale_parameter": "temperature",
            "objectives.contrastive.minimum_scale": 2.0,
            "objectives.contrastive.maximum_scale": 1000.0,
            "objectives.matching.kind": "matching",
            "objectives.matching.negative_scale": None,
            "data.images.resize": "squash",
            "data.images.interpolation": "bicubic",
            "data.images.transparency": "drop",
            "data.text.canonicalize": (
                *("lower_case", "person", "separators", "marks", "whitespace"),
            ),
            **tokenizer_of(
                "bert-base-uncased", {"start": "[CLS]", "end": "[SEP]", "padding": "[PAD]"}
            ),
        },
    )
    rules = (
        *IMAGE,
        *TEXT,
        *FUSION,
        *linear("vision_proj", "model/image_projection"),
        *linear("text_proj", "model/text_projection"),
        same("temp", "objectives_contrastive/temperature"),
        *linear("itm_head", "objectives_matching/head"),
        *within(WORDS, "objectives_words/head/", bert.WORD_HEAD),
    )
    ignored = (
        r"(^|\.)position_ids$|^(visual_encoder|vision_proj|text_encoder|text_proj)_m\.|"
        r"^(image|text|idx)_queue$|^queue_ptr$|\.cls\.predictions\.decoder\."
    )

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix "bert.", and with names of their own for the layers of the fusion,
        from the first that has cross-attention."""
        found = {
            name.replace("text_encoder.bert.", "text_encoder."): file
            for name, file in super().names(shapes).items()
        }
        layers = {name: match for name in found if (match := LAYER.fullmatch(name))}
        crossing = [int(each[1]) for each in layers.values() if each[2].startswith("cross")]
        first = min(crossing, default=len(layers))
        for name, match in layers.items():
            if int(match[1]) >= first:
                found[f"fusion.layer.{int(match[1]) - first}.{match[2]}"] = found.pop(name)
        return found

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with the sizes of the image tower that only the tensors have.

        Raises: as `Family.config`.
        """
        found = super().config(theirs, shapes, place)
        layers = look_up(theirs, "bert_config.num_hidden_layers", place)
        words = {
            "objectives.words.kind": "masked_language",
            "objectives.words.mask_id": 103,
            "objectives.words.tied": True,
            "objectives.words.keep_last": False,
        }
        blocks, proj = "visual_encoder.blocks.", "visual_encoder.patch_embed.proj.weight"
        rows_of(shapes, proj, place)
        return {
            **found,
            **(words if f"{WORDS}bias" in shapes else {}),
            "model.fusion.depth": layers - found["model.text.depth"],
            "model.image.patch_size": shapes[proj][-1],
            "model.image.heads": heads_of(found["model.image.width"]),
            "model.image.depth": depth_of(shapes, blocks),
            "model.image.mlp_dim": rows_of(shapes, f"{blocks}0.mlp.fc1.bias", place),
        }
