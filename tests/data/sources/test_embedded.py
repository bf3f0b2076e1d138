"""The image-text set inside the package: whole, within its size, and readable by us and by TFDS."""

import collections
import hashlib
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tokenizers
from PIL import Image

from vlp_jax import prepare
from vlp_jax.data.sources.embedded import captions_by_concept, folder
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError

COUNTS = {"train": 9277, "val_vendor": 1690, "val_concept": 1494}
FIELDS = {
    "keywords",
    "vendor",
    "license",
    "hexcode",
    "emoji",
    "group",
    "subgroup",
    "tone",
    "gender",
}


@pytest.fixture(scope="module")
def samples():
    return {split: list(open_source(f"embedded:emoji/{split}")) for split in COUNTS}


def metadata(samples, split, field):
    return collections.Counter(sample.metadata[field] for sample in samples[split])


@pytest.mark.full
def test_every_split_is_there_with_every_field(samples):
    assert {split: len(rows) for split, rows in samples.items()} == COUNTS
    for rows in samples.values():
        assert len({sample.key for sample in rows}) == len(rows)
        for sample in rows:
            assert set(sample.metadata) == FIELDS
            assert sample.metadata["keywords"] and len(sample.captions) == 1


def test_val_vendor_is_a_vendor_and_val_concept_are_concepts_that_train_has_not(samples):
    assert set(metadata(samples, "val_vendor", "vendor")) == {"openmoji"}
    assert len(metadata(samples, "train", "vendor")) == 7 and "openmoji" not in metadata(
        samples, "train", "vendor"
    )
    trained = set(metadata(samples, "train", "hexcode"))
    # all the other 1,688 are drawn in train
    assert len(set(metadata(samples, "val_vendor", "hexcode")) - trained) == 2
    assert not trained & set(metadata(samples, "val_concept", "hexcode"))


def test_every_image_is_a_small_lossless_webp_with_transparency(samples):
    seen = collections.Counter()
    for rows in samples.values():
        for sample in rows:
            assert sample.image[12:16] == b"VP8L", sample.key  # the lossless kind
            seen[Image.open(io.BytesIO(sample.image)).size] += 1
    assert seen == {(64, 64): sum(COUNTS.values())}


def test_the_folder_is_at_most_20_megabytes_and_what_its_manifest_says():
    files = [
        path
        for path in folder("emoji").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    manifest = json.loads((folder("emoji") / "manifest.json").read_text())
    assert {split: len(entry["shards"]) for split, entry in manifest["splits"].items()} == {
        "train": 4,
        "val_vendor": 1,
        "val_concept": 1,
    }
    for split, entry in manifest["splits"].items():
        assert entry["count"] == COUNTS[split] and entry["skipped"] == {}
        for shard in entry["shards"]:
            assert (
                hashlib.sha256((folder("emoji") / shard["file"]).read_bytes()).hexdigest()
                == shard["sha256"]
            )


def test_tfds_decodes_it_without_tensorflow(samples, tmp_path):
    code = (
        "import sys, numpy, tensorflow_datasets as tfds\n"
        f"builder = tfds.builder_from_directory({str(folder('emoji'))!r})\n"
        "for split in ('train', 'val_vendor', 'val_concept'):\n"
        "    data = builder.as_data_source(split)\n"
        "    records = [data[i] for i in range(0, len(data), 500)]\n"
        "    print(split, len(data), *[record['key'].decode() for record in records])\n"
        "    numpy.savez(f'{sys.argv[1]}/{split}.npz', *[record['image'] for record in records])\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for line, (split, rows) in zip(printed, samples.items(), strict=True):
        assert line.split() == [split, str(COUNTS[split]), *[sample.key for sample in rows[::500]]]
        for image, sample in zip(
            np.load(tmp_path / f"{split}.npz").values(), rows[::500], strict=True
        ):
            ours = Image.open(io.BytesIO(sample.image))
            np.testing.assert_array_equal(image, np.asarray(ours))


def test_it_can_be_rebuilt_from_tars(samples, tmp_path):
    rows = samples["val_vendor"][:20]
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for sample in rows:
            png = io.BytesIO()
            Image.open(io.BytesIO(sample.image)).convert("RGBA").save(png, "PNG")
            fields = {name: value or None for name, value in sample.metadata.items()} | {
                "caption": sample.captions[0]
            }
            for ending, data in (("png", png.getvalue()), ("json", json.dumps(fields).encode())):
                info = tarfile.TarInfo(f"{sample.key}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    prepare.main(
        [
            f"--source=webdataset:{tmp_path}/in.tar",
            f"--output={tmp_path}/out",
            "--image-format=webp",
        ]
    )
    for old, new in zip(rows, open_source(f"arrayrecord:{tmp_path}/out/train"), strict=True):
        assert (new.key, new.captions, new.metadata) == (old.key, old.captions, old.metadata)
        before, after = (
            np.asarray(Image.open(io.BytesIO(s.image)).convert("RGBA")) for s in (old, new)
        )
        np.testing.assert_array_equal(after, before)


def test_the_tokenizer_is_the_one_trained_on_train(samples, tmp_path):
    prepare.main(
        [
            "--source=embedded:emoji/train",
            f"--train-tokenizer={tmp_path}/t.json",
            "--vocab-size=4096",
        ]
    )
    assert (tmp_path / "t.json").read_bytes() == (folder("emoji") / "tokenizer.json").read_bytes()
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    assert tokenizer.get_vocab_size() == 4096
    lengths = [len(tokenizer.encode(sample.captions[0]).ids) for sample in samples["train"]]
    assert np.mean(lengths) < 7
    for sample in samples["val_concept"]:
        assert tokenizer.encode(sample.captions[0]).ids, sample.captions


def test_every_concept_has_captions_in_25_more_languages(samples):
    captions = captions_by_concept("emoji")
    used = {sample.metadata["hexcode"] for rows in samples.values() for sample in rows}
    assert set(captions) == used
    for concept, named in captions.items():
        assert len(named) == 25 and "en" not in named and all(named.values()), concept
    assert captions["1F600"]["de"] == "grinsendes Gesicht"


def test_every_vendor_is_attributed_with_its_licence(samples):
    text = (folder("emoji") / "LICENSES.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for split in samples.values():
        for vendor, licence in {
            (sample.metadata["vendor"], sample.metadata["license"]) for sample in split
        }:
            assert any(
                vendor in row.split("|")[1] and licence in row.split("|")[3] for row in rows
            ), (vendor, licence)
    assert set(metadata(samples, "val_vendor", "license")) == {"CC-BY-SA-4.0"}


def test_an_unknown_split_is_answered_with_those_there_are():
    with pytest.raises(
        DataError,
        match="embedded:emoji/test: no split 'test'; splits: train, val_vendor, val_concept",
    ):
        open_source("embedded:emoji/test")
