"""What a config may say about what writes text: `model.decoder`."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between
from vlp_jax.config.tower_schema import Stack


@dataclasses.dataclass(frozen=True)
class Decoder(Stack):
    """A causal transformer that predicts the words of a text of `model.text.vocab_size` tokens, `model.text.length` of them."""

    # on_text_tower: its layers go on with what `model.text` gives. in_text_tower: its layers are those of `model.text` but for what
    # is its own, with cross-attention; it has no sizes of its own (BLIP)
    kind: Literal["transformer", "on_text_tower", "in_text_tower"] = "transformer"
    preset: str = "B"
    image: Literal["cross_attention", "prefix", "none"] = "cross_attention"  # how the picture's tokens are seen, if at all
    image_queries: int = between(0, 0)  # so many learned queries pool the picture's tokens first; 0: they are taken as they are
    text_prefix: float = between(0.0, 0.0, 1.0)  # most of a text that training shows at once, both ways, before the rest of it
    tied: bool = True  # words are predicted by the embeddings that they are read by
    own: tuple[Literal["attention", "cross", "mlp"], ...] = ("attention",)  # in_text_tower: what of a layer it does not share
    start_token: bool = True  # in_text_tower: a learned token takes the place of each text's first, as BLIP's [Decode]


@dataclasses.dataclass(frozen=True)
class RecurrentDecoder:
    """Fields that the recurrent decoders share. They predict words as `Decoder` does."""

    embedding_width: int = between(512, 1)  # of the words
    width: int = between(512, 1)  # of the state
    depth: int = between(1, 1)  # layers
    image: Literal["state", "attention"] = "state"  # read in front of the words, or its tokens looked at before each
    attention_width: int = between(512, 1)  # of image="attention": of what tells how much a token counts
    dropout: float = between(0.0, 0.0, 1.0)  # of the words, of what enters further layers, of what the logits are made of


@dataclasses.dataclass(frozen=True)
class LstmDecoder(RecurrentDecoder):
    """Long short-term memory (Vinyals et al. 2015, "Show and tell"; Xu et al. 2015, "Show, attend and tell")."""

    kind: Literal["lstm"] = "lstm"


@dataclasses.dataclass(frozen=True)
class GruDecoder(RecurrentDecoder):
    """Gated recurrent units in the same place."""

    kind: Literal["gru"] = "gru"


AnyDecoder = Decoder | LstmDecoder | GruDecoder
