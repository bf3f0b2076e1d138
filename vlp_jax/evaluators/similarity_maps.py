"""Maps over an image of its similarity with texts."""

import jax
import numpy as np


def similarity_maps(patches: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Cosines of the tokens of an image and of texts.

    Args:
      patches: [h, w, E], unit vectors.
      texts: [T, E], unit vectors.
    Returns: float32 [h, w, T].
    """
    return patches.astype(np.float32) @ texts.T.astype(np.float32)


def enlarged(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Maps [h, w, T] interpolated bilinearly to the pixels of `shape` (H, W): float32 [H, W, T]."""
    return np.asarray(jax.image.resize(maps, (*shape, maps.shape[-1]), "linear"))
