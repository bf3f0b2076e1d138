"""Layers shared by all towers: attention, transformer stack, positions."""

from typing import TYPE_CHECKING, Any

from vlp_jax.lazy import lazy_attribute

if TYPE_CHECKING:
    from vlp_jax.models.layers.attention import MultiHeadAttention as MultiHeadAttention
    from vlp_jax.models.layers.transformer import Encoding as Encoding
    from vlp_jax.models.layers.transformer import LayerOptions as LayerOptions
    from vlp_jax.models.layers.transformer import Mlp as Mlp
    from vlp_jax.models.layers.transformer import Precision as Precision
    from vlp_jax.models.layers.transformer import Transformer as Transformer

__all__ = ["Encoding", "LayerOptions", "Mlp", "MultiHeadAttention", "Precision", "Transformer"]
_PLACES = {"Encoding": "vlp_jax.models.layers.transformer:Encoding",
           "LayerOptions": "vlp_jax.models.layers.transformer:LayerOptions",
           "Mlp": "vlp_jax.models.layers.transformer:Mlp",
           "MultiHeadAttention": "vlp_jax.models.layers.attention:MultiHeadAttention",
           "Precision": "vlp_jax.models.layers.transformer:Precision",
           "Transformer": "vlp_jax.models.layers.transformer:Transformer"}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
