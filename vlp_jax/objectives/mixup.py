"""Pictures mixed in pairs (Zhang et al. 2018, "mixup")."""

import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.errors import ConfigError


def mixed(key: jax.Array, x: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Each example and its neighbour, weight x + (1 - weight) neighbour(x), and the weight: a float32 scalar drawn from
    Beta(alpha, alpha) for the whole batch (section 2 and the paper's code). x: [B, ...] floats."""
    weight = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    return weight * x + (1.0 - weight) * neighbour(x), weight


def neighbour(x: jax.Array) -> jax.Array:
    """Examples 0 and 1 in each other's place, 2 and 3, and so on: [B, ...] -> [B, ...]. A batch is shuffled, so that these pairs
    are as random as any, and both of a pair lie on one device. Raises: ConfigError for a batch of an odd number."""
    if len(x) % 2:
        raise ConfigError(f"objectives: mixup mixes the examples of a batch in pairs, and {len(x)} is an odd number; change "
                          "data.batch_size")
    return rearrange(rearrange(x, "(b two) ... -> b two ...", two=2)[:, ::-1], "b two ... -> (b two) ...")
