"""The door that writes ArrayRecord folders and vocabularies, and the reader of such folders."""

import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import pickle
import shlex
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tokenizers
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from vlp_jax import prepare
from vlp_jax.config import load_config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.sources.tf_example import decode_example, encode_example
from vlp_jax.errors import DataError, UserError

ROOT = pathlib.Path(__file__).parents[3]


def picture(number, mode="RGBA"):
    """A picture with soft edges; what lies under alpha 0 is noise."""
    draw = np.random.default_rng(number)
    pixels = draw.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    pixels[:3, :, 3], pixels[3:6, :, 3] = 0, 255
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(file, "PNG")
    return file.getvalue()


def rgba(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for key, image, fields in samples:
            for name, data in ((f"{key}.png", image), (f"{key}.json", json.dumps(fields).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def fields_of(number, **more):
    return {
        "caption": f"thing number {number}",
        "keywords": ["a", "b"][: number % 3],
        "group": None,
        "rank": number,
    } | more


@pytest.fixture
def tar(tmp_path):
    samples = [(f"k{n}", picture(n), fields_of(n)) for n in range(10)]
    return write_tar(tmp_path / "in.tar", samples)


def run(*arguments):
    prepare.main([str(argument) for argument in arguments])


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_what_is_written_is_read_back_in_order(tar, tmp_path):
    run(f"--source=webdataset:{tar}", f"--output={tmp_path}/out", "--shards=3")
    before, after = (
        open_source(f"webdataset:{tar}"),
        open_source(f"arrayrecord:{tmp_path}/out/train"),
    )
    assert len(after) == 10
    for old, new in zip(before, after, strict=True):
        assert (new.key, new.image, new.captions) == (old.key, old.image, old.captions)
        assert new.metadata == old.metadata | {"group": ""}  # None is stored as the empty string
    assert after.lengths == [3, 3, 4]


@pytest.mark.parametrize("size", [[], ["--image-size=5"]], ids=["as they are", "smaller"])
def test_tfds_reads_the_folder_without_tensorflow(tar, tmp_path, size):
    run(
        f"--source=webdataset:{tar}",
        f"--output={tmp_path}/out",
        "--split=small",
        "--image-format=webp",
        "--shards=2",
        *size,
    )
    code = (
        "import sys, numpy, tensorflow_datasets as tfds\n"
        f"data = tfds.builder_from_directory({str(tmp_path / 'out')!r}).as_data_source('small')\n"
        "records = [data[i] for i in range(len(data))]\n"
        "assert 'tensorflow' not in sys.modules\n"
        "numpy.savez(sys.argv[1], *[record['image'] for record in records])\n"
        "print([(r['key'].decode(), r['caption'].decode(), [k.decode() for k in r['keywords']], "
        "int(r['rank']))"
        " for r in records])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "images.npz")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    expected = [(f"k{n}", f"thing number {n}", ["a", "b"][: n % 3], n) for n in range(10)]
    assert printed.strip() == str(expected)
    for number, image in enumerate(np.load(tmp_path / "images.npz").values()):
        expected = rgba(picture(number))
        if size:
            expected = np.asarray(
                Image.fromarray(expected).resize((5, 6), Image.Resampling.BICUBIC)
            )
        visible = expected[..., 3] > 0
        np.testing.assert_array_equal(image[visible], expected[visible])


def jpeg(number, width, height):
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def test_pictures_larger_than_image_size_are_made_smaller_and_counted(tmp_path, capsys):
    pictures = [jpeg(0, 40, 30), jpeg(1, 16, 12), jpeg(2, 30, 40)[:400], picture(3)]
    samples = [(f"k{number}", image, fields_of(number)) for number, image in enumerate(pictures)]
    run(
        f"--source=webdataset:{write_tar(tmp_path / 'in.tar', samples)}",
        f"--output={tmp_path}/out",
        "--image-size=12",
    )
    large, exact, small = open_source(f"arrayrecord:{tmp_path}/out/train")
    assert (
        Image.open(io.BytesIO(large.image)).size == (16, 12)
        and Image.open(io.BytesIO(large.image)).format == "JPEG"
    )
    assert (exact.image, small.image) == (pictures[1], pictures[3])
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    entry = manifest["splits"]["train"]
    assert (manifest["image_size"], entry["resized"], entry["count"], entry["skipped"]) == (
        12,
        1,
        3,
        {"damaged_image": 1},
    )
    assert entry["skipped_samples"][0].startswith("k2: ")
    assert "skipped: 1 damaged_image; made smaller: 1" in capsys.readouterr().out


def test_progress_is_a_live_line_on_a_terminal_and_elsewhere_a_line_every_ten_seconds(
    monkeypatch, capsys
):
    seconds = iter(range(1000))
    monkeypatch.setattr(prepare.time, "monotonic", lambda: next(seconds))

    def shown(live):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: live, raising=False)
        progress = prepare._Progress()
        for done in range(1001, 1031):  # one a second
            progress("train", done, 1030)
        return capsys.readouterr().err

    assert shown(live=False).splitlines() == [
        "train: 1,012 of 1,030 samples, 1/s, 0:18 left",
        "train: 1,023 of 1,030 samples, 1/s, 0:07 left",
    ]
    live = shown(live=True)
    assert live.count("\n") == 1 and live.endswith("\rtrain: 1,030 of 1,030 samples, 1/s\033[K\n")


@pytest.mark.parametrize("image_format", ["webp", "png"])
def test_lossless_images_keep_alpha_and_every_visible_pixel(tar, tmp_path, image_format):
    run(f"--source=webdataset:{tar}", f"--output={tmp_path}/out", f"--image-format={image_format}")
    for number, sample in enumerate(open_source(f"arrayrecord:{tmp_path}/out/train")):
        old, new = rgba(picture(number)), rgba(sample.image)
        assert Image.open(io.BytesIO(sample.image)).format == image_format.upper()
        np.testing.assert_array_equal(new[..., 3], old[..., 3])
        np.testing.assert_array_equal(new[old[..., 3] > 0], old[old[..., 3] > 0])


def test_keep_leaves_the_bytes_alone_but_expands_palettes(tmp_path):
    samples = [("rgb", picture(1, "RGB"), fields_of(1)), ("palette", picture(2, "P"), fields_of(2))]
    run(
        f"--source=webdataset:{write_tar(tmp_path / 'in.tar', samples)}", f"--output={tmp_path}/out"
    )
    first, second = open_source(f"arrayrecord:{tmp_path}/out/train")
    assert first.image == picture(1, "RGB")
    # TFDS would give indices of the palette
    assert Image.open(io.BytesIO(second.image)).mode == "RGBA"
    np.testing.assert_array_equal(rgba(second.image), rgba(picture(2, "P")))


def test_the_same_source_gives_the_same_bytes_whatever_the_workers(tar, tmp_path):
    arguments = [
        f"--source=webdataset:{tar}",
        "--name=x",
        "--shards=2",
        "--image-format=webp",
        "--compression=brotli",
    ]
    for name, workers in (("a", 1), ("b", 1), ("c", 2)):
        run(*arguments, f"--output={tmp_path}/{name}", f"--workers={workers}")
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c")


def test_several_splits_go_into_one_folder_with_a_manifest_that_adds_up(tar, tmp_path):
    run(
        f"--split=one=webdataset:{tar}", f"--split=two=webdataset:{tar}", f"--output={tmp_path}/out"
    )
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert list(manifest["splits"]) == ["one", "two"]
    for split, entry in manifest["splits"].items():
        source = open_source(f"arrayrecord:{tmp_path}/out/{split}")
        records = [r for path in source.paths for r in ArrayRecordReader(path).read_all()]
        assert (entry["count"], entry["bytes"]) == (10, sum(map(len, records)))
        assert entry["source"] == f"webdataset:{tar}"
        assert entry["fingerprint"] == open_source(f"webdataset:{tar}").fingerprint()
        for shard in entry["shards"]:
            data = (tmp_path / "out" / shard["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == shard["sha256"]


def test_bad_samples_are_left_out_and_counted(tmp_path, capsys):
    samples = [(f"k{n}", picture(n), fields_of(n)) for n in range(6)]
    samples[1] = ("k1", b"not a picture", fields_of(1))
    samples[2] = ("k2", picture(2), {"keywords": []})
    samples[4] = ("k4", picture(4), fields_of(4, caption=" "))
    run(
        f"--source=webdataset:{write_tar(tmp_path / 'in.tar', samples)}", f"--output={tmp_path}/out"
    )
    assert [s.key for s in open_source(f"arrayrecord:{tmp_path}/out/train")] == ["k0", "k3", "k5"]
    entry = json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["train"]
    assert entry["skipped"] == {"damaged_image": 1, "empty_caption": 1, "missing_caption": 1}
    assert [text.split(":")[0] for text in entry["skipped_samples"]] == ["k1", "k2", "k4"]
    assert "skipped: 1 damaged_image, 1 empty_caption, 1 missing_caption" in capsys.readouterr().out


def test_fields_of_any_type_come_back_as_they_were(tmp_path):
    more = [
        {
            "n": 1,
            "x": 1,
            "mixed": 1,
            "tree": {"a": [1]},
            "sometimes": 3,
            "key": "other",
            "captions": {"de": "Ding"},
        },
        {
            "n": 2,
            "x": 0.5,
            "mixed": "one",
            "tree": [1, "a"],
            "key": "another",
            "captions": {"de": "Sache"},
        },
    ]
    samples = [(f"k{n}", picture(n), fields_of(n, **fields)) for n, fields in enumerate(more)]
    run(
        f"--source=webdataset:{write_tar(tmp_path / 'in.tar', samples)}", f"--output={tmp_path}/out"
    )
    for sample, fields in zip(open_source(f"arrayrecord:{tmp_path}/out/train"), more, strict=True):
        back = {name: sample.metadata[name] for name in ("n", "x", "mixed", "tree")}
        assert back == {name: fields[name] for name in back}
        assert sample.metadata["sometimes"] == fields.get("sometimes")
        assert (sample.metadata["source_key"], sample.metadata["source_captions"]) == (
            fields["key"],
            fields["captions"],
        )


def test_several_captions_a_sample_are_all_kept(tmp_path):
    samples = [
        ("a", picture(1), {"captions": ["one", "two"]}),
        ("b", picture(2), {"caption": "three"}),
    ]
    run(
        f"--source=webdataset:{write_tar(tmp_path / 'in.tar', samples)}", f"--output={tmp_path}/out"
    )
    assert [s.captions for s in open_source(f"arrayrecord:{tmp_path}/out/train")] == [
        ("one", "two"),
        ("three",),
    ]


def test_an_arrayrecord_source_pickles_and_is_read_from_threads_and_processes(tar, tmp_path):
    run(f"--source=webdataset:{tar}", f"--output={tmp_path}/out", "--shards=2")
    source = open_source(f"arrayrecord:{tmp_path}/out/train")
    expected = [source[i].key for i in range(10)]
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[i].key for i in range(10)] == expected
    assert copy.fingerprint() == source.fingerprint()
    order = np.random.default_rng(2).integers(0, 10, 1000)
    with ThreadPoolExecutor(8) as pool:
        assert [s.key for s in pool.map(source.__getitem__, order)] == [expected[i] for i in order]
    # as a worker process of the pipeline gets it
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert [sample.key for sample in pool.map(source.__getitem__, range(10))] == expected


def break_folder(folder, how):
    shard = folder / "out-train.array_record-00001-of-00002"
    if how == "missing":
        shard.unlink()
    elif how == "cut":
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    elif how == "short":
        shutil.copy(folder / "out-train.array_record-00000-of-00002", shard)
    elif how == "manifest":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["splits"]["train"]["shards"][1]["count"] = 4
        (folder / "manifest.json").write_text(json.dumps(manifest))
    elif how == "manifest with fewer shards":
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["splits"]["train"]["shards"][1]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    elif how == "format":
        (folder / "dataset_info.json").write_text('{"name": "out", "splits": []}')
    elif how == "no caption":
        (folder / "features.json").write_text(
            (folder / "features.json").read_text().replace('"caption"', '"title"')
        )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "out-train.array_record-00001-of-00002 is missing; 1 of 2 shards found"),
        ("cut", "00001-of-00002 is damaged or not an ArrayRecord file"),
        ("short", "00001-of-00002 holds 3 records; dataset_info.json lists 5"),
        (
            "manifest",
            "manifest.json lists 4 records in out-train.array_record-00001-of-00002, "
            "dataset_info.json 5; ",
        ),
        (
            "manifest with fewer shards",
            "lists no records in out-train.array_record-00001-of-00002, dataset_info.json 5; ",
        ),
        ("format", "written as tfrecord; only array_record is read"),
        ("no caption", "no caption field in features.json (fields: "),
    ],
)
def test_a_folder_that_is_not_whole_is_an_error_that_names_the_shard(tmp_path, how, message):
    samples = [(f"k{n}", picture(n), fields_of(n)) for n in range(9)]
    samples[0] = ("k0", b"", fields_of(0))  # left out, so that the shards differ in length
    write_tar(tmp_path / "in.tar", samples)
    run(f"--source=webdataset:{tmp_path}/in.tar", f"--output={tmp_path}/out", "--shards=2")
    folder = tmp_path / "out"
    break_folder(folder, how)
    with pytest.raises(DataError) as caught:
        open_source(f"arrayrecord:{folder}/train")
    assert message in str(caught.value)


def test_an_unknown_split_is_answered_with_those_there_are(tar, tmp_path):
    run(f"--source=webdataset:{tar}", f"--output={tmp_path}/out")
    with pytest.raises(DataError, match="no split 'val'; splits: train"):
        open_source(f"arrayrecord:{tmp_path}/out/val")
    with pytest.raises(
        DataError, match=f"write DIR/SPLIT, such as arrayrecord:{tmp_path}/out/train"
    ):
        open_source(f"arrayrecord:{tmp_path}/out")


def test_a_damaged_record_is_one_bad_sample(tar, tmp_path):
    run(f"--source=webdataset:{tar}", f"--output={tmp_path}/out", "--shards=1")
    source = open_source(f"arrayrecord:{tmp_path}/out/train")
    path = pathlib.Path(source.paths[0])
    data = bytearray(path.read_bytes())
    place = data.index(source[4].image[8:])
    data[place : place + 8] = b"\x00" * 8
    path.write_bytes(data)
    fresh = open_source(f"arrayrecord:{tmp_path}/out/train")
    with pytest.raises(SampleError) as caught:
        fresh[4]
    assert caught.value.reason == Reason.DAMAGED_RECORD
    assert [fresh[i].key for i in (3, 5)] == ["k3", "k5"]


def test_records_are_those_of_tensorflow():
    tf_example = pytest.importorskip("tensorflow_datasets.proto").tf_example_pb2
    fields = {
        "text": ["größe", "b"],
        "raw": [b"\xff"],
        "n": [-1, 2**40],
        "x": [0.5, -2.0],
        "none": [],
    }
    parsed = tf_example.Example.FromString(encode_example(fields)).features.feature
    assert list(parsed["text"].bytes_list.value) == ["größe".encode(), b"b"]
    assert list(parsed["n"].int64_list.value) == [-1, 2**40]
    assert list(parsed["x"].float_list.value) == [0.5, -2.0]
    theirs = tf_example.Example()
    for name in parsed:
        theirs.features.feature[name].CopyFrom(parsed[name])
    assert decode_example(theirs.SerializeToString()) == fields | {"text": ["größe".encode(), b"b"]}
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        decode_example(b"\xff\xff\xff")


def test_output_appears_only_when_it_is_whole(tar, tmp_path, monkeypatch, capsys):
    def fails(*arguments):
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlp_jax.data.prepare.writer._dataset_info", fails)
        assert prepare.main([f"--source=webdataset:{tar}", f"--output={tmp_path}/out"]) == 130
    assert capsys.readouterr().err == "stopped; run the same command again to resume\n"
    assert not (tmp_path / "out").exists()
    run(f"--source=webdataset:{tar}", f"--output={tmp_path}/out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar", "out"]


def wrong_commands(tar):
    source = f"--source=webdataset:{tar}"
    return [
        (
            [source, source, "--output=O"],
            "--source is given twice; if its value has braces, quote it",
        ),
        (
            [f"--split=a=webdataset:{tar}", f"--split=a=webdataset:{tar}", "--output=O"],
            "--split=a is given twice; quote",
        ),
        ([source], "nothing to write"),
        (["--output=O"], "nothing to read"),
        ([source, f"--output={tar.parent}"], "exists; name a new folder"),
        ([source, "--output=O", "--name=1 2"], "use letters, digits and _"),
        ([source, "--output=O", "--shards=none"], "--shards"),
        ([source, "--output=O", "--image-format=gif"], "--image-format"),
        ([source, "--otput=O"], "--otput"),
        ([source, "--output=O", "--image-size=0"], "--image-size"),
        ([source, "--train-tokenizer=T.json", "--vocab-size=10"], "at least 259"),
        (
            [source, "--train-tokenizer=T.json", "--vocab-size=5", "--tokenizer-kind=wordpiece"],
            "at least 6",
        ),
        (
            [
                source,
                "--train-tokenizer=T.model",
                "--vocab-size=260",
                "--tokenizer-kind=sentencepiece",
            ],
            "at least 261",
        ),
        (
            [source, "--train-tokenizer=T.json", "--tokenizer-kind=sentencepiece"],
            "name it T.json.model",
        ),
        (
            [source, "--train-tokenizer=T.model"],
            "a bpe vocabulary is read back by its ending; name it T.model.json",
        ),
        (
            [source, "--train-tokenizer=T.model", "--tokenizer-kind=sentencepiece"],
            "Vocabulary size too high (4096)",
        ),
        (
            [source, "--train-tokenizer=T.json", "--tokenizer-kind=wordpiece", "--vocab-size=20"],
            "characters inside of a word",
        ),
        ([source, f"--train-tokenizer={tar}/T.json"], "cannot be written: "),
        (["--source=webdataset:/nowhere.tar", "--output=O"], "no such file"),
        (["--split=val", "--output=O"], "needs --source"),
    ]


def test_a_wrong_command_is_one_line_and_writes_nothing(tar, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for arguments, message in wrong_commands(tar):
        with pytest.raises(UserError) as caught:
            run(*arguments)
        assert message in str(caught.value), arguments
        assert "\n" not in str(caught.value), arguments
        assert not os.listdir(), arguments


def test_the_door_exits_with_2_and_one_line():
    command = [sys.executable, "-m", "vlp_jax.prepare", "--source=webdatset:x", "--output=O"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("data error: ") and done.stderr.count("\n") == 1


def test_a_set_without_a_good_sample_is_an_error(tmp_path):
    write_tar(tmp_path / "in.tar", [("a", b"", fields_of(1))])
    with pytest.raises(DataError, match="none of its 1 samples is good; the first: a: "):
        run(f"--source=webdataset:{tmp_path}/in.tar", f"--output={tmp_path}/out")
    assert not (tmp_path / "out").exists()


KINDS = {
    "bpe": ("t.json", ["<pad>", "<start>", "<end>"]),
    "wordpiece": ("t.json", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
    "sentencepiece": ("t.model", ["<pad>", "<s>", "</s>", "<unk>"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_overrides_use_the_trained_vocabulary(kind, tar, tmp_path, capsys):
    name, special = KINDS[kind]
    vocab_size = 282 if kind == "sentencepiece" else 60 if kind == "wordpiece" else 300
    command = [
        f"--source=webdataset:{tar}",
        f"--tokenizer-kind={kind}",
        f"--vocab-size={vocab_size}",
    ]
    for folder in ("a", "b"):
        run(*command, f"--train-tokenizer={tmp_path}/{folder}/{name}")
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [name]
    printed = capsys.readouterr().out.splitlines()
    assert f"first {' '.join(special)};" in printed[0]
    overrides = [flag.removeprefix("--config.").split("=", 1) for flag in shlex.split(printed[1])]
    overrides.append(["model.text.length", "32"])
    config = load_config(str(ROOT / "configs/clip_emoji.py"), overrides)
    preprocess = Preprocessor.from_config(config)
    ids, mask, truncated = preprocess.tokenizer(["Thing number 3", ""])
    assert [preprocess.tokenizer.backend.token_to_id(token) for token in special] == list(
        range(len(special))
    )
    start, end, padding = (
        special.index(getattr(config.data.text, name))
        for name in ("start_token", "end_token", "padding_token")
    )
    assert ids[1].tolist() == [start, end] + [padding] * 30
    assert ids[0, 0] == start and ids[0, mask[0].sum() - 1] == end and not truncated.any()
    assert preprocess.tokenizer.backend.decode(ids[0][mask[0]][1:-1]).split() == [
        "thing",
        "number",
        "3",
    ]


def test_a_trained_vocabulary_knows_every_text_and_is_the_same_each_time(tmp_path):
    words = ["smiling cat", "Grinning CAT", "cat face", "man’s shoe", "dog face with tears"]
    samples = [
        (f"k{n}", picture(n), {"caption": word, "keywords": ["zebra"]})
        for n, word in enumerate(words * 3)
    ]
    write_tar(tmp_path / "in.tar", samples)
    for name in ("a.json", "b.json"):
        run(
            f"--source=webdataset:{tmp_path}/in.tar",
            f"--train-tokenizer={tmp_path}/{name}",
            "--vocab-size=300",
        )
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "a.json"))
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "<start>", "<end>")] == [0, 1, 2]
    assert tokenizer.get_vocab_size() == 300
    assert tokenizer.encode("Zebra").tokens == ["Ġzebra"]  # from the keywords
    for text in ("cat", "日本 🔝 ñ", "o'clock \x00 <x>"):
        assert tokenizer.decode(tokenizer.encode(text).ids).strip() == text
    assert tokenizer.encode("  SMILING\n\tcat ").ids == tokenizer.encode("smiling cat").ids
    assert tokenizer.encode("").ids == []


def test_half_characters_in_metadata_and_in_file_names_are_no_crash(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(open_source("embedded:emoji/val_concept")[0].image)
    titles = ("whole", "cut \ud83d", "good")
    lines = [
        {"image": "a.png", "caption": "a cat", "title": title, "keywords": [title]}
        for title in titles
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert (
        prepare.main(
            [
                f"--source=jsonl:{tmp_path}/x.jsonl",
                f"--output={tmp_path}/out",
                f"--train-tokenizer={tmp_path}/t.json",
                "--vocab-size=300",
            ]
        )
        == 0
    )
    assert "train: 2 samples" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["train"][
        "skipped"
    ] == {"damaged_text": 1}
    os.makedirs(tmp_path / "classes/cats")
    (tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path / "classes/cats") + b"/\xff.png"))
    assert prepare.main([f"--source=folder:{tmp_path}/classes", f"--output={tmp_path}/more"]) == 0
    assert open_source(f"arrayrecord:{tmp_path}/more/train")[0].key == "cats/\\xff.png"
