"""Fixed positions of image patches: added to tokens (sine and cosine), or turning queries and keys (rotary)."""

import numpy as np


def sincos2d(side: int, width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed position embedding of a side x side grid (MoCo v3, Chen et al. 2021, and MAE): [side^2, width], rows from the top.

    A quarter of the width each for sin and cos of x and of y, with frequencies from 1 towards 1 / temperature, which as there is
    not reached; the width divides by 4.
    """
    frequencies = temperature ** -(np.arange(width // 4) / (width // 4))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


def rotary2d(side: int, head_dim: int, temperature: float = 100.0) -> np.ndarray:
    """Angles of a side x side grid for rotary positions along both axes (Heo et al. 2024, "Rotary position embedding for vision
    transformer", section 3.1): [side^2, head_dim / 2], rows from the top. Half of the angles are multiples of x, half of y;
    head_dim divides by 4."""
    frequencies = temperature ** -(np.arange(head_dim // 4) / (head_dim // 4))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([x, y], axis=1).astype(np.float32)
