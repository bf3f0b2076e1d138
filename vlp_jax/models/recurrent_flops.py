"""FLOPs of the matrix products of recurrent networks for one caption, forward."""

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.recurrent import STATES
from vlp_jax.models.text.recurrent import RecurrentTextConfig
from vlp_jax.models.towers import image_width

GATES = {"lstm": 4, "gru": 3}


def cell_flops(kind: str, width: int, hidden: int) -> int:
    """One step of a cell: each gate's products with the input and with the state."""
    return 2 * GATES[kind] * hidden * (width + hidden)


def recurrent_flops(tower: RecurrentTextConfig) -> int:
    """A recurrent text encoder: its cells in each direction, and pooling."""
    kind, ways = "gru" if tower.kind == "gru" else "lstm", 1 + (tower.kind == "bidirectional_lstm")
    flops = sum(tower.length * ways * cell_flops(kind, width, tower.width // ways)
                for width in (tower.embedding_width, *(tower.width,) * (tower.depth - 1)))
    pooling = {"end": 0, "mean": 1, "attention": tower.width + 2}[tower.pooling]
    return flops + 2 * tower.length * tower.width * pooling


def recurrent_decoder_flops(config: ModelConfig, length: int, tokens: int, seen: int) -> int:
    """A recurrent decoder and its vocabulary logits.

    The image is an input before the text, or its tokens are attended to before each text token.

    Args:
      config: the model.
      length: number of text tokens.
      tokens: number of the image's tokens.
      seen: width of the image's tokens.
    """
    decoder, hidden, words = config.decoder, config.decoder.width, config.decoder.embedding_width
    further = (decoder.depth - 1) * cell_flops(decoder.kind, hidden, hidden)
    if decoder.image == "state":
        steps = (length + 1) * (cell_flops(decoder.kind, words, hidden) + further)
        return steps + 2 * words * image_width(config.image) + 2 * length * hidden * config.text.vocab_size
    attention = decoder.attention_width
    once = 2 * seen * (STATES[decoder.kind] * hidden + tokens * attention)
    looking = 2 * (hidden * attention + tokens * attention + hidden + tokens * seen)
    step = looking + cell_flops(decoder.kind, words + seen, hidden) + further
    return once + length * (step + 2 * words * (hidden + seen) + 2 * words * config.text.vocab_size)
