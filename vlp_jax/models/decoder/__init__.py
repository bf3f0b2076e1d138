"""Text decoders, and generation with them."""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.models.decoder.generation import BeamSearch as BeamSearch
    from vlp_jax.models.decoder.recurrent import RecurrentDecoder as RecurrentDecoder
    from vlp_jax.models.decoder.transformer import TextDecoder as TextDecoder

__all__ = ["BeamSearch", "RecurrentDecoder", "TextDecoder"]
_PLACES = {
    "BeamSearch": "vlp_jax.models.decoder.generation:BeamSearch",
    "RecurrentDecoder": "vlp_jax.models.decoder.recurrent:RecurrentDecoder",
    "TextDecoder": "vlp_jax.models.decoder.transformer:TextDecoder",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
