"""What holds for the reader of every public layout, on files with the published names and
fields."""

import itertools
import json
import pickle

import numpy as np
import pytest
from layout_files import WRITERS

from vlp_jax import prepare
from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import SparesImages
from vlp_jax.data.sources.registry import LAYOUTS, open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet


@pytest.fixture(scope="module", params=WRITERS)
def spec(request, tmp_path_factory):
    return WRITERS[request.param](tmp_path_factory.mktemp("data"))


def test_every_layout_is_tested():
    assert set(LAYOUTS) == {name.partition(",")[0] for name in WRITERS}


def test_copies_and_samples_without_images_are_the_same(spec):
    source = open_source(spec)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint() == open_source(spec).fingerprint()
    assert isinstance(source, SparesImages) and copy.spec == spec
    samples = [source[index] for index in range(len(source))]
    assert len({sample.key for sample in samples}) == len(samples)
    for index, sample in enumerate(samples):
        bare = copy.without_image(index)
        assert sample.image and not bare.image
        assert (bare.key, bare.captions, bare.metadata, bare.image_file) == (
            sample.key,
            sample.captions,
            sample.metadata,
            sample.image_file,
        )
    assert source[-1] == samples[-1]
    with pytest.raises(IndexError):
        source[len(source)]


def test_it_makes_batches_for_training_and_is_an_evaluation_set(spec):
    source = open_source(spec)
    preprocessor = Preprocessor(16, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096))
    mixture = Mixture((Part("", source, TextsConfig(), len(source)),))
    rows = TrainRows(mixture, preprocessor, AugmentationConfig(), seed=3)
    batches = Batches(rows, DataConfig(batch_size=2))
    try:
        found = list(itertools.islice(batches, 2))
    finally:
        batches.close()
    assert all(batch["image"].shape[0] == 2 and not batch["reason"].any() for batch in found)
    data = EvaluationSet(source)
    assert len(list(data.pixels(preprocessor, threads=1))) == len(data) <= len(source)


def test_it_is_prepared(spec, tmp_path):
    assert prepare.main([f"--source={spec}", f"--output={tmp_path}/out", "--shards=1"]) == 0
    source, copy = open_source(spec), open_source(f"arrayrecord:{tmp_path}/out/train")
    assert len(copy) == len(source)
    for index in range(len(source)):
        assert copy[index].captions == source[index].captions
        assert copy[index].image_file == source[index].image_file
        assert set(copy[index].metadata) >= set(source[index].metadata) - {"class"}


def json_files(folder):
    return [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl")]


@pytest.mark.parametrize("writer", [name for name in WRITERS if "clip_benchmark" not in name])
@pytest.mark.parametrize("content", ["{", "[1]", "3", '{"images": [7], "annotations": []}'])
def test_other_content_is_one_clear_error(writer, content, tmp_path):
    spec = WRITERS[writer](tmp_path)
    for path in json_files(tmp_path):
        before = path.read_bytes()
        path.write_text(content)
        with pytest.raises(DataError) as caught:
            source = open_source(spec)
            source[0]
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        path.write_bytes(before)


@pytest.mark.parametrize("writer", WRITERS)
def test_an_unknown_option_is_named(writer, tmp_path):
    spec = WRITERS[writer](tmp_path)
    spec += ("&" if "?" in spec else "?") + "rot=x"
    with pytest.raises(DataError, match="unknown option 'rot'"):
        open_source(spec)


def test_images_may_not_leave_the_root(tmp_path):
    spec = WRITERS["karpathy"](tmp_path)
    path = tmp_path / "dataset_coco.json"
    path.write_text(path.read_text().replace('"val2014"', '"../.."'))
    with pytest.raises(DataError, match="lies outside of"):
        open_source(spec)[0]


def test_the_index_is_stored_and_made_again_when_another_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("vlp_jax.data.sources.index.SMALL", 0)
    spec = WRITERS["vqa"](tmp_path)
    first = open_source(spec)
    stored = list(tmp_path.glob(".*-index"))
    assert len(stored) == 1 and first.index.path == str(stored[0])
    assert open_source(spec)[0] == first[0]
    answers = tmp_path / "v2_mscoco_val2014_annotations.json"
    answers.write_text(answers.read_text().replace("netting", "mosquito net"))
    again = open_source(spec)
    assert again[0].metadata["answer"] == "mosquito net"
    assert again.fingerprint() != first.fingerprint()


def test_a_key_twice_is_refused(tmp_path):
    spec = WRITERS["karpathy"](tmp_path)
    path = tmp_path / "dataset_coco.json"
    content = json.loads(path.read_text())
    content["images"].append(content["images"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="two samples have the key 'val2014/COCO_val2014_0"):
        open_source(spec)


def test_rows_are_bytes_and_not_objects(tmp_path):
    source = open_source(WRITERS["coco_captions"](tmp_path))
    assert source.rows.data.dtype == np.uint8 and len(source.rows) == 2
