"""NLVR2, SNLI-VE and VCR: what a sample holds."""

import io
import json

import numpy as np
import pytest
from layout_files import VCR, nlvr2, picture, put_lines, snli_ve, vcr
from PIL import Image

from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_two_images_are_side_by_side_at_the_lower_height(tmp_path):
    source = open_source(nlvr2(tmp_path))
    found = pixels(source[0].image)
    left, right = picture(0, (20, 30)), picture(1, (40, 15))
    assert found.shape == (15, 10 + 40, 3)
    np.testing.assert_array_equal(found[:, 10:], pixels(right))
    small = Image.open(io.BytesIO(left)).resize((10, 15), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found[:, :10], np.asarray(small))
    assert source[0].image_file == "dev-850-0-img0.png|dev-850-0-img1.png" == source[1].image_file
    assert [sample.metadata["label"] for sample in source] == ["True", "False"]
    assert source[0].metadata["identifier"] == source[0].key == "dev-850-0-0"


@pytest.mark.parametrize("changed", ["left", "right"])
def test_training_and_evaluation_see_both_images(changed, tmp_path):
    """With resize="squash", which cuts nothing off, either image changes the pixels of its half."""
    spec, halves = nlvr2(tmp_path), []
    preprocessor = Preprocessor(
        16, ImagesConfig(resize="squash"), load_tokenizer(TextConfig(), 12, 4096)
    )
    for _ in range(2):
        data = EvaluationSet(open_source(spec))
        mixture = Mixture((Part("", data.given, TextsConfig(), len(data.given)),))
        trained = TrainRows(mixture, preprocessor, AugmentationConfig(), seed=3).row(0)["image"]
        halves.append([next(data.pixels(preprocessor, 1)), trained])
        number = ("left", "right").index(changed)
        path = tmp_path / f"dev/dev-850-0-img{number}.png"
        size = Image.open(path).size
        Image.new("RGB", size, (255, 0, 0)).save(path)
    # the left image fills 3.2 of 16 columns, and the filter reaches two columns beyond
    own, other = slice(0, 1), slice(6, 16)
    if changed == "right":
        own, other = other, own
    for before, after in zip(*halves, strict=True):
        assert (before[:, own] != after[:, own]).any()
        assert (before[:, other] == after[:, other]).all()


def test_training_images_of_nlvr2_are_in_the_directory_of_the_record(tmp_path):
    spec = nlvr2(tmp_path)
    path = tmp_path / "dev.json"
    line = json.loads(path.read_text().splitlines()[0])
    put_lines(path, [{**line, "directory": 32}])
    assert open_source(spec).without_image(0).metadata["left_image"] == "32/dev-850-0-img0.png"
    with pytest.raises(SampleError, match="'32/dev-850-0-img0.png' is missing from"):
        open_source(spec)[0]
    (tmp_path / "dev/32").mkdir()
    (tmp_path / "dev/32/dev-850-0-img0.png").write_bytes(b"no image")
    with pytest.raises(SampleError, match="dev-850-0-0: 32/dev-850-0-img0.png") as caught:
        open_source(spec)[0]
    assert caught.value.reason == Reason.DAMAGED_IMAGE


def test_entailment_s_caption_is_the_hypothesis(tmp_path):
    source = open_source(snli_ve(tmp_path))
    assert source[0].captions == ("The sisters are hugging goodbye.",)
    assert source[0].metadata == {
        "gold_label": "neutral",
        "sentence1": "Two women are embracing while holding to go packages.",
        "pairID": "4705552913.jpg#2r1n",
    }
    assert source[1].image_file == "4705552913.jpg"
    (tmp_path / "snli_ve_dev.jsonl").write_text('{"pairID": "a"}\n{"sentence2": \n')
    with pytest.raises(DataError, match="snli_ve_dev.jsonl:1: lacks the field 'Flickr30K_ID'"):
        open_source(snli_ve_spec := f"snli_ve:{tmp_path}/snli_ve_dev.jsonl")
    (tmp_path / "snli_ve_dev.jsonl").write_text('\n{"sentence2": \n')
    with pytest.raises(DataError, match="snli_ve_dev.jsonl:2: is not JSON"):
        open_source(snli_ve_spec)


def test_commonsense_names_its_objects_and_has_their_boxes(tmp_path):
    (sample,) = open_source(vcr(tmp_path))
    assert sample.captions == ("Does person 2 feel comfortable?",)
    metadata = sample.metadata
    assert metadata["answer_choices"] == [
        "Yes because the car 3 is near.",
        "No, person 1 and car 3 don't move.",
        "No.",
        "person 1 and person 2 and car 3 sleep.",
    ]
    assert metadata["answer"] == metadata["answer_choices"][metadata["answer_label"]]
    assert metadata["rationale"] == "person 1 looks away."
    assert metadata["boxes"] == [[1.5, 2, 10, 20], [0, 0, 5, 5], [8, 8, 24, 24]]
    assert metadata["objects"] == ["person", "person", "car"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ["Does", [3]]}, r"val.jsonl:1: \[3\] is no list of numbers of its objects"),
        ({"answer_label": 4}, "its answer_label is 4, and there are 4 choices"),
        ({"metadata_fn": None}, "lacks the field 'metadata_fn'"),
    ],
)
def test_a_wrong_record_of_vcr_is_named(change, message, tmp_path):
    spec = vcr(tmp_path)
    put_lines(tmp_path / "val.jsonl", [{**VCR, **change}])
    with pytest.raises(DataError, match=message):
        open_source(spec)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("lsmdc_3015/none.json", None, "is missing from"),
        ("lsmdc_3015/x.json", '{"boxes": [["a"]]}', "could not convert string to float"),
        ("../x.json", None, "lies outside of"),
    ],
)
def test_boxes_that_cannot_be_read_are_those_of_one_bad_sample(name, content, message, tmp_path):
    spec = vcr(tmp_path)
    put_lines(tmp_path / "val.jsonl", [{**VCR, "metadata_fn": name}])
    if content:
        (tmp_path / "vcr1images" / name).write_text(content)
    with pytest.raises(SampleError, match=message):
        open_source(spec)[0]


def test_a_test_split_of_vcr_has_no_answers(tmp_path):
    spec = vcr(tmp_path)
    left_out = ("answer_label", "rationale_label", "rationale_choices")
    put_lines(tmp_path / "val.jsonl", [{key: VCR[key] for key in VCR if key not in left_out}])
    assert sorted(open_source(spec)[0].metadata) == ["answer_choices", "boxes", "objects"]
