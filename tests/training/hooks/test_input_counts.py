"""What is counted of the consumed batches, and what is said of it."""

import numpy as np
import pytest

from vlp_jax.data.pipeline import REASONS
from vlp_jax.data.samples import Reason
from vlp_jax.errors import DataError
from vlp_jax.training.hooks.input_counts import GRACE, InputCounts

DAMAGED, EMPTY = (
    REASONS.index(reason) + 1 for reason in (Reason.DAMAGED_IMAGE, Reason.EMPTY_CAPTION)
)


def batch(rows=100, bad=(), truncated=(), parts=None):
    """`bad`: (row, code) pairs."""
    reason, said, cut = np.zeros(rows, np.int32), [""] * rows, np.zeros(rows, bool)
    for row, code in bad:
        reason[row], said[row] = code, f"s{row}: is bad"
    cut[list(truncated)] = True
    return {
        "reason": reason,
        "bad_sample": np.array(said),
        "truncated": cut,
        "text": np.zeros((rows, 12)),
        "key": np.array([f"s{row}" for row in range(rows)]),
        "part": np.zeros(rows, int) if parts is None else parts,
    }


def test_the_first_bad_sample_of_each_kind_is_told_at_once_and_the_others_counted():
    counts = InputCounts(0.5)
    said = counts.observe(batch(bad=[(3, DAMAGED), (5, DAMAGED), (9, EMPTY)]))
    assert said == [
        "bad sample replaced: s3: is bad (damaged_image); further ones are counted",
        "bad sample replaced: s9: is bad (empty_caption); further ones are counted",
    ]
    assert counts.observe(batch(bad=[(7, EMPTY)])) == []
    assert counts.row({}) == {
        "train/truncated_captions": 0,
        "train/bad_examples": 4,
        "train/bad_examples/damaged_image": 2,
        "train/bad_examples/empty_caption": 2,
    }


def test_the_first_caption_that_is_cut_is_told_with_its_key_and_the_others_counted():
    counts = InputCounts(0.5)
    assert counts.observe(batch(truncated=[4, 6])) == [
        "caption cut to the 12 tokens of model.text.length: s4; further ones are counted"
    ]
    assert counts.observe(batch(truncated=[1])) == []
    assert counts.row({})["train/truncated_captions"] == 3


def test_news_are_the_totals_whenever_they_have_changed():
    counts = InputCounts(0.5)
    counts.observe(batch())
    assert counts.news() == []
    counts.observe(batch(bad=[(1, DAMAGED)], truncated=[2]))
    assert counts.news() == [
        "of 200 examples so far: 1 bad samples replaced (damaged_image 1), 1 captions cut"
    ]


def test_counts_go_on_from_what_a_checkpoint_holds():
    counts = InputCounts(0.5, ["a", "b"])
    counts.observe(batch(bad=[(3, DAMAGED)], truncated=[4], parts=np.arange(100) % 4 // 3))
    resumed = InputCounts(0.5, ["a", "b"], counts.to_json())
    assert resumed.row({}) == counts.row({})
    assert (resumed.row({})["train/examples/a"], resumed.row({})["train/examples/b"]) == (75, 25)
    assert resumed.news() == []
    assert resumed.observe(batch(bad=[(3, DAMAGED)], truncated=[4])) == []


def test_too_many_bad_samples_stop_the_run_once_there_are_enough_to_tell():
    counts = InputCounts(0.02)
    for _ in range(GRACE // 100 - 1):
        counts.observe(batch(bad=[(0, DAMAGED), (1, EMPTY)]))
    counts.observe(batch(bad=[(0, DAMAGED), (1, EMPTY)]))  # 20 of 1,000 are just allowed
    with pytest.raises(
        DataError,
        match=r"23 of 1100 examples were bad \(damaged_image 11, "
        r"empty_caption 12\), more than "
        r"data.max_bad_fraction=0.02; the last is s2: is bad",
    ):
        counts.observe(batch(bad=[(0, DAMAGED), (1, EMPTY), (2, EMPTY)]))


def test_at_the_end_of_a_short_run_there_is_no_grace():
    counts = InputCounts(0.02)
    counts.observe(batch(bad=[(0, DAMAGED), (1, EMPTY), (2, EMPTY)]))
    with pytest.raises(DataError, match="3 of 100 examples were bad"):
        counts.check()


@pytest.mark.parametrize(
    ("reason", "message", "kinds"),
    [
        (
            Reason.MISSING_CAPTION,
            "has no caption",
            ["'simclr'", "'masked_autoencoder'", "'masked_image'", "features='image'"],
        ),
        (
            Reason.MISSING_IMAGE,
            "has no image",
            ["'masked_language' with with_image=False", "model.decoder.image='none'"],
        ),
        (Reason.MISSING_IMAGE, "its image 'x.jpg' is missing from /data", []),
    ],
)
def test_an_unpaired_sample_names_the_objectives_that_would_take_it(reason, message, kinds):
    counts = InputCounts(0.0)
    rows = batch(bad=[(3, REASONS.index(reason) + 1)])
    rows["bad_sample"] = np.array([f"s3: {message}" if row == 3 else "" for row in range(100)])
    (said,) = InputCounts(1.0).observe(rows)
    assert all(kind in said for kind in kinds) and ("objectives" in said) == bool(kinds)
    with pytest.raises(DataError) as caught:
        counts.observe(rows)
        counts.check()
    assert all(kind in str(caught.value) for kind in kinds) and (
        "objectives" in str(caught.value)
    ) == bool(kinds)
