from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.text.transformer import TextMode


def build_image_tower(tower, precision):
    return tower.build(precision)


def image_token_width(tower):
    return tower.token_width


def image_width(tower):
    return tower.pooled_width


def build_text_tower(tower, precision):
    return tower.build(precision)


def grounded_mode(fusion: InTextTowerConfig) -> TextMode:
    """The text tower's mode as image-grounded encoder."""
    return TextMode("encode_token" if fusion.start_token else None, cross_attention=True)
