"""Sizes that the parts of a model need of each other, as plain numbers."""

import dataclasses

import numpy as np

from vlp_jax.errors import ConfigError
from vlp_jax.models.options import LayerOptions, Precision


@dataclasses.dataclass(frozen=True)
class Grid:
    """Layout of an image's tokens: side x side regions, row by row, and other tokens.

    Attributes:
      side: regions along each axis.
      before: number of other tokens (class token, registers) before the regions.
      after: number of other tokens after them.
    """

    side: int
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> int:
        """The number of all tokens, M."""
        return self.before + self.side**2 + self.after

    def neighbours(self, count: int) -> np.ndarray:
        """Adjacency of the tokens, bool [M, M].

        Args:
          count: 4 for regions that share a side, 8 for regions that share a side or a corner.
            Tokens without a position have no neighbours.
        """
        row, column = np.divmod(np.arange(self.side**2), self.side)
        down, across = (np.abs(place[:, None] - place) for place in (row, column))
        near = down + across == 1 if count == 4 else np.maximum(down, across) == 1
        return np.pad(near, (self.before, self.after))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageShapes:
    """Sizes of an image tower.

    Attributes:
      tokens: number of tokens of an image, without token dropping.
      token_width: width of each token.
      pooled_width: width of the pooled vector.
      grid: layout of the tokens.
      class_token: whether the first token is a class token.
      token_drop: fraction of the regions that is dropped in training.
    """

    tokens: int
    token_width: int
    pooled_width: int
    grid: Grid
    class_token: bool = False
    token_drop: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextShapes:
    """Sizes of a text tower.

    Attributes:
      kind: of the tower, for messages.
      tokens: number of tokens of a text that the tower passes on.
      token_width: width of each token.
      pooled_width: width of the pooled vector.
      word_width: width of the token embeddings, before the layers.
      vocab_size: number of token ids.
      length: number of token ids of a text.
      causal: whether each token depends on no later ones, and there is no class token in front.
      layers: options of the tower's transformer layers; None where it has none. A fusion or a
        decoder may consist of these layers.
      layer_tokens: number of tokens of a text in these layers.
      flops: of the tower on one text, without the projection.
    """

    kind: str
    tokens: int
    token_width: int
    pooled_width: int
    word_width: int
    vocab_size: int
    length: int
    causal: bool = False
    layers: LayerOptions | None = None
    layer_tokens: int = 0
    flops: int = 0

    def layers_for(self, what: str, precision: Precision) -> LayerOptions:
        """The options of the tower's transformer layers, for another part of the model.

        Args:
          what: the part that needs them.
          precision: of the layers.
        Raises: ConfigError where the tower has no such layers.
        """
        if self.layers is None:
            raise ConfigError(
                f"model.text.kind: {self.kind!r} has no transformer's layers, which "
                f"{what} needs; use 'transformer', or leave it out"
            )
        return dataclasses.replace(self.layers, precision=precision)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShapes:
    """Sizes of both towers.

    Attributes:
      image: of the image tower.
      text: of the text tower.
      embedding_dim: width of the shared space.
      batch: examples per step.
    """

    image: ImageShapes
    text: TextShapes
    embedding_dim: int
    batch: int = 1
