"""Class labels of Parquet by their names, other types of Arrow, and files of class names and tokens
from Windows."""

import io
import json

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.target_kinds import ClassTargetConfig
from vlp_jax.data.targets import find_targets
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.prompts import report_shared_names, zero_shot_classes
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig, zero_shot

NAMES = ["tabby cat", "dog", "great white shark", "0"]


def png(value=0):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def label(names=NAMES, **more):
    return {"names": list(names), "_type": "ClassLabel", **more}


def write(path, columns, features=None, **how):
    """With the features in the schema's metadata as `datasets` writes them
    (Features.arrow_schema)."""
    table = pyarrow.table(columns)
    if features is not None:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    parquet.write_table(table, path, **how)
    return f"parquet:{path}"


def columns(labels, **more):
    return {
        "image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(len(labels))],
        "caption": ["a"] * len(labels),
        "label": labels,
        **more,
    }


def test_class_labels_are_read_by_their_names(tmp_path):
    nested = [{"category": [1, 2], "id": 5}, {"category": [], "id": 6}, {"category": [0], "id": 7}]
    table = columns(
        [2, 0, -1], tags=[[0, 1], [], None], objects=nested, plain=[1, 2, 3], none=[None, 3, 1]
    )
    features = {
        "image": {"_type": "Image"},
        "caption": {"dtype": "string", "_type": "Value"},
        "label": label(num_classes=4),
        "tags": {"feature": label(), "_type": "Sequence"},
        "none": label(),
        "objects": {
            "category": {"feature": label(), "_type": "List"},
            "id": {"dtype": "int64", "_type": "Value"},
        },
        "plain": {"dtype": "int64", "_type": "Value"},
    }
    source = open_source(write(tmp_path / "x.parquet", table, features))
    metadata = [sample.metadata for sample in source]
    assert [row["label"] for row in metadata] == ["great white shark", "tabby cat", None]
    assert [row["tags"] for row in metadata] == [["tabby cat", "dog"], [], None]
    assert [row["objects"]["category"] for row in metadata] == [
        ["dog", "great white shark"],
        [],
        ["tabby cat"],
    ]
    assert [row["objects"]["id"] for row in metadata] == [5, 6, 7]
    assert [row["plain"] for row in metadata] == [1, 2, 3]
    assert [row["none"] for row in metadata] == [None, "0", "dog"]
    assert source.class_names == {
        "label": NAMES,
        "tags": NAMES,
        "none": NAMES,
        "objects.category": NAMES,
    }
    assert open_source(f"parquet:{tmp_path}/x.parquet?caption=label&prompt=a {{}}")[0].captions == (
        "a great white shark",
    )
    objects = {"feature": {"category": label()}, "_type": "Sequence"}
    table = columns([0], objects=[[{"category": 1}, {"category": 0}]])
    source = open_source(
        write(tmp_path / "y.parquet", table, {"label": label(), "objects": objects})
    )
    assert source[0].metadata["objects"] == [{"category": "dog"}, {"category": "tabby cat"}]
    source = open_source(
        write(tmp_path / "z.parquet", table, {"label": label(), "objects": [{"category": label()}]})
    )
    assert source[0].metadata["objects"] == [{"category": "dog"}, {"category": "tabby cat"}]


@pytest.mark.parametrize(
    "metadata",
    [
        b"{",
        b"[]",
        b'{"info": {}}',
        b'{"info": {"features": {"label": 3}}}',
        b"\xff",
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": null}}}}',
    ],
)
def test_metadata_of_a_schema_that_name_no_class_change_nothing(tmp_path, metadata):
    table = pyarrow.table(columns([1])).replace_schema_metadata({b"huggingface": metadata})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert open_source(f"parquet:{tmp_path}/x.parquet")[0].metadata == {"label": 1}


def test_zero_shot_asks_for_every_name_and_never_for_a_number(tmp_path):
    spec = write(tmp_path / "x.parquet", columns([2, 0, 1, 2]), {"label": label()})
    asked = []
    classes = zero_shot_classes(
        EvaluationSet(open_source(spec)),
        ZeroShotTaskConfig(class_field="label", templates=("a {}",)),
    )
    found = zero_shot(
        np.eye(4)[[2, 0, 1, 2]],
        classes.truth,
        classes.names,
        lambda texts: asked.extend(texts) or np.eye(4),
        classes.templates,
        classes.words,
        {},
    )
    assert asked == [f"a {name}" for name in NAMES]
    assert (found["classes"], found["zero_shot_accuracy"]) == (4, 1.0)
    write(tmp_path / "x.parquet", columns([2, 0, 1, 2]))
    data = EvaluationSet(open_source(spec))
    with pytest.raises(
        DataError,
        match=r"zero-shot classes in the metadata field 'label' "
        r"\(class_field\) are numbers, such as 0",
    ):
        zero_shot_classes(data, ZeroShotTaskConfig(class_field="label"))
    words = {str(n): (name,) for n, name in enumerate("abc")}
    named = zero_shot_classes(data, ZeroShotTaskConfig(class_field="label", class_names=words))
    assert named.words == {"0": ("a",), "1": ("b",), "2": ("c",)}


def test_a_table_of_numbers_is_no_set_of_classes_either(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "x.csv").write_text("image,caption,label,name\n0.png,a,0,cat\n1.png,b,1,dog\n")
    data = EvaluationSet(open_source(f"csv:{tmp_path}/x.csv"))
    with pytest.raises(
        DataError, match="are numbers, such as 0, and nothing names them: give class_names"
    ):
        zero_shot_classes(data, ZeroShotTaskConfig(class_field="label"))
    assert zero_shot_classes(data, ZeroShotTaskConfig(class_field="name")).names == ["cat", "dog"]


def test_targets_find_the_names_too(tmp_path):
    source = open_source(write(tmp_path / "x.parquet", columns([2, 0, 1, 2]), {"label": label()}))
    targets = find_targets({"kind": ClassTargetConfig(field="label", classes=3)}, [source])
    assert targets.classes["kind"] == ("great white shark", "dog", "tabby cat")


# Other types of Arrow

TYPES = {
    "fixed": (pyarrow.list_(pyarrow.string(), 2), [["a", "b"]], "caption"),
    "view": (pyarrow.list_view(pyarrow.string()), [["a", "b"]], "caption"),
    "large": (pyarrow.large_list(pyarrow.large_string()), [["a", "b"]], "caption"),
    "map": (
        pyarrow.map_(pyarrow.string(), pyarrow.string()),
        [[("en", "a"), ("de", "b")]],
        "caption.en|caption.de",
    ),
    "map of lists": (
        pyarrow.map_(pyarrow.string(), pyarrow.list_(pyarrow.string())),
        [[("en", ["a", "b"])]],
        "caption.en",
    ),
    "list of maps": (
        pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.string())),
        [[[("t", "a")], [("t", "b")]]],
        "caption.t",
    ),
    "struct of fixed": (
        pyarrow.struct([("t", pyarrow.list_(pyarrow.string(), 2))]),
        [{"t": ["a", "b"]}],
        "caption.t",
    ),
}


# Parquet writes no list views
@pytest.mark.parametrize("case", [case for case in TYPES if case != "view"])
def test_every_type_that_holds_texts_is_read(tmp_path, case):
    kind, values, caption = TYPES[case]
    meta = pyarrow.array([[("k", 1)]], pyarrow.map_("string", "int64"))
    table = {"image": [png()], "caption": pyarrow.array(values, kind), "meta": meta}
    sample = open_source(write(tmp_path / "x.parquet", table) + f"?caption={caption}")[0]
    assert sample.captions == ("a", "b")
    assert sample.metadata == {"meta": {"k": 1}}


IMAGES = {
    "text": ["i/0.png", "i/1.png"],
    "large text": pyarrow.array(["i/0.png", "i/1.png"], pyarrow.large_string()),
    "dictionary": pyarrow.array(["i/0.png", "i/1.png"]).dictionary_encode(),
    "no bytes": pyarrow.array(
        [{"bytes": None, "path": f"i/{n}.png"} for n in range(2)],
        pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
    ),
    "path alone": [{"path": "i/0.png"}, {"path": "i/1.png"}],
    "some bytes": [{"bytes": None, "path": "i/0.png"}, {"bytes": png(1), "path": "elsewhere.png"}],
}


@pytest.mark.parametrize("case", IMAGES)
def test_images_may_be_named_by_their_paths(tmp_path, case):
    for folder in (tmp_path, tmp_path / "pictures"):
        (folder / "i").mkdir(parents=True)
        for number in range(2):
            (folder / f"i/{number}.png").write_bytes(png(number))
    table = {"image": IMAGES[case], "caption": ["a", "b"]}
    spec = write(tmp_path / "x.parquet", table)
    assert [sample.image for sample in open_source(spec)] == [png(0), png(1)]
    (tmp_path / "i/0.png").unlink()
    with pytest.raises(SampleError, match=r"'i/0.png' is missing from .*\?root=FOLDER") as caught:
        open_source(spec)[0]
    assert caught.value.reason == Reason.MISSING_IMAGE
    assert open_source(f"{spec}?root={tmp_path}/pictures")[0].image == png(0)


# Files of lines


@pytest.mark.parametrize(
    "content", ["cat\ndog\n\u2028x y\n", "cat\r\ndog\r\n\u2028x y\r\n", "\ufeffcat\ndog\n\u2028x y"]
)
def test_class_files_may_come_from_windows(tmp_path, content):
    (tmp_path / "classes.txt").write_bytes(content.encode())
    spec = ClassTargetConfig(field="label", classes=3, file=str(tmp_path / "classes.txt"))
    assert spec.named_classes("label") == ("cat", "dog", "\u2028x y")


def test_vocabularies_may_come_from_windows(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s"]
    ids = []
    for name, content in (
        ("a", "\n".join(words)),
        ("b", "\r\n".join([*words, ""])),
        ("c", "\ufeff" + "\r\n".join(words)),
    ):
        (tmp_path / f"{name}.txt").write_bytes(content.encode())
        spec = TextConfig(
            tokenizer=str(tmp_path / f"{name}.txt"),
            start_token="[CLS]",
            end_token="[SEP]",
            padding_token="[PAD]",
        )
        ids.append(load_tokenizer(spec, 8, len(words))(["a cats"])[0].tolist())
    assert ids == [[[2, 5, 6, 7, 3, 0, 0, 0]]] * 3


def test_a_map_with_a_key_twice_is_refused_as_captions_and_kept_as_metadata(tmp_path, recwarn):
    maps = pyarrow.array(
        [[("en", "a"), ("de", "b")], [("en", "c"), ("en", "d")]],
        pyarrow.map_(pyarrow.string(), pyarrow.string()),
    )
    spec = write(tmp_path / "x.parquet", {**columns([0, 1]), "texts": maps})
    source = open_source(f"{spec}?caption=texts.en")
    assert source[0].captions == ("a",)
    with pytest.raises(SampleError, match="its texts is a map that has a key twice") as caught:
        source[1]
    assert caught.value.reason == Reason.DAMAGED_TEXT
    assert open_source(spec)[1].metadata["texts"] == [["en", "c"], ["en", "d"]]
    assert not recwarn.list


def test_a_column_that_is_no_text_is_refused_and_a_dot_is_advised_where_it_helps(tmp_path):
    spec = write(tmp_path / "x.parquet", {**columns([0, 1]), "fields": [{"en": "a"}] * 2})
    with pytest.raises(DataError, match="expected text or lists of it$"):
        open_source(f"{spec}?caption=label")
    with pytest.raises(DataError, match=r"\?caption=fields.NAME"):
        open_source(f"{spec}?caption=fields")


def test_classes_that_share_a_name_are_reported(tmp_path, capsys):
    features = {"label": label(["crane", "dog", "crane"])}
    spec = write(tmp_path / "x.parquet", columns([0, 1, 2]), features)
    report_shared_names(
        EvaluationSet(open_source(spec)), "label", "evaluators.val.tasks.zero_shot."
    )
    said = (
        "its 3 classes have 2 names: those called 'crane' count as one "
        "(evaluators.val.tasks.zero_shot.class_field)"
    )
    assert said in capsys.readouterr().err
    spec = write(tmp_path / "y.parquet", columns([0, 1, 1]), {"label": label(["crane", "dog"])})
    report_shared_names(
        EvaluationSet(open_source(spec)), "label", "evaluators.val.tasks.zero_shot."
    )
    assert not capsys.readouterr().err
