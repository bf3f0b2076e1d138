"""Training of a vocabulary from captions, offline: byte-level BPE, WordPiece, or a SentencePiece
model.

The same texts always result in a bit-identical file.
"""

import collections
import dataclasses
import io
import itertools
from collections.abc import Iterable, Iterator

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from vlp_jax.data.samples import SampleError, Source
from vlp_jax.data.text.tokenizer_models import WORD_PIECE_SPECIAL, word_piece
from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a kind of vocabulary always contains.

    Attributes:
      special: its special tokens, with ids from 0 on.
      start, end, padding: the start, end and padding token among them.
      smallest: its minimal size.
      holds: contents of a vocabulary of the minimal size, in words.
    """

    special: tuple[str, ...]
    start: str
    end: str
    padding: str
    smallest: int
    holds: str


KINDS = {
    "bpe": Kind(
        ("<pad>", "<start>", "<end>"),
        "<start>",
        "<end>",
        "<pad>",
        259,
        "3 special tokens and 256 bytes",
    ),
    "wordpiece": Kind(
        WORD_PIECE_SPECIAL, "[CLS]", "[SEP]", "[PAD]", 6, "5 special tokens and a piece"
    ),
    "sentencepiece": Kind(
        ("<pad>", "<s>", "</s>", "<unk>"),
        "<s>",
        "</s>",
        "<pad>",
        261,
        "4 special tokens, 256 bytes and a piece",
    ),
}
# share of the text in the characters of WordPiece and SentencePiece; the rest is [UNK] or bytes
COVERAGE = 0.9995
# of SentencePiece, on any machine: its sums, and so the model, depend on their number
_THREADS = 16


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
                yield from (
                    keyword
                    for keyword in keywords
                    if isinstance(keyword, str) and _is_unicode(keyword)
                )


def _is_unicode(text: str) -> bool:
    # half of a surrogate pair, as in cut text
    return not any("\ud800" <= character <= "\udfff" for character in text)


def check_vocab_size(kind: str, vocab_size: int) -> None:
    """Checks the size of a vocabulary.

    Raises:
      ConfigError: if it is too small for this kind.
    """
    if vocab_size < KINDS[kind].smallest:
        raise ConfigError(
            f"--vocab-size={vocab_size}: at least {KINDS[kind].smallest} are needed "
            f"({KINDS[kind].holds})"
        )


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, kind: str = "bpe", lower_case: bool = True
) -> bytes:
    """The file of a tokenizer: a tokenizer.json, or the .model of the kind "sentencepiece".

    The special tokens have the first ids, in the order of `KINDS[kind].special`. The tokenizer
    itself adds none to a text.

    Args:
      texts: the texts to train on.
      vocab_size: number of tokens.
      kind: one of the following.
        bpe: byte level (Sennrich et al. 2016); no text is unknown to it.
        wordpiece: BERT's.
        sentencepiece: a unigram model (Kudo 2018) with byte fallback, after NFKC.
      lower_case: lower case for bpe; for wordpiece it also strips accents; case folding for
        sentencepiece.

    Raises:
      ConfigError: if `vocab_size` is too small, or for SentencePiece larger than the texts can
        fill.
    """
    check_vocab_size(kind, vocab_size)
    if kind == "sentencepiece":
        return _train_sentencepiece(texts, vocab_size, lower_case)
    tokenizer = (
        _train_bpe(texts, vocab_size, lower_case)
        if kind == "bpe"
        else _train_word_piece(texts, vocab_size, lower_case)
    )
    return (tokenizer.to_str() + "\n").encode()


def _train_bpe(texts: Iterable[str], vocab_size: int, lower_case: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            *([normalizers.Lowercase()] if lower_case else []),
            normalizers.Replace("’", "'"),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(KINDS["bpe"].special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_word_piece(
    texts: Iterable[str], vocab_size: int, lower_case: bool
) -> tokenizers.Tokenizer:
    """A WordPiece tokenizer with reproducible ids.

    The library numbers the pieces inside of words in the order of their first use, which differs
    between runs. They are therefore passed in order, as special tokens, and a tokenizer is created
    from the resulting vocabulary.
    """
    blank, special = word_piece(None, lower_case), KINDS["wordpiece"].special
    words = collections.Counter(
        word
        for text in texts
        for word, _ in blank.pre_tokenizer.pre_tokenize_str(blank.normalizer.normalize_str(text))
    )
    alphabet = _common_characters(words)
    # other words become [UNK]
    known = [word for word in sorted(words) if set(word) <= set(alphabet)]
    inside = sorted({f"##{letter}" for word in known for letter in word[1:]})
    smallest = len(special) + len(inside) + len(alphabet)
    if vocab_size < smallest:
        raise ConfigError(
            f"--vocab-size={vocab_size}: at least {smallest} are needed "
            f"({len(special)} special tokens, {len(alphabet)} characters, "
            f"{len(inside)} characters inside of a word)"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*special, *inside],
        initial_alphabet=alphabet,
    )
    blank.train_from_iterator((" ".join([word] * words[word]) for word in known), trainer)
    return word_piece(blank.get_vocab(with_added_tokens=False), lower_case)


def _common_characters(words: collections.Counter) -> list[str]:
    """The most frequent characters that make up COVERAGE of all text, sorted."""
    counts = collections.Counter()
    for word, times in words.items():
        for letter in word:
            counts[letter] += times
    ranked = sorted(counts, key=lambda letter: (-counts[letter], letter))
    before = itertools.accumulate((counts[letter] for letter in ranked), initial=0)
    enough = COVERAGE * counts.total()
    return sorted(
        letter for letter, reached in zip(ranked, before, strict=False) if reached < enough
    )


def _train_sentencepiece(texts: Iterable[str], vocab_size: int, lower_case: bool) -> bytes:
    model = io.BytesIO()
    padding, start, end, unknown = KINDS["sentencepiece"].special
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(" ".join(text.split()) for text in texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc_cf" if lower_case else "nmt_nfkc",
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece=padding,
            bos_piece=start,
            eos_piece=end,
            unk_piece=unknown,
            character_coverage=COVERAGE,
            max_sentence_length=1_000_000,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = (
            " ".join(str(error).split("] ")[-1].split()).split(" Increase vocab_size")[0]
            or "there is no text"
        )
        raise ConfigError(
            f"--vocab-size={vocab_size}: SentencePiece cannot train this: {reason}"
        ) from error
    return model.getvalue()
