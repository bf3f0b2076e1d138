"""Mixup of images in pairs (Zhang et al. 2018, "mixup")."""

import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.errors import ConfigError


def mixed(key: jax.Array, x: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Mixes each example with its neighbour: weight x + (1 - weight) neighbour(x).

    Args:
      key: random key.
      x: [B, ...] floats.
      alpha: of the Beta(alpha, alpha) distribution of the weight, which is drawn once per batch
        (section 2 and the paper's code).
    Returns: the mixed examples, and the weight, a float32 scalar.
    """
    weight = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    return weight * x + (1.0 - weight) * neighbour(x), weight


def neighbour(x: jax.Array) -> jax.Array:
    """Swaps examples 0 and 1, 2 and 3, and so on: [B, ...] -> [B, ...].

    A batch is shuffled, so these pairs are as random as any others, and both of a pair are on one
    device.

    Raises: ConfigError for a batch of an odd number.
    """
    if len(x) % 2:
        raise ConfigError(
            f"objectives: mixup mixes the examples of a batch in pairs, and {len(x)} "
            "is an odd number; change data.batch_size"
        )
    return rearrange(
        rearrange(x, "(b two) ... -> b two ...", two=2)[:, ::-1], "b two ... -> (b two) ..."
    )
