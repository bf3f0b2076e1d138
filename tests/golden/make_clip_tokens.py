"""What open_clip's tokenizer and text cleaning make of hard captions, with the part of CLIP's
vocabulary that they need.

pip install open-clip-torch==3.3.0 ftfy==6.3.1
python tests/golden/make_clip_tokens.py

Writes `clip_tokens.json` beside itself. A merge that byte-pair encoding never applies to these
captions changes nothing when it is left out, since the ones applied are then still the best at each
step; so only those applied are kept.
"""

import json
import pathlib

import regex
from open_clip import tokenizer as open_clip

CAPTIONS = [
    "a photo of a cat",
    "A Photo of a DOG.",
    "a diagram",
    "",
    " ",
    "!",
    "...",
    "!?!?!?",
    "🔝",
    "👩‍👩‍👧‍👦 family",
    "🇩🇪🇫🇷",
    "  many    spaces\t and\n\nnew lines ",
    "caf\u00e9 au lait",
    "cafe\u0301 au lait",
    "Stra\u00dfe",
    "\u0130stanbul",
    "\u039f\u0394\u039f\u03a3",
    "tom &amp; jerry",
    "tom &amp;amp; jerry",
    "&lt;b&gt;bold&lt;/b&gt;",
    "5 &gt; 3 &#39;quoted&#39;",
    "a&nbsp;b",
    "&notanentity;",
    "it's, they're, we've, I'll, he'd, I'm, don't",
    "IT'S ALL CAPS'",
    "rock'n'roll o'clock",
    "1234567890",
    "3.14159 and 1,000,000",
    "2023-10-05T12:34:56Z",
    "$19.99 (50% off!)",
    "user_name@example.com",
    "https://example.com/a/b?c=d&e=f#g",
    "C:\\path\\file.jpg",
    "#hashtag #another_one",
    "日本の猫",
    "一只猫坐在垫子上",
    "고양이 사진",
    "фотография кота",
    "صورة قطة",
    "תמונה של חתול",
    "बिल्ली की तस्वीर",
    "รูปแมว",
    "φωτογραφία μιας γάτας",
    "mèo ảnh đẹp",
    "½ ² ₃ ①",
    "a\u200bb",
    "x\u00adx",
    "naïve façade",
    "e = mc^2",
    "--- *** ___ ===",
    "\u201cquoted\u201d \u2018text\u2019 it\u2019s",
    "\ufb01ne \ufb02owers",
    "sch\u00c3\u00b6n",
    "a\x07bell\x1b[31m red",
    "\uff26\uff55\uff4c\uff4c width",
    "&lt;p&gt;&quot;A&quot;&amp;amp;B &ndash; C&hellip;",
    "l\u2013m \u2026 \u2022 \u2122",
    "\ufeffbyte order",
    "a\r\nb\u2028c",
    "DSC_0123.JPG",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "word " * 100,
    "na" * 200,
    "a.b" * 40,
]


def merges_of(tokenizer: open_clip.SimpleTokenizer, text: str) -> set[tuple[str, str]]:
    """The pairs that are merged on the way to a text's tokens."""
    used = set()
    for word in regex.findall(tokenizer.pat, tokenizer.clean_fn(text)):
        letters = [tokenizer.byte_encoder[byte] for byte in word.encode()]
        pieces = [*letters[:-1], letters[-1] + "</w>"]
        while len(pieces) > 1:
            ranks = [
                tokenizer.bpe_ranks.get(pair, float("inf"))
                for pair in zip(pieces, pieces[1:], strict=False)
            ]
            if min(ranks) == float("inf"):
                break
            best = tuple(pieces[ranks.index(min(ranks)) :][:2])
            used.add(best)
            merged, place = [], 0
            while place < len(pieces):
                size = 2 if tuple(pieces[place : place + 2]) == best else 1
                merged.append("".join(pieces[place : place + size]))
                place += size
            pieces = merged
        assert pieces == tokenizer.bpe("".join(letters)).split(" ")
    return used


def main() -> None:
    tokenizer = open_clip.SimpleTokenizer()
    used = set().union(*(merges_of(tokenizer, caption) for caption in CAPTIONS))
    merges = sorted(used, key=tokenizer.bpe_ranks.get)
    letters = list(tokenizer.byte_encoder.values())
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair) for pair in merges),
    ]
    vocabulary = {token: tokenizer.encoder[token] for token in tokens}
    vocabulary |= {
        "<|startoftext|>": tokenizer.sot_token_id,
        "<|endoftext|>": tokenizer.eot_token_id,
    }
    golden = {
        "captions": CAPTIONS,
        "ids": [
            [tokenizer.sot_token_id, *tokenizer.encode(caption), tokenizer.eot_token_id]
            for caption in CAPTIONS
        ],
        "rows": [tokenizer(caption)[0].tolist() for caption in CAPTIONS[-3:]],  # 77 long, cut off
        "lower": [open_clip._clean_lower(caption) for caption in CAPTIONS],
        "canonical": [open_clip._clean_canonicalize(caption) for caption in CAPTIONS],
        "vocabulary": vocabulary,
        "merges": [" ".join(pair) for pair in merges],
    }
    path = pathlib.Path(__file__).with_name("clip_tokens.json")
    path.write_text(
        "{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
        + "\n}\n"
    )


if __name__ == "__main__":
    main()
