"""ImageNet's folders and labels."""

import numpy as np
import pytest
import scipy.io
from layout_files import imagenet, put_images

from vlp_jax.data.samples import NamesClasses
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError


def test_classes_are_numbered_by_their_wordnet_ids_and_named(tmp_path):
    source = open_source(imagenet(tmp_path))
    assert isinstance(source, NamesClasses)
    assert source.class_names["class"] == source.class_names["cls"] == ["tench", "goldfish"]
    assert [sample.metadata["cls"] for sample in source] == [0, 0, 1, 1]
    goldfish = next(s for s in source if s.key == "n01443537/n01443537_18.JPEG")
    assert goldfish.captions == ("goldfish",)
    assert goldfish.metadata == {"class": "goldfish", "cls": 1, "wnid": "n01443537"}


def test_labels_of_kaggle(tmp_path):
    imagenet(tmp_path)
    source = open_source(f"imagenet:{tmp_path}?split=val&prompt=a {{}}|the {{}}")
    assert [sample.metadata["wnid"] for sample in source] == ["n01443537", "n01440764", "n01440764"]
    assert source[0].captions == ("a goldfish", "the goldfish")
    assert source.class_names["class"] == ["tench", "goldfish"]
    put_images(tmp_path / "val", ["ILSVRC2012_val_00000004.JPEG"])
    with pytest.raises(DataError, match="gives ILSVRC2012_val_00000004.JPEG the class None"):
        open_source(f"imagenet:{tmp_path}?split=val")


def test_labels_of_the_development_kit_are_numbers_of_its_own_order(tmp_path):
    imagenet(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match="and their labels are missing: LOC_val_solution.csv, or"):
        open_source(f"imagenet:{tmp_path}?split=val")
    kit = tmp_path / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    rows = [(1, "n01443537", "goldfish"), (2, "n01440764", "tench"), (3, "n00001740", "entity")]
    scipy.io.savemat(kit / "meta.mat", {"synsets": np.array(rows, fields).reshape(-1, 1)})
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n1\n")
    source = open_source(f"imagenet:{tmp_path}?split=val")
    assert [sample.metadata["class"] for sample in source] == ["tench", "goldfish", "goldfish"]
    truth.write_text("2\n1\n")
    with pytest.raises(DataError, match="has 2 lines, and there are 3 images"):
        open_source(f"imagenet:{tmp_path}?split=val")
    truth.write_text("2\n1\n9\n")
    with pytest.raises(DataError, match="has a line that is no class of meta.mat: 9"):
        open_source(f"imagenet:{tmp_path}?split=val")


def test_without_a_mapping_the_names_are_those_of_classnames_or_the_ids(tmp_path):
    imagenet(tmp_path)
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    assert open_source(f"imagenet:{tmp_path}").class_names["class"] == ["n01440764", "n01443537"]
    (tmp_path / "classnames.txt").write_text("a tench\na goldfish\n")
    assert open_source(f"imagenet:{tmp_path}").class_names["cls"] == ["a tench", "a goldfish"]
    (tmp_path / "classnames.txt").write_text("a tench\n")
    with pytest.raises(DataError, match="classnames.txt names 1 classes, and there are 2"):
        open_source(f"imagenet:{tmp_path}")


def test_all_thousand_classes_have_the_names_of_clip(tmp_path):
    wnids = ["n01440764", *(f"n0200{number:04}" for number in range(998)), "n15075141"]
    lines = [f"{wnid} word {number}, other" for number, wnid in enumerate(wnids)]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    put_images(tmp_path / "val", ["n15075141/ILSVRC2012_val_00000001.JPEG"])
    (sample,) = open_source(f"imagenet:{tmp_path}?split=val")
    assert sample.metadata == {"class": "toilet paper", "cls": 999, "wnid": "n15075141"}


def test_a_missing_split_is_named(tmp_path):
    imagenet(tmp_path)
    with pytest.raises(DataError, match="test is no folder .folders: train, val"):
        open_source(f"imagenet:{tmp_path}?split=test")
