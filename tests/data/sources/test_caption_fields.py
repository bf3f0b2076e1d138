"""Every caption carries the name of the field that it comes from, and `prepare` keeps it."""

import csv
import io
import json
import tarfile

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from vlp_jax import prepare
from vlp_jax.data.prepare import writer
from vlp_jax.data.samples import Reason, Sample, SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.sources.tf_example import encode_example

ROWS = [
    {"alt": "a cat", "recaption": ["a small cat", "a cat"]},
    {"alt": "a dog ", "recaption": ["a dog"]},
    {"alt": "", "recaption": ["a bird"]},
]
SEVERAL = [
    (("a cat", "a small cat"), ("alt", "recaption")),
    (("a dog",), ("alt",)),
    (("a bird",), ("recaption",)),
]
OPTIONS = "caption=alt|recaption"


def png(number=0):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for number, members in enumerate(samples):
            for ending, data in (("png", png(number)), *members.items()):
                info = tarfile.TarInfo(f"s{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def webdataset_tar(folder):
    path = write_tar(folder / "x.tar", [{"json": json.dumps(row).encode()} for row in ROWS])
    return f"webdataset:{path}?{OPTIONS}"


def image_files(folder):
    for number in range(len(ROWS)):
        (folder / f"{number}.png").write_bytes(png(number))


def jsonl_file(folder):
    image_files(folder)
    lines = [
        json.dumps({"image": f"{number}.png", "texts": row}) for number, row in enumerate(ROWS)
    ]
    (folder / "x.jsonl").write_text("\n".join(lines))
    return f"jsonl:{folder}/x.jsonl?caption=texts.alt|texts.recaption"


def csv_file(folder):
    image_files(folder)
    with open(folder / "x.csv", "w", newline="") as file:
        rows = [
            [f"{number}.png", row["alt"], row["recaption"][0]] for number, row in enumerate(ROWS)
        ]
        csv.writer(file).writerows([["image", "alt", "recaption"], *rows])
    return f"csv:{folder}/x.csv?{OPTIONS}"


def parquet_file(folder):
    import pyarrow
    from pyarrow import parquet

    columns = {name: [row[name] for row in ROWS] for name in ("alt", "recaption")}
    parquet.write_table(
        pyarrow.table({"image": [png(number) for number in range(len(ROWS))], **columns}),
        folder / "x.parquet",
    )
    return f"parquet:{folder}/x.parquet?{OPTIONS}"


def tfds_folder(folder):
    """`prepare` writes the two fields as metadata, which TFDS then reads as captions."""
    write_tar(
        folder / "x.tar", [{"txt": b"unused", "json": json.dumps(row).encode()} for row in ROWS]
    )
    prepare.main([f"--source=webdataset:{folder}/x.tar", f"--output={folder}/tfds"])
    return f"tfds:{folder}/tfds/train?{OPTIONS}"


SOURCES = {
    "webdataset": webdataset_tar,
    "jsonl": jsonl_file,
    "csv": csv_file,
    "parquet": parquet_file,
    "tfds": tfds_folder,
}


def found(source):
    return [
        (sample.captions, tuple(field.removeprefix("texts.") for field in sample.caption_fields))
        for sample in source
    ]


@pytest.mark.parametrize("kind", SOURCES)
def test_the_fields_of_captions_survive_prepare(kind, tmp_path):
    spec = SOURCES[kind](tmp_path)
    assert found(open_source(spec)) == SEVERAL
    prepare.main([f"--source={spec}", f"--output={tmp_path}/out"])
    again = open_source(f"arrayrecord:{tmp_path}/out/train")
    assert found(again) == SEVERAL
    assert not any("caption_fields" in sample.metadata for sample in again)
    prepare.main([f"--source=arrayrecord:{tmp_path}/out/train", f"--output={tmp_path}/twice"])
    assert found(open_source(f"arrayrecord:{tmp_path}/twice/train")) == SEVERAL


def test_a_set_with_captions_of_one_unnamed_field_stores_no_names(tmp_path):
    write_tar(
        tmp_path / "x.tar", [{"json": b'{"caption": ["a cat", "a dog"], "caption_fields": "mine"}'}]
    )
    prepare.main([f"--source=webdataset:{tmp_path}/x.tar", f"--output={tmp_path}/out"])
    sample = open_source(f"arrayrecord:{tmp_path}/out/train")[0]
    assert (sample.captions, sample.caption_fields) == (("a cat", "a dog"), ("caption", "caption"))
    assert sample.metadata == {"source_caption_fields": "mine"}
    assert (
        "caption_fields"
        not in json.loads((tmp_path / "out/features.json").read_text())["featuresDict"]["features"]
    )


def test_one_caption_of_another_field_keeps_its_name(tmp_path):
    write_tar(tmp_path / "x.tar", [{"txt": b"a cat"}, {"json": b'{"caption": "a dog"}'}])
    prepare.main([f"--source=webdataset:{tmp_path}/x.tar", f"--output={tmp_path}/out"])
    source = open_source(f"arrayrecord:{tmp_path}/out/train")
    assert found(source) == [(("a cat",), ("txt",)), (("a dog",), ("caption",))]


def test_names_beyond_the_samples_that_decide_the_fields_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SURVEYED", 1)
    write_tar(tmp_path / "x.tar", [{"json": b'{"caption": "a dog"}'}, {"txt": b"a cat"}])
    prepare.main([f"--source=webdataset:{tmp_path}/x.tar", f"--output={tmp_path}/out"])
    assert found(open_source(f"arrayrecord:{tmp_path}/out/train"))[1] == (("a cat",), ("txt",))


def test_a_folder_of_tfds_names_the_feature_and_keeps_what_only_looks_like_ours(tmp_path):
    write_tar(tmp_path / "x.tar", [{"json": json.dumps({"captions": ["a cat", "a dog"]}).encode()}])
    prepare.main([f"--source=webdataset:{tmp_path}/x.tar", f"--output={tmp_path}/out"])
    (tmp_path / "out/manifest.json").unlink()
    sample = open_source(f"arrayrecord:{tmp_path}/out/train")[0]
    assert (sample.captions, sample.caption_fields) == (
        ("a cat", "a dog"),
        ("captions", "captions"),
    )
    assert sample.metadata == {"caption_fields": ["captions", "captions"]}


def test_prompts_keep_the_field_of_their_caption(tmp_path):
    sample = open_source(csv_file(tmp_path) + "&prompt=a photo of {}|{}")[0]
    assert sample.captions == ("a photo of a cat", "a cat", "a photo of a small cat", "a small cat")
    assert sample.caption_fields == ("alt", "alt", "recaption", "recaption")


def test_a_sample_says_caption_where_no_field_is_named_and_wants_one_for_each_caption():
    assert Sample("k", b"", ("a", "b"), {}).caption_fields == ("caption", "caption")
    with pytest.raises(ValueError, match="k: 2 captions from 1 fields"):
        Sample("k", b"", ("a", "b"), {}, ("alt",))


def test_records_whose_names_and_captions_differ_in_number_are_damaged(tmp_path):
    write_tar(tmp_path / "x.tar", [{"txt": b"a cat"}])
    prepare.main([f"--source=webdataset:{tmp_path}/x.tar", f"--output={tmp_path}/out"])
    records = ArrayRecordWriter(
        str(tmp_path / "out/out-train.array_record-00000-of-00001"), "group_size:1"
    )
    records.write(
        encode_example({"image": [png()], "caption": ["a cat"], "caption_fields": ["txt", "alt"]})
    )
    records.close()
    with pytest.raises(SampleError) as caught:
        open_source(f"arrayrecord:{tmp_path}/out/train")[0]
    assert caught.value.reason == Reason.DAMAGED_TEXT
