"""Properties of text towers of any kind: widths, token counts, and what needs a transformer."""

from vlp_jax.errors import ConfigError
from vlp_jax.models.options import Precision
from vlp_jax.models.presets import size_of
from vlp_jax.models.text.recurrent import BagOfWords, BagOfWordsConfig, RecurrentText, RecurrentTextConfig, WordTowerConfig
from vlp_jax.models.text.tower import TextTowerConfig


def text_width(tower: TextTowerConfig) -> int:
    """The width of a text encoder's tokens and of its pooled vector."""
    return tower.width if isinstance(tower, WordTowerConfig) else size_of(tower, "model.text").width


def embedding_width(tower: TextTowerConfig) -> int:
    """The width of a text encoder's token embeddings, before its layers."""
    return tower.embedding_width if isinstance(tower, RecurrentTextConfig) else text_width(tower)


def text_tokens(tower: TextTowerConfig) -> int:
    """The number of tokens that a text encoder passes to other parts of the model."""
    return tower.length + (tower.kind == "transformer" and tower.pooling == "cls")


def needs_transformer(tower: TextTowerConfig, what: str) -> None:
    """Checks that the text tower is a transformer, as `what` needs.

    Raises: ConfigError where it is not.
    """
    if tower.kind != "transformer":
        raise ConfigError(f"model.text.kind: {tower.kind!r} has no transformer's layers, which {what} needs; use 'transformer', or "
                          "leave it out")


def build_word_tower(tower: WordTowerConfig, precision: Precision) -> RecurrentText | BagOfWords:
    """A text encoder other than a transformer.

    Raises: ConfigError for an odd width of a bidirectional tower.
    """
    if isinstance(tower, BagOfWordsConfig):
        return BagOfWords(tower.vocab_size, tower.width, tower.dropout, precision)
    bidirectional = tower.kind == "bidirectional_lstm"
    if bidirectional and tower.width % 2:
        raise ConfigError(f"model.text.width: {tower.width} is odd, and each direction of {tower.kind!r} has half of it")
    return RecurrentText(cell="gru" if tower.kind == "gru" else "lstm", vocab_size=tower.vocab_size,
                         embedding_width=tower.embedding_width, width=tower.width, depth=tower.depth, bidirectional=bidirectional,
                         pooling=tower.pooling, dropout=tower.dropout, precision=precision)
