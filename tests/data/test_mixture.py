"""Several sources as one order: shares by weight and repeat, one shuffle over all of them, passes
that are whole."""

import collections
import pickle

import grain
import numpy as np
import pytest

from vlp_jax.config import base, to_config
from vlp_jax.data.config import MixturePartConfig, TrainSourceConfig
from vlp_jax.data.mixture import Mixture, Order, Part, epoch_shares, open_mixture
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.errors import ConfigError, DataError

SIZES = {"large": 30, "small": 7, "tiny": 3}


def mixture_of(**shares):
    parts = [
        Part(name, open_source(f"synthetic:{SIZES[name]}"), TextsConfig(), share)
        for name, share in shares.items()
    ]
    return Mixture(tuple(parts))


def train_source(**parts):
    return TrainSourceConfig(
        source=None,
        mixture={
            name: MixturePartConfig(source=f"synthetic:{SIZES[name]}", **fields)
            for name, fields in parts.items()
        },
    )


def examples(mixture, epochs, seed=0, start=0):
    """{part name: indices in order} of some epochs."""
    order, found = Order(mixture, seed), {part.name: [] for part in mixture.parts}
    for position in range(start * len(mixture), (start + epochs) * len(mixture)):
        number, index = order(position)
        found[mixture.parts[number].name].append(index)
    return found


# Order


def test_one_source_is_in_the_order_of_grain_s_own_shuffle():
    order = Order(mixture_of(large=30), 5)
    seed = int(np.random.SeedSequence(5).generate_state(1)[0])
    expected = grain.MapDataset.range(30).shuffle(seed=seed).repeat(4)
    assert [order(position) for position in range(120)] == [
        (0, expected[position]) for position in range(120)
    ]


@pytest.mark.parametrize(
    "shares", [dict(large=30, small=7), dict(large=45, small=7, tiny=6), dict(large=4, small=16)]
)
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_epoch_holds_each_part_s_share(shares, epoch):
    found = examples(mixture_of(**shares), 1, start=epoch)
    assert {name: len(indices) for name, indices in found.items()} == shares


def test_whole_passes_hold_every_sample_equally_often_in_each_epoch():
    mixture = mixture_of(large=30, tiny=9)
    for epoch in range(3):
        found = examples(mixture, 1, start=epoch)
        assert collections.Counter(found["large"]) == dict.fromkeys(range(30), 1)
        assert collections.Counter(found["tiny"]) == dict.fromkeys(range(3), 3)


def test_a_share_that_is_no_whole_pass_goes_on_in_the_next_epoch():
    # 5 epochs are two passes over large; 7 epochs are ten over small
    mixture = mixture_of(large=12, small=10)
    assert collections.Counter(examples(mixture, 5)["large"]) == dict.fromkeys(range(30), 2)
    assert collections.Counter(examples(mixture, 7)["small"]) == dict.fromkeys(range(7), 10)
    for epoch in range(2):
        # no sample twice within a pass
        assert len(set(examples(mixture, 1, start=epoch)["large"])) == 12
    assert len(set(examples(mixture, 2)["large"])) == 24


def test_parts_and_shards_are_shuffled_together():
    order = Order(mixture_of(large=30, small=28), 0)
    numbers = [order(position)[0] for position in range(58)]
    changes = sum(a != b for a, b in zip(numbers, numbers[1:], strict=False))
    # 29 are expected of a shuffle, with a standard deviation of 3.8; in blocks there is one
    assert 18 <= changes <= 39


def test_epochs_and_seeds_differ_and_the_same_is_the_same():
    mixture = mixture_of(large=12, small=10)
    orders = {
        (seed, epoch): [
            Order(mixture, seed)(position) for position in range(epoch * 22, epoch * 22 + 22)
        ]
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({tuple(order) for order in orders.values()}) == 9
    copy = pickle.loads(pickle.dumps(Order(mixture, 2)))
    assert [copy(position) for position in range(44, 66)] == orders[2, 2]


def test_a_far_position_is_reached_directly():
    number, index = Order(mixture_of(large=12, small=10), 0)(22 * 10**12)
    assert number in (0, 1) and 0 <= index < 30


# Shares


def shares_of(**parts):
    return epoch_shares(
        {name: MixturePartConfig(**fields) for name, fields in parts.items()}, SIZES
    )


def test_without_weights_an_epoch_is_every_sample_as_often_as_its_repeat():
    assert shares_of(large={}, small={}) == {"large": 30, "small": 7}
    assert shares_of(large=dict(repeat=0.5), small=dict(repeat=3.0)) == {"large": 15, "small": 21}


def test_weights_divide_an_epoch_of_the_same_length():
    # 37: 9.25 and 27.75
    assert shares_of(large=dict(weight=1.0), small=dict(weight=3.0)) == {"large": 9, "small": 28}
    assert shares_of(large=dict(weight=1.0), small=dict(weight=1.0, repeat=10.0)) == {
        "large": 50,
        "small": 50,
    }


def test_a_small_weight_still_has_an_example_in_an_epoch():
    shares = shares_of(large=dict(weight=1.0), small=dict(weight=1e-4))
    assert shares["small"] >= 1
    assert abs(shares["small"] / shares["large"] - 1e-4) < 1e-5


def test_weight_0_leaves_a_part_out():
    assert shares_of(large=dict(weight=0.0), small=dict(weight=1.0)) == {"large": 0, "small": 37}
    assert set(examples(mixture_of(large=0, small=5, tiny=0), 3)["small"]) == set(range(7))


# Configs


def test_a_part_takes_what_it_does_not_say_from_data_train():
    tree = base().to_dict()
    b = dict(source="synthetic:4", keywords=0.0, prompts=("{}", "a {}"), caption_fields=dict(alt=1))
    tree["data"]["train"] |= dict(
        source=None,
        keywords=2.0,
        prompts=("so: {}",),
        mixture=dict(a=dict(source="synthetic:3"), b=b),
    )
    tree |= dict(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    a, b = open_mixture(to_config(tree).data.train).parts
    assert (a.texts.keywords, a.texts.prompts, a.texts.caption_fields) == (2.0, ("so: {}",), {})
    assert (b.texts.caption, b.texts.keywords, b.texts.prompts, b.texts.caption_fields) == (
        1.0,
        0.0,
        ("{}", "a {}"),
        {"alt": 1.0},
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            TrainSourceConfig(mixture={"a": MixturePartConfig(source="synthetic:3")}),
            "data.train: source and mixture are both set",
        ),
        (TrainSourceConfig(source=None), "data.train: neither source nor mixture"),
        (
            TrainSourceConfig(source=None, mixture={"a": MixturePartConfig()}),
            "data.train.mixture.a.source: is missing",
        ),
        (
            train_source(large=dict(weight=1.0), small={}),
            "data.train.mixture.small.weight: is missing",
        ),
        (
            train_source(large=dict(weight=0.0), small=dict(weight=0.0)),
            "data.train.mixture: at least one weight",
        ),
        (
            train_source(large={}, tiny=dict(repeat=0.1)),
            "data.train.mixture.tiny.repeat: 0.1 times 3 samples is no example",
        ),
        (
            train_source(large={}, tiny=dict(prompts=("x",))),
            "data.train.mixture.tiny.prompts: 'x' has no {}",
        ),
        (
            train_source(large=dict(caption=0.0)),
            "data.train.mixture.large.caption, caption_and_keywords, keywords: at least one",
        ),
    ],
)
def test_a_mixture_that_cannot_be_is_an_error_that_names_the_key(train, message):
    with pytest.raises(ConfigError) as caught:
        open_mixture(train)
    assert str(caught.value).startswith(f"config error: {message}")


def test_a_part_that_is_not_there_is_named(tmp_path):
    train = TrainSourceConfig(
        source=None, mixture={"a": MixturePartConfig(source=f"jsonl:{tmp_path}/a.jsonl")}
    )
    with pytest.raises(DataError, match="a.jsonl"):
        open_mixture(train)


def test_the_fingerprints_tell_which_part_changed():
    before = mixture_of(large=30, small=7).fingerprints()
    after = mixture_of(large=30, small=14).fingerprints()
    assert [key for key in before if before[key] != after[key]] == ["data.train.mixture.small"]
