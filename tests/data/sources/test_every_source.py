"""The same 64 samples in every format, written by the format's own library: the same bytes,
captions and batches."""

import csv
import dataclasses
import io
import itertools
import json
import pathlib
import pickle
import shlex
import tarfile
import textwrap

import jax
import numpy as np
import pytest

from vlp_jax import main, prepare
from vlp_jax.command_line import split_overrides
from vlp_jax.config import base, load_config, to_config
from vlp_jax.data.config import DataConfig, TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part, open_mixture
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import SparesImages
from vlp_jax.data.sources.filesystem import read_file, read_range
from vlp_jax.data.sources.registry import KINDS, LAYOUTS, open_source
from vlp_jax.data.subsample import evenly_spaced_samples
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.training.build import build_run
from vlp_jax.training.state import fingerprint

ROOT = pathlib.Path(__file__).parents[3]
COUNT, BATCH = 64, 16
SYNTHETIC = f"synthetic:{COUNT}?height=72&width=96&caption_words=3"
SAMPLES = [(sample.image, sample.captions[0]) for sample in open_source(SYNTHETIC)]


def cut(parts):
    """The samples in `parts` lists that differ in length, with their numbers."""
    edges = [COUNT * part * part // (parts * parts) for part in range(parts + 1)]
    return [list(enumerate(SAMPLES))[first:last] for first, last in itertools.pairwise(edges)]


def webdataset_tars(folder):
    webdataset = pytest.importorskip("webdataset")
    for shard, samples in enumerate(cut(3)):
        with webdataset.TarWriter(f"{folder}/part-{shard}.tar") as tar:
            for number, (image, caption) in samples:
                tar.write({"__key__": f"s{number:03d}", "jpg": image, "txt": caption})
    return f"webdataset:{folder}/part-{{0..2}}.tar"


def tfds_folder(folder):
    """Written by TFDS's own classes, but for the images, which they would encode with
    TensorFlow."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import dataset_info, naming, splits
    from tensorflow_datasets.proto import tf_example_pb2

    features = tfds.features.FeaturesDict(
        {
            "picture": tfds.features.Image(encoding_format="jpeg"),
            "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()}),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "mask": tfds.features.Image(encoding_format="png"),
        }
    )
    template = naming.ShardedFileTemplate(
        data_dir=folder, dataset_name="mine", split="train", filetype_suffix="array_record"
    )
    lengths = []
    for shard, samples in enumerate(cut(2)):
        writer = ArrayRecordWriter(
            str(template.sharded_filepath(shard_index=shard, num_shards=2)), "group_size:1"
        )
        for number, (image, caption) in samples:
            record = tf_example_pb2.Example()
            for name, value in (
                ("picture", image),
                ("captions/text", caption.encode()),
                ("mask", b"undecoded"),
            ):
                record.features.feature[name].bytes_list.value.append(value)
            for name, value in (("captions/id", number), ("label", number % 2)):
                record.features.feature[name].int64_list.value.append(value)
            writer.write(record.SerializeToString())
        writer.close()
        lengths.append(len(samples))
    identity = dataset_info.DatasetIdentity(
        name="mine", version="1.0.0", data_dir=folder, module_name="mine"
    )
    info = dataset_info.DatasetInfo(builder=identity, features=features)
    info.set_file_format("array_record")
    split = splits.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=1, filename_template=template
    )
    info.set_splits(splits.SplitDict([split]))
    info.write_to_directory(folder)
    return f"tfds:{folder}/train?image=picture&caption=captions.text"


def parquet_files(folder, image_column="image", as_struct=False):
    """A struct with the metadata of Hugging Face's `datasets`, or plain bytes; row groups of 5."""
    import pyarrow
    from pyarrow import parquet

    for shard, samples in enumerate(cut(3)):
        images = [
            {"bytes": image, "path": f"{number}.jpg"} if as_struct else image
            for number, (image, _) in samples
        ]
        table = pyarrow.table(
            {image_column: images, "caption": [caption for _, (_, caption) in samples]}
        )
        if as_struct:
            table = table.replace_schema_metadata(
                {
                    "huggingface": json.dumps(
                        {
                            "info": {
                                "features": {
                                    image_column: {"_type": "Image"},
                                    "caption": {"dtype": "string", "_type": "Value"},
                                }
                            }
                        }
                    )
                }
            )
        parquet.write_table(table, f"{folder}/train-{shard:05d}-of-00003.parquet", row_group_size=5)
    return f"parquet:{folder}/*.parquet"


def image_files(folder):
    (folder / "images").mkdir()
    for number, (image, _) in enumerate(SAMPLES):
        (folder / f"images/{number}.jpg").write_bytes(image)


def jsonl_files(folder):
    image_files(folder)
    for shard, samples in enumerate(cut(2)):
        lines = [
            json.dumps({"image": f"images/{number}.jpg", "caption": [caption]})
            for number, (_, caption) in samples
        ]
        (folder / f"part-{shard}.jsonl").write_text("\n".join(lines))
    return f"jsonl:{folder}/part-?.jsonl"


def csv_files(folder):
    image_files(folder)
    for shard, samples in enumerate(cut(2)):
        with open(folder / f"part-{shard}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerows(
                [
                    ["title", "filepath"],
                    *([caption, f"images/{number}.jpg"] for number, (_, caption) in samples),
                ]
            )
    return f"csv:{folder}/part-{{0,1}}.csv?image=filepath&caption=title"


def class_folders(folder):
    for image, caption in SAMPLES:
        (folder / caption).mkdir()
        (folder / caption / "0.jpg").write_bytes(image)
    return f"folder:{folder}"


def prepared(folder):
    prepare.main([f"--source={SYNTHETIC}", f"--output={folder}/out", "--shards=3"])
    return f"{folder}/out/train"


def in_memory(write):
    """Writes files and moves them to fsspec's memory file system."""

    def moved(folder):
        import fsspec

        spec = write(folder)
        memory = fsspec.filesystem("memory")
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                memory.pipe_file(str(path), path.read_bytes())
                path.unlink()
        return spec.replace(str(folder), f"memory:/{folder}")

    return moved


WRITERS = {
    "webdataset": webdataset_tars,
    "arrayrecord": lambda folder: f"arrayrecord:{prepared(folder)}",
    "tfds": tfds_folder,
    "tfds, from prepare": lambda folder: f"tfds:{prepared(folder)}",
    "parquet": parquet_files,
    "parquet, struct": lambda folder: parquet_files(folder, "jpg", True) + "?image=jpg",
    "jsonl": jsonl_files,
    "csv": csv_files,
    "folder": class_folders,
    "synthetic": lambda folder: SYNTHETIC,
    "webdataset, remote": in_memory(webdataset_tars),
    "parquet, remote": in_memory(parquet_files),
    "jsonl, remote": in_memory(jsonl_files),
    "csv, remote": in_memory(csv_files),
}


@pytest.fixture(scope="module", params=WRITERS)
def spec(request, tmp_path_factory):
    return WRITERS[request.param](tmp_path_factory.mktemp("data"))


def first_batches(source, count, **data):
    preprocessor = Preprocessor(16, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096))
    mixture = Mixture((Part("", source, TextsConfig(), len(source)),))
    rows = TrainRows(
        mixture, preprocessor, AugmentationConfig(scale=(0.5, 1.0), flip=0.5, hue=0.1), seed=3
    )
    batches = Batches(rows, DataConfig(batch_size=BATCH, **data))
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


@pytest.fixture(scope="module")
def expected_batches():
    return first_batches(open_source(SYNTHETIC), 5)


def test_every_kind_is_tested():
    kinds = set(KINDS) - set(LAYOUTS) - {"embedded"}  # layouts: tests/data/layouts
    assert kinds == {name.partition(",")[0] for name in WRITERS}


def test_the_samples_are_the_ones_that_were_written(spec):
    source = open_source(spec)
    assert len(source) == COUNT
    for index in np.random.default_rng(0).permutation(COUNT):
        assert (source[index].image, source[index].captions) == (
            SAMPLES[index][0],
            (SAMPLES[index][1],),
        )
    assert source[-1].image == SAMPLES[-1][0]
    assert len({sample.key for sample in source}) == COUNT
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            source[index]


def test_samples_are_given_without_reading_images_that_are_files_columns_or_members(
    spec, monkeypatch
):
    source, read = open_source(spec), []
    samples = [source[i] for i in range(COUNT)]
    assert isinstance(source, SparesImages) == (
        spec.partition(":")[0] in ("webdataset", "parquet", "jsonl", "csv", "folder")
    )
    if not isinstance(source, SparesImages):
        assert list(evenly_spaced_samples([source], COUNT)) == samples
        return

    def counted(function):
        return lambda *given: read.append(function(*given)) or read[-1]

    monkeypatch.setattr("vlp_jax.data.sources.columns.read_file", counted(read_file))
    monkeypatch.setattr("vlp_jax.data.sources.member_checks.read_range", counted(read_range))
    fresh = pickle.loads(pickle.dumps(source))
    assert list(evenly_spaced_samples([fresh], COUNT)) == [
        dataclasses.replace(sample, image=b"") for sample in samples
    ]
    size = sum(map(len, read)) + sum(table.nbytes for table in getattr(fresh, "_kept", {}).values())
    assert size < sum(len(sample.image) for sample in samples) / 4


def test_the_batches_of_every_source_are_the_same(spec, expected_batches):
    for found, expected in zip(
        first_batches(open_source(spec), 5, threads=4), expected_batches, strict=True
    ):
        assert not found["reason"].any()
        for name in set(expected) - {"key"}:  # every kind names its samples in its own way
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_copy_is_the_same_source(spec):
    source = open_source(spec)
    source[5]
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint() == open_source(spec).fingerprint()
    assert (copy.spec, copy[7], copy[-1]) == (spec, source[7], source[-1])


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in WRITERS
        if name.partition(",")[0] in ("webdataset", "parquet", "jsonl", "csv")
    ],
)
def test_a_file_of_a_brace_pattern_that_is_not_there_is_named(name, tmp_path):
    spec = WRITERS[name](tmp_path)
    pattern, question, options = spec.partition("?image") if "?image" in spec else (spec, "", "")
    folder, _, files = pattern.rpartition("/")
    ending = files.rpartition(".")[2]
    missing = f"{folder}/{{part-0,part-9,train-00000-of-00003}}.{ending}{question}{options}"
    with pytest.raises(DataError) as caught:
        open_source(missing)
    assert (
        f"part-{0 if ending == 'parquet' else 9}.{ending} is missing; 1 of 3 shards found"
    ) in str(caught.value)


@pytest.fixture(scope="module")
def two_steps(tiny):
    """Trains two steps from a source: the losses and a fingerprint of the parameters."""
    flags = tiny("steps=2", f"data.batch_size={BATCH}", f"data.train.source={SYNTHETIC}")
    _, overrides = split_overrides(flags)
    run = build_run(load_config(f"{ROOT}/configs/clip_emoji.py:smoke", overrides))
    start = jax.device_get(run.initial_state())

    def train(spec):
        batches = dataclasses.replace(
            run, mixture=open_mixture(TrainSourceConfig(source=spec))
        ).batches(0)
        state, losses = jax.device_put(start, run.shardings), []
        for batch in itertools.islice(batches, 2):
            assert not batch["reason"].any()
            state, metrics = run.train_step(state, run.to_device(batch))
            losses.append(float(metrics["loss"]))
        batches.close()
        return losses, int(fingerprint(state.params))

    return train


@pytest.fixture(scope="module")
def expected_steps(two_steps):
    return two_steps(SYNTHETIC)


@pytest.mark.full
def test_two_steps_of_training_are_the_same_from_every_source(spec, two_steps, expected_steps):
    losses, parameters = two_steps(spec)
    assert (losses, parameters) == expected_steps
    assert losses[0] != losses[1]


# The commands of docs/data.md

PLACES = {  # kind: (who writes it, the folder that the page names)
    "webdataset": ("webdataset", "/data/tars"),
    "parquet": ("parquet, struct", "/data/parquet"),
    "jsonl": ("jsonl", "/data/jsonl"),
    "csv": ("csv", "/data/csv"),
    "folder": ("folder", "/data/classes"),
    "tfds": ("tfds", "/data/mine/1.0.0"),
    "arrayrecord": ("arrayrecord", "/data/prepared"),
    "synthetic": ("synthetic", None),
    "embedded": (None, None),
}


def documented_commands(entry_point):
    """The arguments of every command of an entry point in docs/data.md, section "Your data"."""
    section = (ROOT / "docs/data.md").read_text().split("## Your data")[1].split("\n## ")[0]
    lines = section.replace("\\\n", " ").splitlines()
    return [
        shlex.split(line)[3:]
        for line in lines
        if line.startswith(f"    python -m vlp_jax.{entry_point} ")
    ]


def train_commands():
    """By kind of source, which is in the last argument."""
    return {
        words[-1].split("source=")[1].partition(":")[0]: words
        for words in documented_commands("main")
    }


def test_the_documentation_has_a_command_for_every_kind():
    assert set(train_commands()) == set(KINDS) - set(LAYOUTS) == set(PLACES)


def test_the_documentation_has_a_spec_of_every_public_layout():
    page = (ROOT / "docs/data.md").read_text()
    assert [kind for kind in LAYOUTS if f"| `{kind}:" not in page] == []


@pytest.mark.full
@pytest.mark.parametrize("kind", PLACES)
def test_the_documented_command_trains(kind, tmp_path, tiny):
    writer, place = PLACES[kind]
    words = train_commands()[kind]
    if place:
        spec = WRITERS[writer](tmp_path)
        words = [
            word.replace(place, str(tmp_path / "out" if kind == "arrayrecord" else tmp_path))
            for word in words
        ]
        assert (
            open_source(spec).fingerprint()
            == open_source(words[-1].partition("=")[2]).fingerprint()
        )
    config, workdir, source = words
    assert (
        main.main(
            [
                config.replace("configs/clip_emoji.py", f"{ROOT}/configs/clip_emoji.py:smoke"),
                f"--workdir={tmp_path}/{workdir.partition('=')[2]}",
                source,
                *tiny("steps=2"),
            ]
        )
        == 0
    )
    rows = [
        json.loads(line) for line in next(tmp_path.rglob("metrics.jsonl")).read_text().splitlines()
    ]
    assert [row["train/bad_examples"] for row in rows] == [0, 0]


def test_the_documented_prepare_commands_work(tmp_path, monkeypatch):
    (tmp_path / "tars").mkdir()
    (tmp_path / "jsonl").mkdir()
    webdataset_tars(tmp_path / "tars")
    jsonl_files(tmp_path / "jsonl")
    monkeypatch.chdir(tmp_path)
    for words in documented_commands("prepare"):
        words = [word.replace("/data/", f"{tmp_path}/").replace("=32000", "=300") for word in words]
        assert prepare.main(words) == 0
    assert len(open_source(f"arrayrecord:{tmp_path}/prepared/train")) == COUNT
    assert (tmp_path / "captions.model").stat().st_size


def test_the_documented_mixture_is_one(tmp_path):
    """Its lines, run unchanged, on a tar with both fields and a folder of one class."""
    lines = (ROOT / "docs/data.md").read_text().split("**Several sources**")[1].split("\n\n")[1]
    config = base()
    exec(textwrap.dedent(lines), {"config": config})
    mixture = config.data.train.mixture.to_dict()
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for ending, data in (
            ("jpg", SAMPLES[0][0]),
            ("json", b'{"alt": "a", "synthetic": "made up", "caption": "neither"}'),
        ):
            info = tarfile.TarInfo(f"s.{ending}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "birds/owl").mkdir(parents=True)
    (tmp_path / "birds/owl/1.jpg").write_bytes(SAMPLES[1][0])
    for part in mixture.values():
        part["source"] = (
            part["source"]
            .replace("/data/web/{00000..00331}", f"{tmp_path}/00000")
            .replace("/data", str(tmp_path))
        )
    tree = config.to_dict() | {"steps": 1, "objectives": {"contrastive": {"kind": "clip"}}}
    tree["data"]["train"]["mixture"] = mixture
    opened = open_mixture(to_config(tree).data.train)
    preprocessor = Preprocessor(16, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096))
    drawn = {
        row["text"]
        for row in map(TrainRows(opened, preprocessor, AugmentationConfig(), 0).row, range(200))
    }
    assert drawn == {"a", "made up", "a photo of a owl", "owl, a bird"}


def test_a_tar_made_by_hand_is_read_like_the_library_s(tmp_path):
    """Without a .txt: the caption stands in the .json beside other fields."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for ending, data in (
            ("jpg", SAMPLES[0][0]),
            ("json", json.dumps({"caption": SAMPLES[0][1], "url": "u"}).encode()),
        ):
            info = tarfile.TarInfo(f"s.{ending}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    sample = open_source(f"webdataset:{tmp_path}/x.tar")[0]
    assert (sample.image, sample.captions, sample.metadata) == (
        *SAMPLES[0][:1],
        SAMPLES[0][1:],
        {"url": "u"},
    )
