"""vlp_jax: pretraining vision-language models in JAX."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # `python -m vlp_jax.NAME`, before NAME is imported, which takes seconds
    from vlp_jax.interrupts import leave_on_ctrl_c

    leave_on_ctrl_c()


def __getattr__(name: str):
    """Imports `vlp_jax.load` at its first use: the worker processes of the input pipeline need no JAX."""
    if name == "load":
        from vlp_jax.loading import load

        return load
    raise AttributeError(f"module 'vlp_jax' has no attribute {name!r}")
