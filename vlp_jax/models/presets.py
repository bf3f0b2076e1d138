"""Published sizes of transformers: width, depth, heads, MLP width.

Ti to B and L: Dosovitskiy et al. 2021 (table 1) and Touvron et al. 2021; So400m: Alabdulmohsin et
al. 2023; H, g, G: Zhai et al. 2022 (table 2) with OpenCLIP's 4.3637 MLP ratio for g; clip-*: the
text towers of Radford et al. 2021 (table 20) and, for clip-g, of OpenCLIP's ViT-g-14.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

from vlp_jax.errors import ConfigError
from vlp_jax.sharding.divisors import nearest_words

if TYPE_CHECKING:
    from vlp_jax.models.config import ModelConfig
    from vlp_jax.models.stack import StackConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """Width D, number of layers, attention heads and the MLP's hidden width."""

    width: int
    depth: int
    heads: int
    mlp_dim: int


SIZES = {
    "Ti": Size(192, 12, 3, 768),
    "S": Size(384, 12, 6, 1536),
    "M": Size(512, 12, 8, 2048),
    "B": Size(768, 12, 12, 3072),
    "L": Size(1024, 24, 16, 4096),
    "So400m": Size(1152, 27, 16, 4304),
    "H": Size(1280, 32, 16, 5120),
    "g": Size(1408, 40, 16, 6144),
    "G": Size(1664, 48, 16, 8192),
    "clip-B": Size(512, 12, 8, 2048),
    "clip-L": Size(768, 12, 12, 3072),
    "clip-g": Size(1024, 24, 16, 4096),
}


def size_of(tower: "StackConfig", section: str) -> Size:
    """The size of a tower: its preset, overridden by the sizes set in its config.

    A width other than the preset's keeps the preset's width of a head and its ratio of mlp_dim,
    unless these are set.

    Args:
      tower: the preset and the sizes.
      section: the config section, for messages.
    Raises: ConfigError naming `section` for an unknown preset or a width that does not divide into
      its heads.
    """
    preset, stated = preset_of(tower, section), stated_sizes(tower)
    size = dataclasses.replace(preset, **scaled(preset, stated, section), **stated)
    if size.width % size.heads:
        raise ConfigError(
            f"{section}: width {size.width} does not divide into {size.heads} heads; "
            f"nearest widths are {nearest_words(size.width, size.heads)}"
        )
    return size


def preset_of(tower: "StackConfig", section: str) -> Size:
    """The size named by a tower's preset.

    Raises: ConfigError for an unknown preset.
    """
    name = tower.preset.partition("/")[0]
    if name not in SIZES:
        raise ConfigError(
            f"{section}.preset: unknown size {name!r}, expected one of {', '.join(SIZES)}"
        )
    return SIZES[name]


def stated_sizes(tower: "StackConfig") -> dict[str, int]:
    """The sizes set in a tower's config."""
    return {
        key: value
        for key in ("width", "depth", "heads", "mlp_dim")
        if (value := getattr(tower, key)) is not None
    }


def scaled(preset: Size, stated: dict[str, int], section: str) -> dict[str, int]:
    """heads and mlp_dim, as far as they are not set, in proportion to a width that is.

    Raises: ConfigError where the width does not allow it.
    """
    width, free = (
        stated.get("width", preset.width),
        [key for key in ("heads", "mlp_dim") if key not in stated],
    )
    units = {
        "heads": preset.width // preset.heads,
        "mlp_dim": preset.width // math.gcd(preset.width, preset.mlp_dim),
    }
    unit = math.lcm(*(units[key] for key in free))
    if width % unit:
        why = {
            "heads": f"heads of width {units['heads']}",
            "mlp_dim": f"an mlp_dim of {preset.mlp_dim}/{preset.width} times the width",
        }
        unmet = " and ".join(why[key] for key in free if width % units[key])
        raise ConfigError(
            f"{section}.width: {width} does not go with {unmet}, as the preset "
            f"{preset_name(preset)!r} has; nearest are {nearest_words(width, unit)}, "
            f"or set {' and '.join(f'{section}.{key}' for key in free)}"
        )
    return {key: width * getattr(preset, key) // preset.width for key in free}


def preset_name(preset: Size) -> str:
    """The name by which a config selects a size."""
    return next(name for name, size in SIZES.items() if size is preset)


def derived_sizes(model: "ModelConfig") -> list[str]:
    """A line for each tower whose width differs from its preset's and determines its heads or
    mlp_dim.

    Args:
      model: the config section.
    Raises: ConfigError as in `size_of`.
    """
    lines = []
    for name in ("image", "text", "fusion", "decoder"):
        tower, section = getattr(model, name), f"model.{name}"
        if not hasattr(tower, "preset") or tower.width is None:
            continue
        preset, stated = preset_of(tower, section), stated_sizes(tower)
        free = scaled(preset, stated, section)
        if free and tower.width != preset.width:
            lines.append(
                f"{section}: width={tower.width} has "
                f"{', '.join(f'{key}={value}' for key, value in free.items())}, in "
                f"proportion as the preset {preset_name(preset)!r}; set them for others"
            )
    return lines
