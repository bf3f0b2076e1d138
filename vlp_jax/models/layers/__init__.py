"""Layers shared by all towers: attention, transformer stack, positions."""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.models.layers.attention import MultiHeadAttention as MultiHeadAttention
    from vlp_jax.models.layers.attention_inputs import AttentionInputs as AttentionInputs
    from vlp_jax.models.layers.transformer import Encoding as Encoding
    from vlp_jax.models.layers.transformer import LayerOptions as LayerOptions
    from vlp_jax.models.layers.transformer import Mlp as Mlp
    from vlp_jax.models.layers.transformer import Precision as Precision
    from vlp_jax.models.layers.transformer import Transformer as Transformer

__all__ = [
    "AttentionInputs",
    "Encoding",
    "LayerOptions",
    "Mlp",
    "MultiHeadAttention",
    "Precision",
    "Transformer",
]
_PLACES = {
    "AttentionInputs": "vlp_jax.models.layers.attention_inputs:AttentionInputs",
    "Encoding": "vlp_jax.models.layers.transformer:Encoding",
    "LayerOptions": "vlp_jax.models.layers.transformer:LayerOptions",
    "Mlp": "vlp_jax.models.layers.transformer:Mlp",
    "MultiHeadAttention": "vlp_jax.models.layers.attention:MultiHeadAttention",
    "Precision": "vlp_jax.models.layers.transformer:Precision",
    "Transformer": "vlp_jax.models.layers.transformer:Transformer",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
