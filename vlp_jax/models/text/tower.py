"""The base of all text towers."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import flax.linen as nn

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Sizes
from vlp_jax.models.layers.flops import projection_flops
from vlp_jax.models.options import LayerOptions, Precision
from vlp_jax.models.part import Tower
from vlp_jax.models.shapes import TextShapes

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTowerConfig(Tower):
    """Fields shared by all text towers, and what other parts of a model ask of them.

    Attributes:
      rematerialisation: the policy of rematerialisation.
      policies: the possible policies.
    """

    section: ClassVar[str] = "model.text"
    if TYPE_CHECKING:
        rematerialisation: str = "none"
    else:  # without an annotation, as a tower may have a key of this name
        rematerialisation = "none"
    policies: ClassVar[tuple[str, ...]] = ("none",)

    kinds: ClassVar[Kinds] = Kinds(
        {
            "transformer": "vlp_jax.models.text.transformer:TextTransformerConfig",
            "lstm": "vlp_jax.models.text.recurrent:LstmConfig",
            "bidirectional_lstm": "vlp_jax.models.text.recurrent:BidirectionalLstmConfig",
            "gru": "vlp_jax.models.text.recurrent:GruConfig",
            "bag": "vlp_jax.models.text.recurrent:BagOfWordsConfig",
        },
        default="transformer",
    )

    vocab_size: int = between(49408, 1)
    length: int = between(77, 1)
    # File in the text format of GloVe or word2vec that initialises token embeddings; of the same
    # width
    word_vectors: str | None = None
    # fraction of the vocabulary's words that the file must have
    word_overlap: float = between(0.5, 0.0, 1.0)
    # from pooled width to `model.embedding_dim`
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"

    def build(self, precision: Precision) -> nn.Module:
        """The encoder, called with (text, mask, train, tokens).

        Raises: ConfigError as `check`.
        """
        raise NotImplementedError

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`word_overlap`, where there are no word vectors."""
        unused = (
            {}
            if self.word_vectors is not None
            else {"word_overlap": f"without {self.section}.word_vectors"}
        )
        return {**super().ignored(experiment), **unused}

    @property
    def tokens(self) -> int:
        """The number of tokens of a text that the encoder passes to other parts of the model."""
        return self.length

    @property
    def layer_tokens(self) -> int:
        """The number of tokens of a text in the encoder's layers."""
        return self.tokens

    @property
    def token_width(self) -> int:
        """The width of the tokens."""
        raise NotImplementedError

    @property
    def pooled_width(self) -> int:
        """The width of the pooled vector."""
        return self.token_width

    @property
    def word_width(self) -> int:
        """The width of the token embeddings, before the layers."""
        return self.token_width

    @property
    def is_causal(self) -> bool:
        """Whether each token depends on no later ones, and there is no class token in front."""
        return False

    def transformer_layers(self, precision: Precision) -> LayerOptions | None:
        """The options of the tower's transformer layers; None where it has none."""
        return None

    @property
    def shapes(self) -> TextShapes:
        """What other parts of the model need of the tower.

        Raises: ConfigError for sizes that are not possible.
        """
        return TextShapes(
            kind=self.kind,
            tokens=self.tokens,
            token_width=self.token_width,
            pooled_width=self.pooled_width,
            word_width=self.word_width,
            vocab_size=self.vocab_size,
            length=self.length,
            causal=self.is_causal,
            layers=self.transformer_layers(Precision()),
            layer_tokens=self.layer_tokens,
            flops=self.encoder_flops(tokens=True),
        )

    def smoke(self, sizes: Sizes) -> Self:
        """Short texts of the embedded vocabulary."""
        return dataclasses.replace(
            super().smoke(sizes),
            length=min(self.length, sizes.length),
            vocab_size=sizes.vocab_size,
            word_vectors=None,
            word_overlap=0.5,
        )

    def flops(self, embedding_dim: int, tokens: bool = True, embedded: bool = True) -> int:
        """The tower and its projection on one text, forward.

        Args:
          embedding_dim: width of the shared space.
          tokens: whether the tokens are needed in addition to the pooled vector.
          embedded: whether the projection is needed.
        """
        projected = (
            projection_flops(self.projection, self.pooled_width, embedding_dim=embedding_dim)
            if embedded
            else 0
        )
        return self.encoder_flops(tokens) + projected

    def encoder_flops(self, tokens: bool) -> int:
        """`flops` without the projection."""
        raise NotImplementedError
