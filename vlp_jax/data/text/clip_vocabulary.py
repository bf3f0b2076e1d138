"""CLIP's vocabulary (Radford et al. 2021), built from OpenAI's `bpe_simple_vocab_16e6.txt.gz` in
this package."""

import functools
import gzip
import importlib.resources

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

FILE = "clip/bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2  # merges that CLIP uses, after the first line of the file
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@functools.cache
def clip_definition() -> str:
    """The JSON of a tokenizer with CLIP's own ids.

    The ids are, in order: 256 bytes, the same bytes at the end of a word, one token per merge,
    start and end of text. Texts are lower-cased. The other changes that CLIP's code makes to
    captions are changes of `canonicalize`: ftfy, html, whitespace.
    """
    lines = (
        gzip.decompress((importlib.resources.files("vlp_jax.data") / FILE).read_bytes())
        .decode()
        .split("\n")
    )
    merges = [(first, second) for first, second in map(str.split, lines[1 : MERGES + 1])]
    letters = bytes_in_order()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), *SPECIAL]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            {token: number for number, token in enumerate(tokens)},
            merges,
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer.to_str()


def bytes_in_order() -> list[str]:
    """The 256 characters that represent bytes: the visible ones for themselves, then the others
    from U+0100 on."""
    seen = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [chr(byte) for byte in seen] + [chr(256 + number) for number in range(256 - len(seen))]
