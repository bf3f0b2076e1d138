"""Builds the convolutional image towers other than ResNets from their config: VGG and Inception-v3."""

from vlp_jax.errors import ConfigError
from vlp_jax.models.options import Precision
from vlp_jax.models.vision import inception, vgg
from vlp_jax.models.vision.inception import InceptionConfig
from vlp_jax.models.vision.resnet import Convolutions
from vlp_jax.models.vision.vgg import VggConfig


def build_vgg(tower: VggConfig, precision: Precision) -> vgg.Vgg:
    """The VGG of a config.

    Raises: ConfigError for an unknown depth, and for an image too small for five halvings.
    """
    parts = Convolutions(tower.norm, tower.groups, tower.rematerialisation == "full", precision=precision)
    depths, hidden_dim = vgg_depths(tower), tower.hidden_dim if tower.pooling == "hidden" else None
    if map_side(tower) < 1:
        raise ConfigError(f"model.image.image_size: {tower.image_size} leaves nothing behind a VGG's {len(depths)} halvings; use "
                          f"{2**len(depths)} or more")
    return vgg.Vgg(depths, parts, tower.width, hidden_dim, tower.dropout)


def vgg_depths(tower: VggConfig) -> tuple[int, ...]:
    """The number of convolutions of each stage.

    Raises: ConfigError for a depth that is not in the paper.
    """
    if tower.depth not in vgg.DEPTHS:
        raise ConfigError(f"model.image.depth: must be one of {', '.join(map(str, vgg.DEPTHS))} for a VGG, got {tower.depth}")
    return vgg.DEPTHS[tower.depth]


def build_inception(tower: InceptionConfig, precision: Precision) -> inception.Inception:
    """The Inception-v3 of a config.

    Raises: ConfigError for an odd width, and for an image too small for its strides.
    """
    parts = Convolutions(tower.norm, tower.groups, tower.rematerialisation == "full", epsilon=inception.EPSILON,
                         precision=precision)
    if tower.width % 2:
        raise ConfigError(f"model.image.width: {tower.width} is odd, and an Inception-v3's widths are multiples of half of it")
    if tower.image_size < inception.SMALLEST:
        raise ConfigError(f"model.image.image_size: {tower.image_size} leaves nothing behind an Inception-v3's strides; use "
                          f"{inception.SMALLEST} or more")
    return inception.Inception(parts, tower.width)


def map_width(tower: VggConfig | InceptionConfig) -> int:
    """The width of the tokens, the channels of the last feature map."""
    if tower.kind == "vgg":
        return tower.width * min(2**(len(vgg_depths(tower)) - 1), vgg.WIDEST)
    return inception.scaled(inception.WIDEST, tower.width)


def map_side(tower: VggConfig | InceptionConfig) -> int:
    """The side of the last feature map; its positions are the tokens."""
    if tower.kind == "vgg":
        return tower.image_size // 2**len(vgg_depths(tower))
    side = tower.image_size
    for branches in inception.BLOCKS:
        for step in branches[0]:
            side = side if isinstance(step, tuple) else inception.smaller(side, step)
    return side


def pooled_width(tower: VggConfig | InceptionConfig) -> int:
    """The width of the pooled vector."""
    return tower.hidden_dim if tower.kind == "vgg" and tower.pooling == "hidden" else map_width(tower)
