"""All that a batch may hold at once is the same for one host and for two, and after a stop with one
and a resume with the other: views, erased rectangles, packed captions, and where words begin.
"""

import itertools

import numpy as np
import pytest

from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer

BATCH, COUNT, BATCHES = 8, 30, 8  # epochs of 30 end inside a batch of 8, and inside a window of 4
TEXTS = {"packed": TextConfig(packing=4, packing_rows=2), "whole words": TextConfig()}
INPUTS = {"packed": ("first_view", "second_view"), "whole words": ("second_view", "word_start")}


def rows_of(kind):
    erasing = dict(erase=0.5, erase_area=(0.02, 0.4), erase_ratio=(0.3, 3.3))
    mixture = Mixture(
        (
            Part(
                "",
                open_source("embedded:emoji/val_vendor"),
                TextsConfig(prompts=("{}", "a {}")),
                COUNT,
            ),
        )
    )
    return TrainRows(
        mixture,
        Preprocessor(8, ImagesConfig(), load_tokenizer(TEXTS[kind], 11, 4096)),
        AugmentationConfig(flip=0.5, erase_fill="noise", **erasing),
        seed=3,
        inputs=INPUTS[kind],
        view_augmentation=AugmentationConfig(area=(0.3, 1.0), erase_fill="mean", **erasing),
    )


def batches_of(kind, count, position, hosts, **data):
    """Batches position, position + 1, ..., as concatenated from those of so many hosts."""
    parts = []
    for host in range(hosts):
        share = range(host * BATCH // hosts, (host + 1) * BATCH // hosts)
        batches = Batches(rows_of(kind), DataConfig(batch_size=BATCH, **data), position, share)
        parts.append(list(itertools.islice(batches, count)))
        assert batches.position == position + count
        batches.close()
    return [
        {name: np.concatenate([part[name] for part in of_hosts]) for name in of_hosts[0]}
        for of_hosts in zip(*parts, strict=True)
    ]


@pytest.fixture(scope="module", params=TEXTS)
def unbroken(request):
    return request.param, batches_of(request.param, BATCHES, 0, hosts=1, threads=1)


def assert_same(found, expected):
    for batch, other in zip(found, expected, strict=True):
        assert set(batch) == set(other)
        for name in other:
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def test_the_batches_of_two_hosts_are_those_of_one(unbroken):
    kind, expected = unbroken
    assert set(INPUTS[kind]) <= set(expected[0]) and ("segment" in expected[0]) == (
        kind == "packed"
    )
    assert_same(batches_of(kind, BATCHES, 0, hosts=2), expected)


@pytest.mark.variants
@pytest.mark.parametrize(("stop", "before", "after"), [(3, 1, 2), (4, 2, 1), (5, 2, 2)])
def test_a_stop_anywhere_and_a_resume_with_another_number_of_hosts_give_the_unbroken_batches(
    unbroken, stop, before, after
):
    kind, expected = unbroken
    found = batches_of(kind, stop, 0, before) + batches_of(
        kind, BATCHES - stop, stop, after, threads=3, prefetch=1
    )
    assert_same(found, expected)


def test_no_array_of_one_batch_is_that_of_another(unbroken):
    """So that the tests above could fail."""
    kind, expected = unbroken
    for name in {"image", "text", *INPUTS[kind]}:
        assert len({batch[name].tobytes() for batch in expected}) == BATCHES, name
