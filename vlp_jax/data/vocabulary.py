"""Trains a byte-level BPE vocabulary (Sennrich et al. 2016) from captions, offline, with the `tokenizers` library."""

from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from vlp_jax.data.samples import SampleError, Source
from vlp_jax.errors import ConfigError

SPECIAL_TOKENS = ("<pad>", "<start>", "<end>")
SMALLEST = len(SPECIAL_TOKENS) + 256  # every byte is a token, so no text is ever unknown


def texts_of(sources: Iterable[Source]) -> Iterator[str]:
    """The captions and keywords of every good sample."""
    for source in sources:
        for index in range(len(source)):
            try:
                sample = source[index]
            except SampleError:
                continue
            yield from sample.captions
            keywords = sample.metadata.get("keywords")
            if isinstance(keywords, list):
                yield from (keyword for keyword in keywords if isinstance(keyword, str))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> str:
    """The tokenizer.json of a lower-casing byte-level BPE: <pad> is 0, <start> 1, <end> 2, then 256 bytes and merges.

    It adds no special token to a text by itself. The same texts always give the same JSON.
    Raises: ConfigError if `vocab_size` is less than 259.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(f"--vocab-size={vocab_size}: at least {SMALLEST} are needed (3 special tokens and 256 bytes)")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFC(),
        normalizers.Lowercase(),
        normalizers.Replace("’", "'"),
        normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
        normalizers.Strip(),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()
