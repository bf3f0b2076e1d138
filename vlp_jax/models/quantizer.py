"""A picture's patches as discrete codes, of which nothing is learned (Chiu et al. 2022, "BEST-RQ", section 3.1)."""

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange


@flax.struct.dataclass
class Codebook:
    """projection: float32 [P, W], of P pixel values; vectors: float32 [V, W], of length 1, one a code."""

    projection: jax.Array
    vectors: jax.Array


def random_codebook(seed: int, pixels: int, codes: int, width: int) -> Codebook:
    """The codebook of a seed: a projection that is Xavier uniform, and the directions of standard normal vectors."""
    projection, vectors = jax.random.split(jax.random.key(seed))
    vectors = jax.random.normal(vectors, (codes, width))
    return Codebook(jax.nn.initializers.xavier_uniform()(projection, (pixels, width)),
                    vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True))


def patch_codes(image: jax.Array, patch: int, codebook: Codebook) -> jax.Array:
    """[B, H, W, 3] pixels, normalised to about mean 0 and variance 1 over the data -> int32 [B, N], each patch's code.

    argmin_v |c_v - A x / |A x||, x a patch's values row by row, A the projection and c_v the vectors: the largest product with c_v,
    whatever the length of A x. A patch of zeros has code 0.
    """
    x = rearrange(image.astype(jnp.float32), "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)
    exact = jax.lax.Precision.HIGHEST
    projected = jnp.einsum("bnp,pw->bnw", x, codebook.projection, precision=exact)
    return jnp.einsum("bnw,vw->bnv", projected, codebook.vectors, precision=exact).argmax(axis=-1).astype(jnp.int32)
