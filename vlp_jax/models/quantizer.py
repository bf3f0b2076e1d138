"""Discrete codes of an image's patches by a random, fixed codebook (Chiu et al. 2022, "BEST-RQ",
section 3.1)."""

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange


@flax.struct.dataclass
class Codebook:
    """A random projection and code vectors.

    Attributes:
      projection: float32 [P, W], from P pixel values.
      vectors: float32 [V, W], unit vectors, one per code.
    """

    projection: jax.Array
    vectors: jax.Array


def random_codebook(seed: int, pixels: int, codes: int, width: int) -> Codebook:
    """The codebook of a seed: a Xavier uniform projection, and the directions of standard normal
    vectors."""
    projection, vectors = jax.random.split(jax.random.key(seed))
    vectors = jax.random.normal(vectors, (codes, width))
    return Codebook(
        jax.nn.initializers.xavier_uniform()(projection, (pixels, width)),
        vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True),
    )


def patch_codes(image: jax.Array, patch: int, codebook: Codebook) -> jax.Array:
    """The code of each patch.

    The code is argmin_v |c_v - A x / |A x||, with x a patch's values row by row, A the projection
    and c_v the vectors. This is the largest product with c_v, whatever the norm of A x. A patch of
    zeros has code 0.

    Args:
      image: [B, H, W, 3] pixels, normalised to mean 0 and variance 1, approximately, over the data.
      patch: side of a patch in pixels.
      codebook: the projection and the vectors.
    Returns: int32 [B, N].
    """
    x = rearrange(image.astype(jnp.float32), "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)
    exact = jax.lax.Precision.HIGHEST
    projected = jnp.einsum("bnp,pw->bnw", x, codebook.projection, precision=exact)
    return (
        jnp.einsum("bnw,vw->bnv", projected, codebook.vectors, precision=exact)
        .argmax(axis=-1)
        .astype(jnp.int32)
    )
