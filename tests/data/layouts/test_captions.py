"""Karpathy's splits, COCO's captions (beside pycocotools) and the token files and tables of
Flickr."""

import pytest
from layout_files import (
    COCO_CAPTIONS,
    coco_captions,
    flickr_csv,
    flickr_token,
    karpathy,
    put_images,
)

from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet


def test_a_karpathy_split_has_all_captions_of_each_image(tmp_path):
    spec = karpathy(tmp_path)
    assert [sample.metadata["split"] for sample in open_source(spec)] == [
        "test",
        "restval",
        "train",
        "test",
    ]
    train = open_source(f"{spec}&split=train|restval")
    assert [sample.key for sample in train] == [
        "val2014/COCO_val2014_000000000073.jpg",
        "val2014/COCO_val2014_000000000074.jpg",
    ]
    sample = open_source(f"{spec}&split=test")[1]
    assert sample.captions == ("A cat number 133.", "It is 133.")
    assert sample.metadata == {"split": "test", "imgid": 3, "cocoid": 133}
    with pytest.raises(DataError, match="no split 'dev'; splits: restval, test, train"):
        open_source(f"{spec}&split=dev")


def test_coco_captions_are_those_of_pycocotools(tmp_path, capsys):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    source = open_source(coco_captions(tmp_path))
    reference = COCO(f"{tmp_path}/captions_val2017.json")
    assert len(source) == 2 and source.left_out == {"images without a caption": 1}
    for sample in source:
        number = sample.metadata["image_id"]
        rows = reference.loadAnns(reference.getAnnIds([number]))
        assert sample.captions == tuple(row["caption"].strip() for row in rows)
        assert sample.key == reference.loadImgs([number])[0]["file_name"]
    assert "left out: 1 images without a caption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("caption", None, "captions_val2017.json: annotations[1]: lacks the field 'caption' (fi"),
        ("caption", 3, "annotations[1]: its caption is int, not a text"),
        ("image_id", 1, "a caption is of image 1, which images does not list"),
    ],
)
def test_a_wrong_record_is_named(field, value, message, tmp_path, monkeypatch):
    monkeypatch.setitem(COCO_CAPTIONS["annotations"][1], field, value)
    with pytest.raises(DataError) as caught:
        open_source(coco_captions(tmp_path))
    assert message in str(caught.value)


def test_token_files_of_flickr_and_their_lists_of_images(tmp_path):
    spec = flickr_token(tmp_path)
    assert [(sample.key, len(sample.captions)) for sample in open_source(spec)] == [
        ("1000268201_693b08cb0e.jpg", 2),
        ("1001773457_577c3a7d70.jpg", 1),
    ]
    (tmp_path / "test.txt").write_text("1001773457_577c3a7d70.jpg\n")
    (sample,) = open_source(f"{spec}&images=test.txt")
    assert sample.captions == ("A black dog and a spotted dog are fighting",)
    for lines, message in (("x.jpg\n", "names x.jpg, which has no caption"), ("", "no sample in")):
        (tmp_path / "test.txt").write_text(lines)
        with pytest.raises(DataError, match=message):
            open_source(f"{spec}&images=test.txt")
    (tmp_path / "Flickr8k.token.txt").write_text("image,caption\n")
    with pytest.raises(DataError, match="token.txt:1: 'image,caption' is not IMAGE#NUMBER"):
        open_source(spec)


@pytest.mark.parametrize(
    ("name", "header", "rows", "options"),
    [
        (
            "results.csv",
            "image_name| comment_number| comment",
            ["1.jpg| 0| Two men .", "1.jpg| 1| Two friends , outside .", '2.jpg| 0| A "dog" .'],
            "delimiter=|&image=image_name&caption=comment&",
        ),
        (
            "captions.txt",
            "image,caption",
            ["1.jpg,Two men .", '1.jpg,"Two friends , outside ."', '2.jpg,"A ""dog"" ."'],
            "",
        ),
    ],
)
def test_the_published_tables_of_flickr_are_read_as_csv(name, header, rows, options, tmp_path):
    flickr_csv(tmp_path / name, header, rows)
    put_images(tmp_path / "images", ["1.jpg", "2.jpg"])
    data = EvaluationSet(open_source(f"csv:{tmp_path}/{name}?{options}root=images"))
    captions = [[data.captions[i] for i in row] for row in data.captions_of_image]
    assert captions == [["Two men .", "Two friends , outside ."], ['A "dog" .']]
