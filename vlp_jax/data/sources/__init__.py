"""Random-access readers of image-text data, one module per format, selected by the registry."""

from typing import TYPE_CHECKING, Any

from vlp_jax.lazy import lazy_attribute

if TYPE_CHECKING:
    from vlp_jax.data.sources.registry import open_source as open_source

__all__ = ["open_source"]
_PLACES = {"open_source": "vlp_jax.data.sources.registry:open_source"}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
