"""The captions evaluator: every token counts once, whatever the batches, and captions stand beside
the true ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.evaluators.captioning import CAPTION_METRICS, captioning
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.shares import shared_batches
from vlp_jax.evaluators.text_generator import TextGenerator, words
from vlp_jax.models.decoder.generation import BeamSearch
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


class Pictures:
    """A set of one-coloured pictures, as bright as their number."""

    captions = CAPTIONS
    captions_of_image = tuple((i,) for i in range(len(CAPTIONS)))

    def __len__(self):
        return len(CAPTIONS)

    def pixels(self, preprocessor, threads, numbers):
        return (np.full((4, 4, 3), number, np.uint8) for number in numbers)


@pytest.mark.parametrize(("devices", "batch_size", "num_beams"), [(1, 3, 1), (8, 5, 3), (1, 7, 2)])
def test_the_loss_is_the_mean_over_all_tokens_and_captions_are_shown_beside_the_true_ones(
    devices, batch_size, num_beams
):
    captioner = captioner_of(devices)
    results = captioning(
        Pictures(),
        captioner,
        {},
        lambda count, load: shared_batches(captioner.predictor.mesh, count, batch_size, load),
        1,
        BeamSearch(num_beams=num_beams),
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
    write_texts(str(tmp_path), 20, texts)
    assert (tmp_path / "captions" / "val-000020.txt").read_text() == texts["val/captions"]
    board = TensorBoard(str(tmp_path / "tensorboard"), 0)
    board.write_texts(20, texts)
    board.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"    1. a\n       true: b\n" in events
