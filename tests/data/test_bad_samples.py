"""Every kind of bad sample: its row is filled by a substitute, the reason code and the key arrive,
nothing else changes."""

import functools
import io
import json
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images.boxes import BoxesConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import REASONS, TrainRows, identity
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.dependency_parses import DependenciesConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer

GOOD = 6


def encoded(number, kind="PNG", size=(20, 20)):
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb():
    """A PNG whose header promises a billion pixels."""
    header, pixels = (
        b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(1000)),
    )
    parts = (header, pixels, b"IEND")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tar_with(folder, members, cut=None):
    """GOOD samples, then `members` of the sample `bad`, the last `cut` bytes of the tar missing."""
    good = {
        f"good{number}.{ending}": data
        for number in range(GOOD)
        for ending, data in (("png", encoded(number)), ("txt", b"a picture"))
    }
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name, data in (
            good | {f"bad.{ending}": data for ending, data in members.items()}
        ).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            end = tar.offset
    if cut:
        (folder / "x.tar").write_bytes((folder / "x.tar").read_bytes()[: end - cut])
    return f"webdataset:{folder}/x.tar"


def jsonl_with(folder, line):
    """GOOD rows, then `line`."""
    for number in range(GOOD):
        (folder / f"good{number}.png").write_bytes(encoded(number))
    rows = [
        json.dumps({"image": f"good{number}.png", "caption": "a picture"}) for number in range(GOOD)
    ]
    (folder / "x.jsonl").write_bytes("\n".join(rows).encode() + b"\n" + line)
    return f"jsonl:{folder}/x.jsonl"


def parquet_with(folder, damage):
    """Two row groups, of GOOD rows and of one; `damage` bytes in the image of the second are
    cleared."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "image": [encoded(number) for number in range(GOOD + 1)],
            "caption": ["a picture"] * (GOOD + 1),
        }
    )
    parquet.write_table(
        table,
        folder / "x.parquet",
        row_group_size=GOOD,
        compression="none",
        write_page_checksum=True,
        use_dictionary=False,
        write_statistics=False,
    )
    content = bytearray((folder / "x.parquet").read_bytes())
    start = content.rindex(encoded(GOOD))
    content[start + 40 : start + 40 + damage] = bytes(damage)
    (folder / "x.parquet").write_bytes(content)
    return f"parquet:{folder}/x.parquet"


PNG, JPEG, WEBP = encoded(99), encoded(99, "JPEG", (64, 64)), encoded(99, "WEBP")
CASES = {
    "image cut off, PNG": (
        Reason.DAMAGED_IMAGE,
        tar_with,
        {"png": PNG[: len(PNG) // 2], "txt": b"a"},
    ),
    "image cut off, JPEG": (
        Reason.DAMAGED_IMAGE,
        tar_with,
        {"jpg": JPEG[: len(JPEG) // 2], "txt": b"a"},
    ),
    "image cut off, WebP": (
        Reason.DAMAGED_IMAGE,
        tar_with,
        {"webp": WEBP[: len(WEBP) // 2], "txt": b"a"},
    ),
    "not an image": (Reason.DAMAGED_IMAGE, tar_with, {"jpg": b"<html>404</html>", "txt": b"a"}),
    "empty image": (Reason.MISSING_IMAGE, jsonl_with, b'{"image": "", "caption": "a"}'),
    "no image": (Reason.MISSING_IMAGE, tar_with, {"txt": b"a"}),
    "image file missing": (
        Reason.MISSING_IMAGE,
        jsonl_with,
        b'{"image": "gone.png", "caption": "a"}',
    ),
    "image outside": (
        Reason.FORBIDDEN_PATH,
        jsonl_with,
        b'{"image": "../../etc/passwd", "caption": "a"}',
    ),
    "image absolute": (
        Reason.FORBIDDEN_PATH,
        jsonl_with,
        b'{"image": "/etc/passwd", "caption": "a"}',
    ),
    "too many pixels": (Reason.TOO_LARGE, tar_with, {"png": bomb(), "txt": b"a"}),
    "caption empty": (Reason.EMPTY_CAPTION, tar_with, {"png": PNG, "txt": b" \n"}),
    "caption missing": (Reason.MISSING_CAPTION, tar_with, {"png": PNG, "json": b'{"title": "a"}'}),
    "no text at all": (Reason.MISSING_CAPTION, tar_with, {"png": PNG}),
    "caption null": (
        Reason.MISSING_CAPTION,
        jsonl_with,
        b'{"image": "good0.png", "caption": null}',
    ),
    "caption a number": (Reason.WRONG_TYPE, tar_with, {"png": PNG, "json": b'{"caption": 7}'}),
    "image a number": (Reason.WRONG_TYPE, jsonl_with, b'{"image": 7, "caption": "a"}'),
    "text not UTF-8": (Reason.DAMAGED_TEXT, tar_with, {"png": PNG, "txt": b"\xff\xfe\xfa"}),
    "caption half a character": (
        Reason.DAMAGED_TEXT,
        jsonl_with,
        b'{"image": "good0.png", "caption": "cut \\ud83d"}',
    ),
    "path half a character": (
        Reason.DAMAGED_TEXT,
        jsonl_with,
        b'{"image": "\\ud83d.png", "caption": "a"}',
    ),
    "caption emptied": (
        Reason.EMPTY_CAPTION,
        jsonl_with,
        b'{"image": "good0.png", "caption": "!?"}',
    ),
    "line not JSON": (Reason.DAMAGED_TEXT, jsonl_with, b'{"image": "good0.png", "capti'),
    "tar cut in the image": (Reason.CUT_OFF, functools.partial(tar_with, cut=100), {"png": PNG}),
    "tar cut in the text": (
        Reason.CUT_OFF,
        functools.partial(tar_with, cut=511),
        {"png": PNG, "txt": b"a picture"},
    ),
    "tar cut before the text": (
        Reason.CUT_OFF,
        functools.partial(tar_with, cut=1024),
        {"png": PNG, "txt": b"a picture"},
    ),
    "box without width": (
        Reason.WRONG_BOXES,
        jsonl_with,
        b'{"image": "good0.png", "caption": "a", "boxes": [[3, 1, 3, 2]]}',
    ),
    "word before the first": (
        Reason.WRONG_DEPENDENCIES,
        jsonl_with,
        b'{"image": "good0.png", "caption": "a", "parse": [[0, -1]]}',
    ),
    "page damaged": (Reason.DAMAGED_RECORD, parquet_with, 30),
}


def rows_of(spec):
    source = open_source(spec)
    preprocessor = Preprocessor(
        8,
        ImagesConfig(),
        load_tokenizer(TextConfig(canonicalize=("punctuation",)), 12, 4096),
        BoxesConfig(field="boxes", count=2),
        DependenciesConfig(field="parse"),
    )
    mixture = Mixture((Part("", source, TextsConfig(), len(source)),))
    return TrainRows(mixture, preprocessor, AugmentationConfig(), seed=1)


def test_every_reason_has_a_case():
    assert {reason for reason, *_ in CASES.values()} == set(Reason)


@pytest.mark.variants
@pytest.mark.parametrize("case", CASES)
def test_a_bad_sample_is_replaced_and_named_once_an_epoch(case, tmp_path):
    reason, write, damage = CASES[case]
    rows_at = rows_of(write(tmp_path, damage))
    good = {tuple(identity(encoded(number))) for number in range(GOOD)}
    for epoch in range(3):
        rows = [
            rows_at.row(position)
            for position in range(epoch * (GOOD + 1), (epoch + 1) * (GOOD + 1))
        ]
        bad = [row for row in rows if row["reason"]]
        assert [REASONS[row["reason"] - 1] for row in bad] == [reason]
        key = {jsonl_with: "x.jsonl:7", parquet_with: "x.parquet:7"}.get(write, "bad")
        assert str(bad[0]["bad_sample"]).startswith(f"{key}: ")
        assert {tuple(row["image_id"]) for row in rows} == good  # the substitute is one of them
        assert all(row["text"] for row in rows)
