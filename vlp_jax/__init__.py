"""vlp_jax: pretraining vision-language models in JAX."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """`vlp_jax.load`, imported when first used: the input pipeline's worker processes need none of JAX."""
    if name == "load":
        from vlp_jax.loading import load

        return load
    raise AttributeError(f"module 'vlp_jax' has no attribute {name!r}")
