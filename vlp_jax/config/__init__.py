"""Experiment configs: parsing with error messages, loading of config files, and recipes.

The sections of a config are declared next to what they configure; `vlp_jax.experiment.Experiment`
is the whole. The names in `__all__` are imported at their first use.
"""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.config.load import AnyConfig as AnyConfig
    from vlp_jax.config.load import load_config as load_config
    from vlp_jax.config.load import load_stages as load_stages
    from vlp_jax.config.load import read_config as read_config
    from vlp_jax.config.parse import to_config as to_config
    from vlp_jax.config.recipes import base as base
    from vlp_jax.config.recipes import clip as clip
    from vlp_jax.config.recipes import siglip as siglip
    from vlp_jax.config.recipes import variant_of as variant_of
    from vlp_jax.config.tree import flatten as flatten
    from vlp_jax.config.tree import to_tree as to_tree

__all__ = [
    "AnyConfig",
    "base",
    "clip",
    "flatten",
    "load_config",
    "load_stages",
    "read_config",
    "siglip",
    "to_config",
    "to_tree",
    "variant_of",
]
_PLACES = {
    name: f"vlp_jax.config.{module}:{name}"
    for module, names in {
        "load": ("AnyConfig", "load_config", "load_stages", "read_config"),
        "parse": ("to_config",),
        "tree": ("flatten", "to_tree"),
        "recipes": ("base", "clip", "siglip", "variant_of"),
    }.items()
    for name in names
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
