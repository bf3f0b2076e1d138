"""Image transforms of the user's own: the entries of `data.augmentation.transforms`."""

import dataclasses
from typing import ClassVar

import numpy as np

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTransformConfig(Component):
    """A random change to the pixels of a training image.

    There are no kinds in this package; a config names a class of your own as "module:Class". The
    class is a dataclass that derives from this one, its fields are the keys, and `apply` does the
    work. Worker processes import its module, which should not import JAX.
    """

    kinds: ClassVar[Kinds] = Kinds({})

    def apply(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The changed pixels.

        Args:
          pixels: [S, S, 3], uint8; they may be changed in place.
          rng: source of all draws, seeded by the config's seed, the epoch and the position.
        Returns: [S, S, 3], uint8.
        """
        raise NotImplementedError


def transformed(
    pixels: np.ndarray, transforms: dict[str, ImageTransformConfig], rng: np.random.Generator
) -> np.ndarray:
    """Pixels after all transforms, in order.

    Args:
      pixels: [S, S, 3], uint8.
      transforms: by the name of their entry.
      rng: source of all draws.
    Returns: [S, S, 3], uint8.
    Raises:
      DataError: a transform returned pixels of another shape or type.
    """
    for name, transform in transforms.items():
        shape, pixels = pixels.shape, transform.apply(pixels, rng)
        if not isinstance(pixels, np.ndarray) or pixels.shape != shape or pixels.dtype != np.uint8:
            found = (
                f"{pixels.dtype} {pixels.shape}"
                if isinstance(pixels, np.ndarray)
                else type(pixels).__name__
            )
            raise DataError(
                f"data.augmentation.transforms.{name}: returned {found}, expected uint8 {shape}"
            )
    return pixels
