"""Random-access readers of image-text data, one module per format, selected by the registry."""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.data.sources.registry import open_source as open_source

__all__ = ["open_source"]
_PLACES = {"open_source": "vlp_jax.data.sources.registry:open_source"}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
