"""Text towers and the language-model head."""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.models.text.recurrent import BagOfWords as BagOfWords
    from vlp_jax.models.text.recurrent import RecurrentText as RecurrentText
    from vlp_jax.models.text.transformer import TextTransformer as TextTransformer

__all__ = ["BagOfWords", "RecurrentText", "TextTransformer"]
_PLACES = {
    "BagOfWords": "vlp_jax.models.text.recurrent:BagOfWords",
    "RecurrentText": "vlp_jax.models.text.recurrent:RecurrentText",
    "TextTransformer": "vlp_jax.models.text.transformer:TextTransformer",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
