from vlp_jax.models.options import Precision
from vlp_jax.models.text.tower import TextTowerConfig


def text_width(tower: TextTowerConfig) -> int:
    return tower.token_width


def embedding_width(tower: TextTowerConfig) -> int:
    return tower.word_width


def text_tokens(tower: TextTowerConfig) -> int:
    return tower.tokens


def needs_transformer(tower: TextTowerConfig, what: str) -> None:
    tower.shapes.layers_for(what, Precision())
