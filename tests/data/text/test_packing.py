"""Several captions in a row: what lies where, that a batch is a function of (config, seed, k), and
what is left out is counted."""

import itertools

import numpy as np
import pytest

from vlp_jax.config import base, to_config
from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.packing import pack
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.objectives.packing import check_packing
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.training.hooks.input_counts import InputCounts

BATCH, WINDOW, ROWS, LENGTH = 16, 4, 2, 11


def rows_of(length=LENGTH, window=WINDOW, rows=ROWS, source="embedded:emoji/val_vendor"):
    spec = TextConfig(packing=window, packing_rows=rows if window else 1)
    source = open_source(source)
    mixture = Mixture((Part("", source, TextsConfig(), len(source)),))
    preprocessor = Preprocessor(8, ImagesConfig(), load_tokenizer(spec, length, 4096))
    return TrainRows(mixture, preprocessor, AugmentationConfig(flip=0.5), seed=3)


def batches_of(rows, count, position=0, host=0, hosts=1):
    share = range(host * BATCH // hosts, (host + 1) * BATCH // hosts)
    batches = Batches(rows, DataConfig(batch_size=BATCH), position, share)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def test_captions_lie_in_the_first_row_with_room_and_what_finds_none_is_left_out():
    lengths = [3, 4, 2, 3, 5, 1, 6, 6]
    mask = np.arange(6) < np.array(lengths)[:, None]
    ids = np.where(mask, 10 * np.arange(1, 9)[:, None] + np.arange(6), 0)
    packed = pack(ids, mask, window=4, rows=2, padding=-1)
    assert packed["segment"].tolist() == [
        [[1, 1, 1, 3, 3, 0], [2, 2, 2, 2, 0, 0]],
        [[1] * 5 + [2], [3] * 6],
    ]
    assert packed["text"].tolist() == [
        [[10, 11, 12, 30, 31, -1], [20, 21, 22, 23, -1, -1]],
        [[50, 51, 52, 53, 54, 60], [70, 71, 72, 73, 74, 75]],
    ]
    np.testing.assert_array_equal(packed["text_mask"], packed["segment"] > 0)
    assert packed["dropped"].tolist() == [False, False, False, True, False, False, False, True]
    assert [packed[name].dtype for name in ("text", "text_mask", "segment", "dropped")] == [
        np.int32,
        bool,
        np.int32,
        bool,
    ]


def test_packed_tokens_are_those_of_the_same_captions_and_all_other_arrays_stay_as_they_are():
    plain, packed = rows_of(window=None).batch(range(BATCH)), rows_of().batch(range(BATCH))
    assert set(packed) - set(plain) == {"segment", "dropped"}
    for name in set(plain) - {"text", "text_mask"}:
        np.testing.assert_array_equal(packed[name], plain[name], err_msg=name)
    assert (
        packed["text"].shape == (BATCH // WINDOW, ROWS, LENGTH)
        and 0 < packed["dropped"].sum() < BATCH / 2
    )
    for example in range(BATCH):
        group, place = divmod(example, WINDOW)
        found = packed["text"][group][packed["segment"][group] == place + 1]
        expected = (
            []
            if packed["dropped"][example]
            else plain["text"][example][plain["text_mask"][example]]
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.variants
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_rows_of_several_hosts_are_those_of_one(hosts):
    whole = batches_of(rows_of(), 4, position=2)
    parts = [batches_of(rows_of(), 4, 2, host, hosts) for host in range(hosts)]
    for k, (batch, *of_hosts) in enumerate(zip(whole, *parts, strict=True)):
        alone = [
            rows_of().batch(range(start, start + WINDOW))
            for start in range((k + 2) * BATCH, (k + 3) * BATCH, WINDOW)
        ]
        for name in batch:
            np.testing.assert_array_equal(
                np.concatenate([part[name] for part in of_hosts]), batch[name], err_msg=name
            )
            np.testing.assert_array_equal(
                np.concatenate([part[name] for part in alone]), batch[name], err_msg=name
            )


def test_captions_that_are_left_out_are_counted_and_the_first_is_told():
    counts, total = InputCounts(0.5), 0
    for k, batch in enumerate(batches_of(rows_of(), 3)):
        said, total = counts.observe(batch), total + int(batch["dropped"].sum())
        first = batch["key"][batch["dropped"].argmax()]
        assert said == (
            [
                "caption left out, the data.text.packing_rows of its window are full: "
                f"{first}; further ones are counted"
            ]
            if k == 0
            else []
        )
    assert counts.row({})["train/dropped_captions"] == total > 0
    assert counts.news() == [f"of {3 * BATCH} examples so far: {total} captions left out"]
    assert InputCounts(0.5, (), counts.to_json()).row({}) == counts.row({})


def config_of(objectives=None, decoder=(), **data):
    config = base()
    config.update(steps=1, objectives=objectives or dict(captioning=dict(kind="captioning")))
    config.model.decoder = dict(preset="Ti", **dict(decoder))
    config.data.batch_size = BATCH
    config.data.text.update(dict(packing=WINDOW) | data)
    return config


def test_what_reads_no_text_goes_with_packed_texts():
    objectives = dict(
        words=dict(kind="captioning"),
        pixels=dict(kind="masked_autoencoder"),
        codes=dict(kind="masked_image"),
    )
    check_packing(
        to_config(config_of(objectives=objectives).to_dict()), build_mesh(MeshConfig(data=1))
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(
                objectives=dict(
                    words=dict(kind="captioning"),
                    masked=dict(kind="masked_language", with_image=False),
                )
            ),
            "objectives.masked needs a row for",
        ),
        (
            dict(objectives=dict(words=dict(kind="captioning"), pairs=dict(kind="clip"))),
            "objectives.pairs needs a row for",
        ),
        (
            dict(decoder=dict(image="prefix")),
            "model.decoder.image='prefix' needs a row for each text",
        ),
        (
            dict(decoder=dict(kind="on_text_tower", tied=False)),
            "model.decoder.kind='on_text_tower' needs a row for each text",
        ),
        (
            dict(decoder=dict(text_prefix=0.5)),
            "model.decoder.text_prefix=0.5 needs a row for each text",
        ),
        (dict(packing=5), "windows of 5 do not divide data.batch_size 16"),
    ],
)
def test_what_needs_a_row_for_each_text_is_a_config_error(changes, message):
    with pytest.raises(ConfigError, match=f"data.text.packing: {message}"):
        check_packing(to_config(config_of(**changes).to_dict()), build_mesh(MeshConfig(data=1)))


def test_windows_that_do_not_divide_over_mesh_and_microbatches_and_rows_without_are_errors():
    config = to_config(config_of().to_dict())
    check_packing(config, build_mesh(MeshConfig(data=2, fsdp=2)))
    with pytest.raises(
        MeshError,
        match=r"/ 4, the number of windows, 4 does not divide over "
        r"data=8 x fsdp=1 \(8\)",
    ):
        check_packing(config, build_mesh(MeshConfig(data=8)))
    accumulated = config_of()
    accumulated.accumulation.microbatches = 2
    with pytest.raises(ConfigError, match="microbatches would divide its windows"):
        check_packing(to_config(accumulated.to_dict()), build_mesh(MeshConfig(data=1)))
    with pytest.raises(
        ConfigError, match="data.text.packing_rows: has no effect without data.text.packing"
    ):
        to_config(config_of(packing_rows=2, packing=None).to_dict())
