"""From captions to token ids: cleaning, tokenizers, word boundaries, packing."""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.data.text.tokenizer import Tokenizer as Tokenizer
    from vlp_jax.data.text.tokenizer import load_tokenizer as load_tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]
_PLACES = {
    "Tokenizer": "vlp_jax.data.text.tokenizer:Tokenizer",
    "load_tokenizer": "vlp_jax.data.text.tokenizer:load_tokenizer",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
