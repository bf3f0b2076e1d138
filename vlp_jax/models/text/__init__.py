"""Text towers and the language-model head."""

from typing import TYPE_CHECKING, Any

from vlp_jax.lazy import lazy_attribute

if TYPE_CHECKING:
    from vlp_jax.models.text.recurrent import BagOfWords as BagOfWords
    from vlp_jax.models.text.recurrent import RecurrentText as RecurrentText
    from vlp_jax.models.text.transformer import TextTransformer as TextTransformer

__all__ = ["BagOfWords", "RecurrentText", "TextTransformer"]
_PLACES = {"BagOfWords": "vlp_jax.models.text.recurrent:BagOfWords",
           "RecurrentText": "vlp_jax.models.text.recurrent:RecurrentText",
           "TextTransformer": "vlp_jax.models.text.transformer:TextTransformer"}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
