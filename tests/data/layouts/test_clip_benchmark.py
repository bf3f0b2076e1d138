"""Folders of CLIP_benchmark: the samples, class names and prompts that its own loader reads."""

import importlib
import sys
import unittest.mock

import pytest
from layout_files import CLASSES, clip_benchmark, clip_benchmark_retrieval, picture

from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError


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
        ("dataset_type.txt", "multilabel", "says 'multilabel'; sets of the types classification"),
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


@pytest.mark.full
@pytest.mark.parametrize("write", [clip_benchmark, clip_benchmark_retrieval])
def test_samples_are_those_of_clip_benchmark(write, tmp_path, monkeypatch):
    pytest.importorskip("clip_benchmark")
    pytest.importorskip("torch")
    try:
        import torchvision  # noqa: F401
    except ImportError:  # its module imports other sets of images, which this one does not use
        for name in ("", ".datasets", ".datasets.utils", ".datasets.vision", ".transforms"):
            stub = unittest.mock.MagicMock(VisionDataset=object, __path__=[])
            monkeypatch.setitem(sys.modules, f"torchvision{name}", stub)
    builder = importlib.import_module("clip_benchmark.datasets.builder")
    source = open_source(write(tmp_path))
    dataset = builder.build_wds_dataset("x", lambda image: image, "test", str(tmp_path))
    for sample, (_, target) in zip(source, dataset, strict=True):
        held = sample.metadata.get("cls")
        assert target == (list(sample.captions) if held is None else held)
    if dataset.classes:
        assert source.class_names["class"] == dataset.classes
        assert [t.replace("{}", "{c}") for t in source.templates] == dataset.templates
