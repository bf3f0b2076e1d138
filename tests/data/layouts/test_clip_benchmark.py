"""Folders of CLIP_benchmark: the samples, class names and prompts that its own loader reads."""

import importlib
import io
import sys
import unittest.mock

import numpy as np
import pytest
from layout_files import (
    CLASSES,
    LABEL_VECTORS,
    clip_benchmark,
    clip_benchmark_multilabel,
    clip_benchmark_retrieval,
    picture,
)
from PIL import Image

from vlp_jax.data.layouts.clip_benchmark import label_vector
from vlp_jax.data.samples import SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig


def test_classes_and_prompts_are_found_by_themselves(tmp_path):
    source = open_source(clip_benchmark(tmp_path))
    assert [(sample.metadata["cls"], sample.metadata["class"]) for sample in source] == [
        (number % 3, CLASSES[number % 3]) for number in range(4)
    ]
    assert source.class_names["cls"] == CLASSES
    assert source.templates == ["a photo of a {}.", "{}"]
    prompted = open_source(f"clip_benchmark:{tmp_path}?split=test&prompt=a {{}}|the {{}}")
    assert prompted[1].captions == ("a goldfish", "the goldfish")


def test_a_line_of_a_retrieval_set_is_a_caption(tmp_path):
    source = open_source(clip_benchmark_retrieval(tmp_path))
    assert [sample.captions for sample in source] == [
        (f"a cat {number}", f"a second, longer one {number}") for number in range(2)
    ]
    assert source[1].image == picture(1, image_format="JPEG")


def test_vectors_of_labels_are_lists_of_classes(tmp_path):
    vectors = [*LABEL_VECTORS, [0, 0, 0]]
    source = open_source(clip_benchmark_multilabel(tmp_path, vectors))
    for sample, vector in zip(source, vectors, strict=True):
        held = np.flatnonzero(vector).tolist()
        assert sample.metadata == {"cls": held, "class": [CLASSES[number] for number in held]}
        assert sample.captions == tuple(sample.metadata["class"])
    assert source.class_names["cls"] == CLASSES and source.templates == ["a photo of a {}."]
    (tmp_path / "classnames.txt").unlink()
    sample = open_source(f"clip_benchmark:{tmp_path}")[0]
    assert (sample.metadata, sample.captions) == ({"cls": [0, 2]}, ())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1, 0], np.int64), "has 2 numbers, and classnames.txt names 3 classes"),
        (np.array([1, 0, -1]), "holds -1, not only 0 and 1"),
        (np.array([1, 0, np.nan]), "holds nan, not only 0 and 1"),
        (np.ones((1, 3)), r"is float64 \[1, 3\], not a vector of a 0 or 1 for each class"),
        (np.array(["a", "b", "c"]), r"is <U1 \[3\], not a vector"),
        (np.array([{}, None, 1], object), "cannot be read: Object arrays cannot be loaded"),
        (b"\x93NUMPY", "cannot be read"),
        (b"", "cannot be read: No data left"),
    ],
)
def test_other_labels_are_refused_and_nothing_is_unpickled(value, message):
    file = io.BytesIO()
    if isinstance(value, np.ndarray):
        np.save(file, value, allow_pickle=True)
    data = value if isinstance(value, bytes) else file.getvalue()
    with pytest.raises(SampleError, match=message):
        label_vector("a", data, 3)


def test_ten_shards_are_in_the_order_of_their_numbers(tmp_path):
    clip_benchmark(tmp_path)
    for number in range(2, 11):
        (tmp_path / f"test/{number}.tar").write_bytes((tmp_path / "test/0.tar").read_bytes())
    (tmp_path / "test/nshards.txt").write_text("11")
    source = open_source(f"clip_benchmark:{tmp_path}")
    assert [path.rpartition("/")[2] for path in source.paths] == [f"{i}.tar" for i in range(11)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test/nshards.txt", None, "nshards.txt is missing; expected the folder of one data set"),
        ("test/nshards.txt", "many", "holds 'many', not a number of tars"),
        ("test/nshards.txt", "3", "2.tar is missing; 2 of 3 shards found"),
        ("dataset_type.txt", "regression", "says 'regression'; sets of the types classification"),
    ],
)
def test_an_incomplete_folder_is_refused(name, content, message, tmp_path):
    spec = clip_benchmark(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        open_source(spec)


@pytest.fixture
def clip_benchmarks(monkeypatch):
    """`clip_benchmarks(name)` is the module NAME of CLIP_benchmark."""
    pytest.importorskip("clip_benchmark")
    pytest.importorskip("webdataset")
    pytest.importorskip("torch")
    try:
        import torchvision  # noqa: F401
    except ImportError:  # its module imports other sets of images, which this one does not use
        for name in ("", ".datasets", ".datasets.utils", ".datasets.vision", ".transforms"):
            stub = unittest.mock.MagicMock(VisionDataset=object, __path__=[])
            monkeypatch.setitem(sys.modules, f"torchvision{name}", stub)
    return lambda name: importlib.import_module(f"clip_benchmark.{name}")


@pytest.mark.full
@pytest.mark.parametrize(
    "write", [clip_benchmark, clip_benchmark_retrieval, clip_benchmark_multilabel]
)
def test_samples_are_those_of_clip_benchmark(write, tmp_path, clip_benchmarks):
    builder = clip_benchmarks("datasets.builder")
    source = open_source(write(tmp_path))
    dataset = builder.build_wds_dataset("x", lambda image: image, "test", str(tmp_path))
    for sample, (_, target) in zip(source, dataset, strict=True):
        held = sample.metadata.get("cls")
        if isinstance(held, list):
            assert np.flatnonzero(target).tolist() == held
        else:
            assert target == (list(sample.captions) if held is None else held)
    if dataset.classes:
        assert source.class_names["class"] == dataset.classes
        assert [t.replace("{}", "{c}") for t in source.templates] == dataset.templates


class Encoder:
    """A model for CLIP_benchmark and for our task: fixed vectors of pictures and of texts."""

    def __init__(self, torch):
        self.torch = torch

    def vectors(self, seeds):
        drawn = [np.random.default_rng([*seed]).standard_normal(16) for seed in seeds]
        return np.stack([row / np.linalg.norm(row) for row in drawn]).astype(np.float32)

    def eval(self):
        return self

    def encode_image(self, pixels):
        return self.torch.from_numpy(self.vectors(pixels.numpy()[:, :, 0, 0]))

    def encode_text(self, texts):
        return self.torch.from_numpy(self.vectors(texts.numpy()))


def numbers_of(texts):
    """Texts as integers [N, 40]."""
    return np.array([[*text.ljust(40).encode()] for text in texts])


@pytest.mark.full
def test_a_folder_of_clip_benchmarks_writer_has_the_mean_average_precision_of_its_metric(
    tmp_path, clip_benchmarks
):
    torch = pytest.importorskip("torch")
    rng, size = np.random.default_rng(1), 60
    pictures = [Image.open(io.BytesIO(picture(number))) for number in range(size)]
    labels = (rng.random((size, 5)) < 0.3).astype(np.float32)
    labels[:, 4] = 0  # a class that no image has
    rows = LabelledPictures(zip(pictures, torch.from_numpy(labels), strict=True))
    writer = clip_benchmarks("webdataset_builder")
    to_bytes = writer.PIL_to_bytes("png")
    writer.convert_dataset(
        rows, "test", str(tmp_path), transform=to_bytes, image_format="png", multilabel=True
    )
    builder, metric = (
        clip_benchmarks("datasets.builder"),
        clip_benchmarks("metrics.zeroshot_classification"),
    )
    dataset = builder.build_wds_dataset(
        "x", lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1), "test", str(tmp_path)
    )
    loader = torch.utils.data.DataLoader(dataset.batched(20), batch_size=None)
    model = Encoder(torch)
    theirs = metric.evaluate(
        model,
        loader,
        lambda texts: torch.from_numpy(numbers_of(texts)),
        dataset.classes,
        dataset.templates,
        "cpu",
        amp=False,
    )
    data = EvaluationSet(open_source(f"clip_benchmark:{tmp_path}"))
    decoded = [np.array(Image.open(io.BytesIO(sample.image))) for sample in data.given]
    context = unittest.mock.MagicMock(
        data=data,
        images=model.vectors([pixels[0, 0] for pixels in decoded]),
        embed_texts=lambda texts: model.vectors(numbers_of(texts)),
    )
    task = ZeroShotTaskConfig(multi_label=True)
    task.check(context)
    ours = task.run(context)
    assert ours["classes"] == 5
    assert ours["zero_shot_mean_average_precision"] == pytest.approx(
        theirs["mean_average_precision"], abs=1e-6
    )


class LabelledPictures(list):
    """What CLIP_benchmark's writer takes."""

    classes = ("person", "bicycle", "car", "bird", "boat")
    templates = ("a photo of a {c}.", "a {c}")
