"""The captions evaluator: every token counts once, whatever the batches, and captions stand beside
the true ones."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.evaluators.captioning import (
    CAPTION_METRICS,
    CaptionsTaskConfig,
    captioning,
    references_of,
)
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.shares import shared_batches
from vlp_jax.evaluators.text_generator import TextGenerator, words
from vlp_jax.metrics.captions.scores import CAPTION_SCORES, caption_scores
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.training.hooks.metric_writers import write_texts
from vlp_jax.training.writers.tensorboard import TensorBoard

CAPTIONS = [
    "red heart",
    "a flag",
    "smiling face with sunglasses",
    "dog",
    "a green apple on a tree",
    "clock",
    "moon",
]
TOKENIZER = load_tokenizer(TextConfig(), 12, 4096)


def captioner_of(devices):
    """A model that loses 1 a token and the picture's brightness more, and writes the caption whose
    number is its brightness, or with several beams one that stands so many behind.
    """
    ids = jnp.asarray(TOKENIZER(CAPTIONS)[0])

    def losses(variables, image, text, mask):
        counts = mask[:, 1:].sum(axis=1)
        return counts * (1.0 + jnp.round(image.mean(axis=(1, 2, 3)) * 255)), counts

    def write(variables, image, start, search):
        return ids[
            jnp.round(image.mean(axis=(1, 2, 3)) * 255).astype(int) + search.num_beams - 1, 1:
        ]

    preprocessor = Preprocessor(4, ImagesConfig(mean=(0.0,) * 3, std=(1.0,) * 3), TOKENIZER)
    mesh = build_mesh(MeshConfig(data=devices), jax.devices()[:devices])
    return TextGenerator(losses, write, Predictor(lambda *_: (None, None), preprocessor, mesh))


class Pictures(types.SimpleNamespace):
    """A set of one-coloured pictures, as bright as their number."""

    def __len__(self):
        return len(self.captions)

    def pixels(self, preprocessor, threads, numbers):
        return (np.full((4, 4, 3), number, np.uint8) for number in numbers)


def data_of():
    return Pictures(
        captions=CAPTIONS,
        captions_of_image=[[i] for i in range(len(CAPTIONS))],
        metadata=[{"image_id": 10 + i, "refs": [f"{caption}s", "a b"]} if i else {}
                  for i, caption in enumerate(CAPTIONS)],
        keys=[f"set: {i}" for i in range(len(CAPTIONS))],
        source=types.SimpleNamespace(spec="set"),
        found=lambda number, field: f"there are: {number}",
    )  # fmt: skip


def batches_of(captioner, batch_size, between=lambda: None):
    mesh = captioner.predictor.mesh
    return lambda count, load: shared_batches(mesh, count, batch_size, load, between)


@pytest.mark.parametrize(("devices", "batch_size", "num_beams"), [(1, 3, 1), (8, 5, 3), (1, 7, 2)])
def test_the_loss_is_the_mean_over_all_tokens_and_captions_are_shown_beside_the_true_ones(
    devices, batch_size, num_beams
):
    captioner = captioner_of(devices)
    results = captioning(
        data_of(),
        captioner,
        {},
        batches_of(captioner, batch_size),
        1,
        CaptionsTaskConfig(num_beams=num_beams),
    )
    counts = TOKENIZER(CAPTIONS)[1].sum(axis=1) - 1
    assert set(results) == {*CAPTION_METRICS, "captions"}
    assert results["caption_loss"] == pytest.approx(
        (counts * (1 + np.arange(len(CAPTIONS)))).sum() / counts.sum(), rel=1e-6
    )
    written = CAPTIONS[num_beams - 1 :]
    assert results["captions"] == "".join(
        f"{i + 1}. {written[i]}\n   true: {CAPTIONS[i]}\n" for i in range(5)
    )


@pytest.mark.parametrize(("generate", "number"), [(None, 7), (6, 6), (9, 7)])
def test_captions_of_all_images_are_generated_scored_and_given_in_cocos_format(generate, number):
    seen, captioner = [], captioner_of(1)
    task = CaptionsTaskConfig(generate=generate)
    batches = batches_of(captioner, 4, lambda: seen.append(0))
    results = captioning(data_of(), captioner, {}, batches, 1, task)
    assert len(seen) == -(-len(CAPTIONS) // 4) + -(-number // 4)
    assert set(results) == {*CAPTION_METRICS, *CAPTION_SCORES, "captions", "captions.json"}
    expected = caption_scores(CAPTIONS[:number], [[caption] for caption in CAPTIONS[:number]])
    assert {name: results[name] for name in CAPTION_SCORES} == expected
    assert results["rouge_l"] == 1 and results["bleu_1"] == pytest.approx(1)
    rows = json.loads(results["captions.json"])
    assert [row["caption"] for row in rows] == CAPTIONS[:number]
    assert [row["image_id"] for row in rows] == ["0", *range(11, 10 + number)]
    assert results["captions"].count("true: ") == 5


def test_true_captions_may_be_in_a_field():
    data = data_of()
    assert references_of(data, 1, None, "") == ["a flag"]
    assert references_of(data, 1, "refs", "") == ["a flags", "a b"]
    context = types.SimpleNamespace(data=data)
    data.require_captions = lambda task: None
    with pytest.raises(DataError, match=r"set: 0: .*'refs' \(x\.references\), there are: 0"):
        CaptionsTaskConfig(references="refs").check(context, "x.")


def test_metrics_of_generated_captions_are_named_where_they_are_computed():
    assert CaptionsTaskConfig().metric_names(None) == CAPTION_METRICS
    for generate in (6, None):
        found = CaptionsTaskConfig(generate=generate).metric_names(None)
        assert found == (*CAPTION_METRICS, *CAPTION_SCORES)


def test_a_text_ends_before_the_end_token_or_nowhere():
    def decode(row):
        return " ".join(map(str, row))

    assert (
        words(decode, [5, 6, 1, 7], {1, 0}) == "5 6"
        and words(decode, [5, 6], {1, 0}) == "5 6"
        and words(decode, [1], {1}) == ""
    )


def test_texts_are_written_to_the_workdir_and_to_tensorboard(tmp_path):
    texts = {"val/captions": "1. a\n   true: b\n"}
    write_texts(str(tmp_path), 20, {"val/captions.json": "[]\n"})
    assert (tmp_path / "captions" / "val-000020.json").read_text() == "[]\n"
    write_texts(str(tmp_path), 20, texts)
    assert (tmp_path / "captions" / "val-000020.txt").read_text() == texts["val/captions"]
    board = TensorBoard(str(tmp_path / "tensorboard"), 0)
    board.write_texts(20, texts)
    board.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"    1. a\n       true: b\n" in events
