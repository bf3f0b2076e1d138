"""The input side: sources, decoding, tokenization and the input pipeline.

Independent of the models; imports no JAX.

The names in `__all__` are imported at their first use.
"""

from typing import TYPE_CHECKING

from vlp_jax.lazy import lazy_names

if TYPE_CHECKING:
    from vlp_jax.data.preprocessor import Preprocessor as Preprocessor
    from vlp_jax.data.samples import Sample as Sample
    from vlp_jax.data.samples import SampleError as SampleError
    from vlp_jax.data.samples import Source as Source
    from vlp_jax.data.sources.registry import open_source as open_source
    from vlp_jax.data.text.tokenizer import Tokenizer as Tokenizer
    from vlp_jax.data.text.tokenizer import load_tokenizer as load_tokenizer

__all__ = [
    "Preprocessor",
    "Sample",
    "SampleError",
    "Source",
    "Tokenizer",
    "load_tokenizer",
    "open_source",
]
_PLACES = {
    "Preprocessor": "vlp_jax.data.preprocessor:Preprocessor",
    "Sample": "vlp_jax.data.samples:Sample",
    "SampleError": "vlp_jax.data.samples:SampleError",
    "Source": "vlp_jax.data.samples:Source",
    "Tokenizer": "vlp_jax.data.text.tokenizer:Tokenizer",
    "load_tokenizer": "vlp_jax.data.text.tokenizer:load_tokenizer",
    "open_source": "vlp_jax.data.sources.registry:open_source",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
