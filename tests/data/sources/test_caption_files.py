"""COCO's captions and Karpathy's splits: named where they are taken for JSON lines, and
converted."""

import json
import shlex
import shutil
import subprocess

import pytest

from vlp_jax import prepare
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet

COCO = {
    "info": {"year": 2014},
    "licenses": [],
    "images": [
        {"id": 9, "file_name": "b.jpg", "height": 4},
        {"id": 7, "file_name": "a.jpg"},
        {"id": 8, "file_name": "none.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a one"},
        {"id": 2, "image_id": 9, "caption": "b one "},
        {"id": 3, "image_id": 7, "caption": "ä two"},
    ],
}
KARPATHY = {
    "images": [
        {
            "filepath": "val",
            "filename": "b.jpg",
            "split": "test",
            "imgid": 0,
            "sentences": [{"raw": "b one", "tokens": ["b"]}],
        },
        {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a one"}, {"raw": "ä two"}]},
    ],
    "dataset": "flickr30k",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("pictures/a.jpg", "pictures/b.jpg", "pictures/val/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "name"), [(COCO, "COCO captions"), (KARPATHY, "a Karpathy split")]
)
@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"indent": "\t", "ensure_ascii": False}])
@pytest.mark.parametrize("order", ["as is", "reversed"])
def test_they_are_named_and_the_command_in_the_message_makes_lines_that_are_read(
    folder, content, name, layout, order
):
    content = dict(reversed(content.items())) if order == "reversed" else content
    (folder / "my captions.json").write_text(json.dumps(content, **layout))
    with pytest.raises(DataError) as caught:
        open_source(f"jsonl:{folder}/my captions.json")
    message = str(caught.value)
    assert f"my captions.json: is {name}" in message and "\n" not in message
    command = shlex.split(message.split("python -m vlp_jax.prepare ")[1].split(", then read")[0])
    assert prepare.main(command) == 0
    assert "jsonl:'my captions.jsonl'?root=FOLDER" in message
    data = EvaluationSet(open_source("jsonl:my captions.jsonl?root=pictures"))
    assert data.source[0].captions == ("b one",)
    assert data.source[0].image == (
        b"pictures/b.jpg" if content["images"][0].get("id") else b"pictures/val/b.jpg"
    )
    assert len(data) == (2 if name == "COCO captions" else 1)  # the command takes the split test


def test_all_splits_are_taken_where_none_is_named_and_a_wrong_one_is_refused(folder, capsys):
    (folder / "k.json").write_text(json.dumps(KARPATHY))
    prepare.main(["--convert=k.json", "--output=k.jsonl"])
    assert [(s.captions, s.metadata) for s in open_source("jsonl:k.jsonl?root=pictures")] == [
        (("b one",), {"split": "test"}),
        (("a one", "ä two"), {"split": "train"}),
    ]
    for words, message in (
        (["--convert=k.json", "--output=k.jsonl"], "k.jsonl exists"),
        (
            ["--convert=k.json", "--output=x.jsonl", "--split=dev"],
            "no split 'dev'; splits: test, train",
        ),
        (["--convert=k.json"], "--convert=FILE goes with --output"),
        (["--convert=k.jsonl", "--output=x.jsonl"], "is not JSON"),
        (["--convert=nowhere.json", "--output=x.jsonl"], "no such file"),
    ):
        with pytest.raises((ConfigError, DataError)) as caught:
            prepare.main(words)
        assert message in str(caught.value)
    for content, message in (
        (
            {"images": [{"file_name": "a"}], "annotations": [{"image_id": 1}]},
            "lacks a field: 'caption'",
        ),
        ([1], "is neither COCO captions"),
        ({"images": []}, "is neither COCO captions"),
        (COCO | {"annotations": []}, "none of its images has a caption"),
    ):
        (folder / "c.json").write_text(json.dumps(content))
        with pytest.raises((ConfigError, DataError)) as caught:
            prepare.main(["--convert=c.json", "--output=x.jsonl"])
        assert message in str(caught.value)
        assert not (folder / "x.jsonl").exists()


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_coco_is_converted_as_jq_groups_it(folder):
    (folder / "c.json").write_text(json.dumps(COCO))
    prepare.main(["--convert=c.json", "--output=c.jsonl"])
    program = (
        "(.annotations | group_by(.image_id) | map({key: (.[0].image_id | tostring), "
        "value: map(.caption)}) "
        "| from_entries) as $c | .images[] | select($c[.id | tostring]) "
        "| {image: .file_name, caption: $c[.id | tostring], id: .id}"
    )
    expected = subprocess.run(
        ["jq", "-c", program, "c.json"], capture_output=True, text=True, check=True
    ).stdout
    found = (folder / "c.jsonl").read_text()
    assert [json.loads(line) for line in found.splitlines()] == [
        json.loads(line) for line in expected.splitlines()
    ]


@pytest.mark.parametrize(
    "line",
    [
        {"image": "a.jpg", "caption": "a", "images": ["x"], "annotations": []},
        {"image": "a.jpg", "caption": "a", "images": [{"url": "x"}], "annotations": [{"id": 1}]},
        {"image": "a.jpg", "caption": ["images", "annotations", "file_name"]},
    ],
)
def test_lines_with_such_fields_are_still_lines(folder, line):
    (folder / "x.jsonl").write_text(json.dumps(line) + "\n")
    assert len(open_source(f"jsonl:{folder}/x.jsonl?root=pictures")[0].captions) in (1, 3)


def test_objects_over_several_lines_are_refused_with_a_way_out(folder):
    (folder / "x.jsonl").write_text(json.dumps({"image": "a.jpg", "caption": "a"}, indent=2))
    with pytest.raises(
        DataError, match="is JSON objects over several lines; write an object a line .jq -c . does"
    ):
        open_source(f"jsonl:{folder}/x.jsonl")
