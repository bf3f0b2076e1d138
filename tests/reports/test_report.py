"""Pages about runs: what they hold, what they leave out and why, and that nothing is loaded from
elsewhere."""

import html.parser
import json
import pathlib

import numpy as np
import pytest
from browser import CHROMIUM, asked

from vlp_jax import main as train
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.report import main, write_report
from vlp_jax.reports.records import open_runs, short_names
from vlp_jax.reports.section import number, text

pytest.importorskip("matplotlib")
ROOT = pathlib.Path(__file__).parents[2]


class Page(html.parser.HTMLParser):
    """The parts of a page: ids of its sections, rows of its tables, references, pictures."""

    def __init__(self, path):
        super().__init__()
        self.sections, self.rows, self.references, self.alternatives = [], [], [], []
        self.words, self.cell = "", False
        self.feed(pathlib.Path(path).read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert tag not in ("script", "link", "iframe")
        self.references += [given[name] for name in ("src", "href") if name in given]
        if tag == "section":
            self.sections.append(given["id"])
        if tag == "img":
            self.alternatives.append(given["alt"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("th", "td")

    def handle_data(self, data):
        self.words += data
        if self.cell:
            self.rows[-1][-1] += data

    @property
    def table(self):
        return {row[0]: row[1:] for row in self.rows if row}


def row(step, **values):
    return {
        "step": step,
        "train/loss": 5.0 / step,
        "train/learning_rate": 0.1 * step,
        "goodput/training": 0.75,
        "goodput/start_up": 0.25,
        **values,
    }


@pytest.fixture
def run_of(tmp_path):
    """`run_of(name, rows, config)`: the folder of a run without checkpoints."""

    def write(name, rows, config):
        folder = tmp_path / name
        folder.mkdir()
        lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
        (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


def test_runs_are_shown_side_by_side_with_what_differs(run_of, tmp_path):
    recall = "val/text_to_image_recall@1"
    one = run_of(
        "one",
        [row(1), "not json", row(2, **{recall: 0.25}), row(4, **{recall: 0.5}, wall_seconds=7200)],
        {"seed": 0, "data": {"batch_size": 8}},
    )
    two = run_of("<b>two", [row(3)], {"seed": 1, "data": {"batch_size": 8}})
    page = Page(write_report([one, two], tmp_path / "page", examples=0))
    assert page.sections == [
        "overview",
        "training",
        "evaluation-over-training",
        "metrics",
        "time",
        "config-differences",
    ]
    assert page.table["last step"] == ["4", "3"] and page.table["examples seen"] == ["32", "24"]
    assert page.table["training loss"] == ["1.25", "1.667"]
    assert page.table["wall hours"] == ["2", "–"]
    assert page.table[recall] == ["0.5", "–"]
    assert page.table["seed"] == ["0", "1"] and "data.batch_size" not in page.table
    assert page.table[""] == ["one", "<b>two"]  # as text
    assert "one: lines 2 of metrics.jsonl cannot be read" in page.words
    assert len(page.alternatives) == 3 and all(page.alternatives)
    assert "one: 75% in training" in page.alternatives[2]
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in page.references)


def test_what_a_run_lacks_is_named_with_the_reason(run_of, tmp_path):
    page = Page(write_report([run_of("one", [row(1)], {})], tmp_path / "page"))
    assert page.sections == ["overview", "training", "time", "absent"]
    for line in (
        "Evaluation over training: each evaluator has run once",
        "Metrics: no row of metrics.jsonl has metrics of an evaluator",
        "Examples: one has no checkpoint",
        "Config differences: there is one run",
    ):
        assert line in page.words


def test_a_checkpoint_that_cannot_be_read_costs_only_the_examples(run_of, tmp_path):
    run = run_of("one", [row(1)], {})
    (run / "checkpoints/7/metadata").mkdir(parents=True)
    (run / "checkpoints/7/_CHECKPOINT_METADATA").write_text("{}")
    page = Page(write_report([run], tmp_path / "page"))
    assert "Examples: the newest checkpoint cannot be read" in page.words
    assert "training" in page.sections


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{run}", "{run}", "--output={out}"], ConfigError, "is given twice"),
        (["{empty}", "--output={out}"], CheckpointError, "neither metrics.jsonl with a row nor"),
        (["{run}", "--output={run}/config.json"], ConfigError, "--output: .*config.json"),
        (["{run}", "--output={out}", "--examples=-1"], ConfigError, "--examples: must be at least"),
        (["{run}"], ConfigError, "--output"),
    ],
)
def test_mistakes_are_one_line(run_of, tmp_path, arguments, error, message):
    run, empty = run_of("one", [row(1)], {}), tmp_path / "empty"
    empty.mkdir()
    given = [part.format(run=run, empty=empty, out=tmp_path / "out") for part in arguments]
    with pytest.raises(error, match=message):
        main(given)
    assert not (tmp_path / "out").exists()


def test_names_are_as_long_as_they_need_to_be():
    assert short_names(["/a/b/run", "/a/c/run"]) == ["b/run", "c/run"]
    assert short_names(["/a/b", "/a/c"]) == ["b", "c"]
    assert [run.name for run in open_runs([])] == []


def test_values_are_written_for_people_and_texts_are_escaped():
    shown = {
        0.123456: "0.1235",
        12345678: "12,345,678",
        None: "–",
        "x": "x",
        7: "7",
        5000.0: "5,000",
    }
    assert {value: number(value) for value in shown} == shown
    assert text('<img src="x">\x1b[2J') == "&lt;img src=&quot;x&quot;&gt;\ufffd[2J"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny):
    """A run of three steps on pairs whose captions would be code in a page."""
    folder = tmp_path_factory.mktemp("report")
    lines = []
    rng = np.random.default_rng(0)
    from PIL import Image

    for place in range(12):
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        caption = f"<script>alert({place})</script> & picture {place}"
        lines.append({"image": f"{place}.png", "caption": caption, "class": "ab"[place % 2]})
    (folder / "set.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    flags = tiny(
        "steps=3",
        f"data.train.source=jsonl:{folder}/set.jsonl",
        "evaluators={}",
        "model.image.pooling=cls",
    )
    command = [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={folder}/run", *flags]
    assert train.main(command) == 0
    return folder


@pytest.fixture(scope="module")
def page_of_trained(trained):
    source = f"--source=jsonl:{trained}/set.jsonl"
    assert main([f"{trained}/run", f"--output={trained}/page", source, "--examples=2"]) == 0
    return trained / "page/index.html"


@pytest.mark.full
def test_examples_are_of_the_model_and_their_texts_are_no_code(page_of_trained):
    page = Page(page_of_trained)
    assert {"retrieval", "zero-shot-classes", "attention", "heat-maps", "absent"} <= {
        *page.sections
    }
    assert "Captions: run has no objective of kind 'captioning'" in page.words
    assert "on 12 images and 12 captions" in page.words
    assert "<script>alert(" in page.words  # as text; Page refuses the tag
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in page.references)


@pytest.mark.full
def test_attention_is_that_of_the_class_token_in_float64_numpy(trained):
    from vlp_jax.reports.attention import attention_maps
    from vlp_jax.reports.examined import Examined

    examined = Examined(open_runs([f"{trained}/run"])[0], f"jsonl:{trained}/set.jsonl", 12)
    config, pixels = examined.model.config.model.image, np.stack([examined.pixels(0)])
    found = attention_maps(examined, pixels)
    images = (pixels / 255 - examined.preprocessor.images.mean) / examined.preprocessor.images.std
    _, state = examined.model.module.apply(
        examined.variables,
        images.astype(np.float32),
        method="embed",
        capture_intermediates=lambda module, _: module.name == "attention_norm",
        mutable=["intermediates"],
    )
    layer = f"layer_{config.size.depth - 1}"
    inputs = state["intermediates"]["model"]["image"]["transformer"][layer]["attention_norm"]
    tokens = np.asarray(inputs["__call__"][0], np.float64)[0]
    own = examined.variables["params"]["model"]["image"]["transformer"][layer]["attention"]
    query, key = (
        np.einsum("nd,dhk->nhk", tokens, np.asarray(own[name]["kernel"], np.float64))
        + np.asarray(own[name]["bias"], np.float64)
        for name in ("query", "key")
    )
    logits = np.einsum("hk,nhk->hn", query[0], key) / query.shape[-1] ** 0.5
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = weights.mean(axis=0)[1:]
    np.testing.assert_allclose(
        found[0].reshape(-1), expected / expected.sum(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
def test_a_browser_shows_every_figure_without_errors(page_of_trained):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    (images, empty, wide), console = asked(page_of_trained)
    assert images == len(Page(page_of_trained).alternatives) > 10
    assert empty == 0 and not wide and console == []
