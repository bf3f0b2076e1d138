"""RoBERTa in Hugging Face folders (transformers' RobertaModel and RobertaForMaskedLM; Liu et al.
2019)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import ConfigError
from vlp_jax.weights.families.bert import ENCODER, TEXT, TEXT_ALONE, Bert, text
from vlp_jax.weights.rules import Shape, linear, norm, same, within
from vlp_jax.weights.settings import Given, Settings

DEFAULT_TOKENS = {
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def placed(settings: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings with the length of a text whose positions begin after that of the padding."""
    offset = theirs["pad_token_id"] + 1
    length = theirs["max_position_embeddings"] - offset
    return {**settings, "model.text.length": length, "model.text.position_offset": offset}


def places(text: Any) -> dict[str, int]:
    """Their settings of a text tower's positions.

    Raises:
      ConfigError: the first position is that of the first token.
    """
    if not text.position_offset:
        raise ConfigError("model.text.position_offset: 0 cannot be exported")
    return {
        "pad_token_id": text.position_offset - 1,
        "max_position_embeddings": text.position_offset + text.length,
    }


def check_padding(theirs: Mapping[str, Any], padding: int) -> None:
    """Checks that positions begin where transformers lets them begin.

    Raises:
      ConfigError: they do not.
    """
    if theirs["pad_token_id"] != padding:
        raise ConfigError(
            f"model.text.position_offset: {theirs['pad_token_id'] + 1} cannot be exported with the "
            f"padding token {padding}, after whose id transformers begins to count positions"
        )


class Roberta(Bert):
    """transformers' RobertaModel, with its pooler where the file has one.

    The first positions, up to the id of the padding token, are of no real token.
    """

    title, model_type = "RobertaModel", "roberta"
    prefix = "roberta."
    settings = Settings(keys=text(), given=ENCODER, fixed=TEXT_ALONE)
    ignored = r"position_ids$|^lm_head\."
    default_tokens = DEFAULT_TOKENS

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with the first position after that of the padding."""
        return placed(super().config(theirs, shapes, place), theirs)

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, with the padding token before the first position.

        Raises:
          ConfigError: the first position is that of the first token.
        """
        return {**super().their_config(config), **places(config.model.text)}

    def check_tokenizer(self, theirs: Mapping[str, Any], tokenizer: Any) -> None:
        """Checks that the padding token is the one by which positions are counted.

        Raises: as `check_padding`.
        """
        check_padding(theirs, tokenizer.special_ids[2])


class RobertaForMaskedLM(Roberta):
    """transformers' RobertaForMaskedLM, whose head has the activation gelu."""

    title, has_pooler = "RobertaForMaskedLM", False
    parts = ("",)
    settings = Settings(
        keys=text(),
        given=(*ENCODER, Given("hidden_act", "gelu"), Given("tie_word_embeddings", True)),
        fixed=TEXT_ALONE,
    )
    rules = (
        *TEXT,
        *within(
            "lm_head.",
            "objectives_words/head/",
            linear("dense", "dense"),
            norm("layer_norm", "norm"),
            same("bias", "bias"),
        ),
    )
    ignored = r"position_ids$|^lm_head\.decoder\."

    def written_name(self, name: str) -> str:
        """With the prefix of the encoder."""
        return name if name.startswith("lm_head.") else f"roberta.{name}"
