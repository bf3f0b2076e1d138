"""The random-projection quantizer: codes against float64 NumPy, and where they come from."""

import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.models.quantizer import patch_codes, random_codebook

IMAGE = np.random.default_rng(0).normal(size=(3, 8, 12, 3)).astype(np.float32)


def test_a_patch_has_the_code_whose_vector_is_nearest_to_its_projection_in_float64_numpy():
    """Chiu et al. 2022, equation 1: argmin over codes of | norm(c) - norm(A x) |."""
    codebook = random_codebook(5, 4 * 4 * 3, 50, 6)
    projection, vectors = (
        np.asarray(x, np.float64) for x in (codebook.projection, codebook.vectors)
    )
    found = np.asarray(patch_codes(jnp.asarray(IMAGE), 4, codebook))
    assert found.shape == (3, 6) and found.dtype == np.int32
    for b in range(3):
        for n in range(6):
            row, column = 4 * (n // 3), 4 * (n % 3)
            x = (
                IMAGE[b, row : row + 4, column : column + 4].astype(np.float64).reshape(-1)
                @ projection
            )
            distances = np.linalg.norm(
                vectors / np.linalg.norm(vectors, axis=1, keepdims=True) - x / np.linalg.norm(x),
                axis=1,
            )
            assert found[b, n] == distances.argmin()


def test_codes_come_from_the_seed_and_do_not_change_with_the_batch_or_with_contrast():
    codes = patch_codes(jnp.asarray(IMAGE), 4, random_codebook(0, 48, 512, 16))
    np.testing.assert_array_equal(
        patch_codes(jnp.asarray(IMAGE[1:2]), 4, random_codebook(0, 48, 512, 16)), codes[1:2]
    )
    np.testing.assert_array_equal(
        patch_codes(3.0 * jnp.asarray(IMAGE), 4, random_codebook(0, 48, 512, 16)), codes
    )
    assert (
        np.asarray(patch_codes(jnp.asarray(IMAGE), 4, random_codebook(1, 48, 512, 16)))
        != np.asarray(codes)
    ).mean() > 0.8


def test_random_pixels_use_all_codes():
    noise = jax.random.normal(jax.random.key(0), (16, 64, 64, 3))
    assert len(np.unique(patch_codes(noise, 4, random_codebook(0, 48, 64, 16)))) == 64
