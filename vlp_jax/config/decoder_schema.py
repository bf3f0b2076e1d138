"""Schema of text decoders: `model.decoder`."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between
from vlp_jax.config.tower_schema import Stack


@dataclasses.dataclass(frozen=True)
class Decoder(Stack):
    """A causal transformer that predicts a text's tokens.

    A text has `model.text.length` tokens out of `model.text.vocab_size`.
    """

    # on_text_tower: its layers follow those of `model.text`. in_text_tower: its layers are those of `model.text`, with
    # cross-attention, and share all parameters except `own`; it has no sizes of its own (BLIP).
    kind: Literal["transformer", "on_text_tower", "in_text_tower"] = "transformer"
    preset: str = "B"
    image: Literal["cross_attention", "prefix", "none"] = "cross_attention"  # how the image's tokens are used, if at all
    image_queries: int = between(0, 0)  # number of learned queries that pool the image's tokens first; 0: no pooling
    text_prefix: float = between(0.0, 0.0, 1.0)  # largest part of a text that is a bidirectional prefix in training
    tied: bool = True  # the output embeddings are the input embeddings
    own: tuple[Literal["attention", "cross", "mlp"], ...] = ("attention",)  # in_text_tower: parts of a layer that are not shared
    start_token: bool = True  # in_text_tower: a learned token replaces each text's first, as BLIP's [Decode]


@dataclasses.dataclass(frozen=True)
class RecurrentDecoder:
    """Fields shared by the recurrent decoders. They predict tokens as `Decoder` does."""

    embedding_width: int = between(512, 1)  # of the tokens
    width: int = between(512, 1)  # of the state
    depth: int = between(1, 1)  # layers
    image: Literal["state", "attention"] = "state"  # state: an input before the text; attention: attended to before each token
    attention_width: int = between(512, 1)  # of image="attention": hidden width of the attention logits
    dropout: float = between(0.0, 0.0, 1.0)  # of the embeddings, and of the inputs of further layers and of the logits


@dataclasses.dataclass(frozen=True)
class LstmDecoder(RecurrentDecoder):
    """Long short-term memory (Vinyals et al. 2015, "Show and tell"; Xu et al. 2015, "Show, attend and tell")."""

    kind: Literal["lstm"] = "lstm"


@dataclasses.dataclass(frozen=True)
class GruDecoder(RecurrentDecoder):
    """Gated recurrent units in place of long short-term memory."""

    kind: Literal["gru"] = "gru"


AnyDecoder = Decoder | LstmDecoder | GruDecoder
