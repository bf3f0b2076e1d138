"""BERT in Hugging Face folders (transformers' BertModel and BertForMaskedLM; Devlin et al.
2019)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import ConfigError
from vlp_jax.weights.family import Family, token
from vlp_jax.weights.rules import (
    Rules,
    Shape,
    attention,
    leading,
    linear,
    norm,
    same,
    together,
    within,
)
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings


def attention_layer(theirs: str, ours: str) -> Rules:
    """Attention and the norm behind it."""
    return (
        *attention(
            query=f"{theirs}.self.query",
            key=f"{theirs}.self.key",
            value=f"{theirs}.self.value",
            out=f"{theirs}.output.dense",
            ours=ours,
        ),
        *norm(f"{theirs}.output.LayerNorm", f"{ours}_norm"),
    )


EMBEDDINGS = within(
    "embeddings.",
    "",
    same("word_embeddings.weight", "tokens/embedding"),
    leading("position_embeddings.weight", "position"),
    same("token_type_embeddings.weight", "token_type"),
    norm("LayerNorm", "embedding_norm"),
)
LAYER = together(
    attention_layer("attention", "attention"),
    attention_layer("crossattention", "cross"),
    linear("intermediate.dense", "mlp/in"),
    linear("output.dense", "mlp/out"),
    norm("output.LayerNorm", "mlp_norm"),
)
LAYERS = within("encoder.layer.{}.", "transformer/layer_{}/", LAYER)
TEXT = within("", "model/text/", EMBEDDINGS, LAYERS, linear("pooler.dense", "pooler"))
WORD_HEAD = (
    *linear("transform.dense", "dense"),
    *norm("transform.LayerNorm", "norm"),
    same("bias", "bias"),
)
TEXT_FIXED = {
    "model.text.causal": False,
    "model.text.pooling": "first",
    "model.text.norm": "post",
    "model.text.final_norm": False,
    "model.text.embedding_norm": True,
}
# No objective of a text alone reads the image tower, which has then no parameters.
TEXT_ALONE = {
    **TEXT_FIXED,
    "model.text.projection": "none",
    "model.image.preset": "Ti",
    "model.image.depth": 0,
    "model.image.patch_size": 8,
    "model.image.image_size": 32,
    "objectives.words.kind": "masked_language",
    "objectives.words.with_image": False,
    "objectives.words.tied": True,
}
FREE_OF_IMAGES = ("model.image.*", "model.embedding_dim", "model.text.projection")


def text(theirs: str = "") -> tuple[Key, ...]:
    """The settings of a text tower like BERT's, without its length."""
    return (
        Key(f"{theirs}hidden_size", "model.text.width"),
        Key(f"{theirs}num_hidden_layers", "model.text.depth"),
        Key(f"{theirs}num_attention_heads", "model.text.heads"),
        Key(f"{theirs}intermediate_size", "model.text.mlp_dim"),
        Key(f"{theirs}layer_norm_eps", "model.text.norm_epsilon"),
        Key(f"{theirs}hidden_act", "model.text.activation", ACTIVATIONS),
        Key(f"{theirs}vocab_size", "model.text.vocab_size"),
        Key(f"{theirs}type_vocab_size", "model.text.token_types"),
    )


def check_types(config: Any) -> None:
    """Checks that there are the segment embeddings that transformers' classes add.

    Raises:
      ConfigError: there are none.
    """
    if not config.model.text.token_types:
        raise ConfigError("model.text.token_types: 0 cannot be exported; the class has one or more")


def mask_settings(family: Family, tokens: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The id of a tokenizer's mask token as a setting of the objectives of these names; {} where it
    is not known.

    Args:
      family: whose default tokens it may be one of.
      tokens: as of `Family.text_settings`.
      *names: of objectives.
    """
    mask = token({**family.default_tokens, **tokens}.get("mask_token"))
    known = tokens.get("added_tokens_decoder", {})
    ids = [int(number) for number, each in known.items() if token(each) == mask]
    return {f"objectives.{name}.mask_id": ids[0] for name in names if ids}


LENGTH = Key("max_position_embeddings", "model.text.length")
ENCODER = (Given("is_decoder", False), Given("add_cross_attention", False))


class Bert(Family):
    """transformers' BertModel, with its pooler where the file has one.

    The image tower has no parameters, and the head of the masked tokens fresh ones.
    """

    title, model_type = "BertModel", "bert"
    prefix, has_pooler = "bert.", True
    parts = ("model/",)
    free = FREE_OF_IMAGES
    settings = Settings(keys=(*text(), LENGTH), given=ENCODER, fixed=TEXT_ALONE)
    rules = TEXT
    # a head of a class that this one is not, or a copy of the token embeddings
    ignored = r"position_ids$|^cls\."
    text_tokens = ("cls_token", "sep_token")
    default_tokens = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
    }

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of the encoder, and with the present names of a norm."""
        return {plain(name, self.prefix): file for name, file in super().names(shapes).items()}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; a pooler is there if it has tensors, or by the class."""
        found = super().config(theirs, shapes, place)
        has_pooler = "pooler.dense.weight" in shapes if shapes else self.has_pooler
        return {**found, "model.text.pooler": has_pooler}

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config.

        Raises: as `Family.their_config`, and `check_types`.
        """
        found = super().their_config(config)
        check_types(config)
        return found

    def text_settings(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """Also the id of the mask token."""
        masks = mask_settings(self, tokens, "words")
        return super().text_settings(tokens) | masks


class BertForMaskedLM(Bert):
    """transformers' BertForMaskedLM, also with the head on pairs of sentences of its pretraining,
    which is not read.

    A pooler is read where the file has one, and not written, as the class has none.
    """

    title, has_pooler = "BertForMaskedLM", False
    parts = ("",)
    settings = Settings(
        keys=(*text(), LENGTH),
        given=(*ENCODER, Given("tie_word_embeddings", True)),
        fixed=TEXT_ALONE,
    )
    rules = (*TEXT, *within("cls.predictions.", "objectives_words/head/", WORD_HEAD))
    ignored = r"position_ids$|^cls\.predictions\.decoder\.|^cls\.seq_relationship\."

    def written_name(self, name: str) -> str:
        """With the prefix of the encoder."""
        return name if name.startswith("cls.") else f"bert.{name}"


def plain(name: str, prefix: str) -> str:
    """A name without a prefix, and with those of a norm's parameters in old files replaced."""
    name = name.removeprefix(prefix)
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name
