"""Published sizes of transformers: width, depth, heads, MLP width.

Ti to B and L: Dosovitskiy et al. 2021 (table 1) and Touvron et al. 2021; So400m: Alabdulmohsin et al. 2023;
H, g, G: Zhai et al. 2022 (table 2) with OpenCLIP's 4.3637 MLP ratio for g; clip-*: the text towers of Radford et al. 2021
(table 20) and, for clip-g, of OpenCLIP's ViT-g-14.
"""

import dataclasses
import re

from vlp_jax.errors import ConfigError


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


def size_of(tower, section: str) -> Size:
    """The size a tower's config asks for: its preset, with whatever it states itself on top.

    tower: has `preset` ("B" or "B/16"), `width`, `depth`, `heads`, `mlp_dim` (None: the preset's).
    Raises: ConfigError naming `section` for an unknown preset or a width that the heads do not divide.
    """
    name = tower.preset.partition("/")[0]
    if name not in SIZES:
        raise ConfigError(f"{section}.preset: unknown size {name!r}, expected one of {', '.join(SIZES)}")
    stated = {key: getattr(tower, key) for key in ("width", "depth", "heads", "mlp_dim")}
    size = dataclasses.replace(SIZES[name], **{key: value for key, value in stated.items() if value is not None})
    if size.width % size.heads:
        raise ConfigError(f"{section}: width {size.width} does not divide into {size.heads} heads")
    return size


def patch_size_of(tower) -> int:
    """The patch size that an image tower's config states, or that its preset names ("B/16")."""
    if tower.patch_size is not None:
        return tower.patch_size
    match = re.fullmatch(r"[^/]+/(\d+)", tower.preset)
    if not match:
        raise ConfigError(f"model.image.patch_size: is not set, and the preset {tower.preset!r} names none (as in 'B/16')")
    return int(match.group(1))
