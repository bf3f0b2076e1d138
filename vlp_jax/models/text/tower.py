"""The base of all text towers."""

import dataclasses
from typing import ClassVar, Literal

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTowerConfig(Component):
    """Fields shared by all text towers."""

    kinds: ClassVar[Kinds] = Kinds({
        "transformer": "vlp_jax.models.text.transformer:TextTransformerConfig",
        "lstm": "vlp_jax.models.text.recurrent:LstmConfig",
        "bidirectional_lstm": "vlp_jax.models.text.recurrent:BidirectionalLstmConfig",
        "gru": "vlp_jax.models.text.recurrent:GruConfig",
        "bag": "vlp_jax.models.text.recurrent:BagOfWordsConfig",
    }, default="transformer")

    vocab_size: int = between(49408, 1)
    length: int = between(77, 1)
    # File in the text format of GloVe or word2vec that initialises token embeddings; of the same width
    word_vectors: str | None = None
    word_overlap: float = between(0.5, 0.0, 1.0)  # fraction of the vocabulary's words that the file must have
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`
