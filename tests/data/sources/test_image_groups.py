"""Rows that name one image: one picture with several captions in evaluation, positives of each
other in training."""

import csv
import io
import json

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from vlp_jax import prepare
from vlp_jax.data.config import TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import open_mixture
from vlp_jax.data.pipeline import TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.retrieval import retrieval

IMAGES, WAYS = 12, 5


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 20, 90, 40)).save(file, "PNG")
    return file.getvalue()


def rows():
    """(image, caption), every image WAYS times, not next to each other, and named in several
    ways."""
    return [
        (f"{'./' if way % 2 else ''}i/{number}.png", f"thing {number}, said in way {way}")
        for way in range(WAYS)
        for number in range(IMAGES)
    ]


def write_csv(folder, names, delimiter=","):
    for name, part in zip(
        names, (rows()[::2], rows()[1::2]) if len(names) > 1 else (rows(),), strict=True
    ):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([("image", "caption"), *part])


def write_jsonl(folder):
    (folder / "x.jsonl").write_text(
        "".join(json.dumps({"image": image, "caption": text}) + "\n" for image, text in rows())
    )


def write_parquet(folder, images):
    parquet.write_table(
        pyarrow.table({"image": images, "caption": [text for _, text in rows()]}),
        folder / "x.parquet",
    )


def prepared(folder):
    write_jsonl(folder)
    prepare.main([f"--source=jsonl:{folder}/x.jsonl", f"--output={folder}/out", "--shards=3"])


NAMES = [image for image, _ in rows()]
WRITERS = {
    "csv:{}/x.csv": lambda folder: write_csv(folder, ["x.csv"]),
    "csv:{}/x.tsv": lambda folder: write_csv(folder, ["x.tsv"], "\t"),
    "csv:{}/{{x,y}}.csv": lambda folder: write_csv(folder, ["x.csv", "y.csv"]),
    "jsonl:{}/x.jsonl": write_jsonl,
    "parquet:{}/x.parquet": lambda folder: write_parquet(folder, NAMES),
    "parquet:{}/x.parquet ": lambda folder: write_parquet(
        folder, [{"bytes": None, "path": name} for name in NAMES]
    ),
    "parquet:{}/x.parquet  ": lambda folder: write_parquet(
        folder,
        [
            {"bytes": png(int(name[-6:-4].strip("/"))), "path": name.removeprefix("./")}
            for name in NAMES
        ],
    ),
    "arrayrecord:{}/out/train": prepared,
    "tfds:{}/out/train": prepared,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "i").mkdir()
    for number in range(IMAGES):
        (tmp_path / f"i/{number}.png").write_bytes(png(number))
    return tmp_path


def perfect(data):
    """Embeddings by which a picture and its captions are the same, and unlike all others, from the
    samples themselves."""
    seen = {}
    images = [seen.setdefault(data.source[i].image, len(seen)) for i in range(len(data))]
    texts = [int(caption.split(",")[0].removeprefix("thing ")) for caption in data.captions]
    image_of = {
        int(caption.split(",")[0].removeprefix("thing ")): seen[data.source[i].image]
        for i in range(len(data))
        for caption in data.source[i].captions
    }
    return np.eye(IMAGES)[images], np.eye(IMAGES)[[image_of[text] for text in texts]]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_perfect_model_finds_every_caption_of_a_table_with_a_row_for_each(folder, kind, capsys):
    WRITERS[kind](folder)
    data = EvaluationSet(open_source(kind.strip().format(folder)))
    assert (len(data), len(data.captions)) == (IMAGES, IMAGES * WAYS)
    assert sorted(data.source[0].captions) == [f"thing 0, said in way {way}" for way in range(WAYS)]
    found = retrieval(*perfect(data), data)
    assert found["text_to_image_recall@1"] == found["image_to_text_recall@1"] == 1.0
    assert (found["images"], found["texts"]) == (IMAGES, IMAGES * WAYS)
    data.report_repeated()
    assert capsys.readouterr().err == ""


def test_pictures_with_the_same_bytes_and_no_name_stay_apart_with_a_line(tmp_path, capsys):
    write_parquet(tmp_path, [png(int(name[-6:-4].strip("/"))) for name in NAMES])
    data = EvaluationSet(open_source(f"parquet:{tmp_path}/x.parquet"))
    assert len(data) == IMAGES * WAYS
    data.report_repeated()
    assert (
        f"{IMAGES * (WAYS - 1)} of {IMAGES * WAYS} images have the bytes of another one"
    ) in capsys.readouterr().err


def test_images_of_one_name_in_several_folders_are_several(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}/0.png").write_bytes(png(5))
        (tmp_path / f"{name}/x.csv").write_text(f"image,caption\n0.png,{name}\n")
    assert len(EvaluationSet(open_source(f"csv:{tmp_path}/*/x.csv"))) == 2
    (tmp_path / "b/x.csv").write_text(f"image,caption\n{tmp_path}/a/0.png,b\n")
    assert len(EvaluationSet(open_source(f"csv:{tmp_path}/*/x.csv?root={tmp_path}/a"))) == 1


def test_tasks_that_ask_about_each_row_still_see_each_row(folder):
    lines = [
        {"image": f"i/{n % 3}.png", "caption": f"question {n}", "answer": f"answer {n}"}
        for n in range(9)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = EvaluationSet(open_source(f"jsonl:{folder}/q.jsonl"))
    assert len(data) == 3 and len(data.by_sample) == 9
    assert [metadata["answer"] for metadata in data.by_sample.metadata] == [
        f"answer {n}" for n in range(9)
    ]
    assert data.by_sample.source[4].captions == ("question 4",)


def test_rows_of_one_image_with_several_classes_are_refused(folder):
    (folder / "x.csv").write_text("image,caption,label\ni/0.png,a,cat\ni/0.png,b,dog\n")
    with pytest.raises(
        DataError, match="x.csv:1: samples of this image have several classes .*cat, dog"
    ):
        EvaluationSet(open_source(f"csv:{folder}/x.csv")).labels("label", "class_field")


def test_in_training_rows_of_one_image_are_positives_of_each_other(folder):
    WRITERS["csv:{}/x.csv"](folder)
    train = TrainRows(
        open_mixture(TrainSourceConfig(source=f"csv:{folder}/x.csv")),
        Preprocessor(8, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096)),
        AugmentationConfig(),
        seed=0,
    )
    batch = train.batch(range(IMAGES * WAYS))  # an epoch
    assert len(set(batch["key"].tolist())) == IMAGES * WAYS
    number = np.array(
        [
            int(rows()[int(key.split(":")[1]) - 1][0].split("/")[-1][:-4])
            for key in batch["key"].tolist()
        ]
    )
    same = (batch["image_id"][:, None] == batch["image_id"]).all(axis=-1)
    np.testing.assert_array_equal(same, number[:, None] == number)
