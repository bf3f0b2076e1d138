"""The training input: the k-th batch is what (config, seed, k) say, whoever computes it and
whatever is damaged."""

import collections
import dataclasses
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import psutil
import pytest
from PIL import Image

from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import REASONS, Batches, TrainRows, identity, input_fingerprint
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.experiment import Experiment

SIZE, LENGTH, COUNT, BATCH = 8, 12, 14, 4  # 14 samples in batches of 4: epochs end inside a batch


def png(number):
    file = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    ).save(file, "PNG")
    return file.getvalue()


def write_source(path, damaged=()):
    """COUNT samples; a picture among `damaged` is cut in half."""
    with tarfile.open(path, "w") as tar:
        for number in range(COUNT):
            picture = png(number)
            fields = {
                "captions": [f"caption {number}", f"picture {number}"],
                "keywords": ["red", "big", f"word {number}"],
            }
            members = {
                "png": picture[: len(picture) // 2] if number in damaged else picture,
                "json": json.dumps(fields).encode(),
            }
            for ending, data in members.items():
                info = tarfile.TarInfo(f"s{number:02d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return open_source(f"webdataset:{path}")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("whole") / "x.tar")


@pytest.fixture(scope="module")
def damaged_source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("damaged") / "x.tar", damaged=(3, 8))


@pytest.fixture(scope="module")
def bad_source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("bad") / "x.tar", damaged=range(COUNT))


def rows_of(source, seed=0):
    tokenizer = load_tokenizer(TextConfig(), LENGTH, 4096)
    augmentation = AugmentationConfig(scale=(0.5, 1.5), flip=0.5, hue=0.1, erase=0.3)
    mixture = only(source, TextsConfig(caption=1.0, caption_and_keywords=1.0, keywords=1.0))
    return TrainRows(mixture, Preprocessor(SIZE, ImagesConfig(), tokenizer), augmentation, seed)


def only(source, texts=TextsConfig()):
    return Mixture((Part("", source, texts, len(source)),))


def batches_of(rows, count, position=0, host=0, hosts=1, **data):
    share = range(host * BATCH // hosts, (host + 1) * BATCH // hosts)
    batches = Batches(rows, DataConfig(batch_size=BATCH, **data), position, share)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def expected_batch(rows, k):
    """The k-th batch as its rows, each made alone, without Grain."""
    made = [rows.batch([position]) for position in range(k * BATCH, (k + 1) * BATCH)]
    return {name: np.concatenate([row[name] for row in made]) for name in made[0]}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def image_ids(rows, positions):
    return [tuple(rows.row(position)["image_id"]) for position in positions]


# What a batch is a function of


@pytest.mark.variants
@pytest.mark.parametrize(
    "data",
    [{"threads": 1, "prefetch": 1}, {"threads": 8, "prefetch": 5}, {"workers": 2, "prefetch": 2}],
    ids=["one thread", "threads", "worker processes"],
)
def test_the_kth_batch_does_not_depend_on_who_computes_it(damaged_source, data):
    rows = rows_of(damaged_source)
    found = batches_of(rows, 9, **data)
    # the texts of bad samples cross processes too
    assert sum((batch["reason"] > 0).sum() for batch in found) >= 4
    for k, batch in enumerate(found):
        assert_same(batch, expected_batch(rows, k))


def test_a_pipeline_rebuilt_in_the_middle_of_an_epoch_goes_on_as_the_old_one_would(source):
    continued = batches_of(rows_of(source), 12)
    for position in (2, 5):
        rebuilt = batches_of(rows_of(source), 12 - position, position)
        for found, expected in zip(rebuilt, continued[position:], strict=True):
            assert_same(found, expected)


def test_the_position_counts_the_batches_handed_out_and_not_those_read_ahead(source):
    batches = Batches(rows_of(source), DataConfig(batch_size=BATCH, prefetch=8), position=5)
    assert batches.position == 5
    next(batches), next(batches)
    assert batches.position == 7
    batches.close()


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_rows_of_several_hosts_are_those_of_one(source, hosts):
    whole = batches_of(rows_of(source), 6, position=3)
    parts = [
        batches_of(rows_of(source), 6, position=3, host=host, hosts=hosts) for host in range(hosts)
    ]
    for batch, *of_hosts in zip(whole, *parts, strict=True):
        assert_same(
            {name: np.concatenate([part[name] for part in of_hosts]) for name in batch}, batch
        )


@pytest.mark.full
@pytest.mark.parametrize(
    ("stop", "before", "after"),
    [
        (1, {"hosts": 1, "workers": 1}, {"hosts": 4, "threads": 3}),
        (3, {"hosts": 2, "threads": 1}, {"hosts": 1, "workers": 2}),
        (4, {"hosts": 4}, {"hosts": 2, "prefetch": 1}),
    ],
)
def test_a_run_stopped_anywhere_goes_on_with_other_hosts_and_workers(
    source, damaged_source, stop, before, after
):
    """A mixture with a part that is no whole pass, and damaged samples in it."""
    parts = (
        Part("whole", source, TextsConfig(), 9),
        Part("damaged", damaged_source, TextsConfig(prompts=("{}", "a {}")), COUNT),
    )
    rows = dataclasses.replace(rows_of(source), mixture=Mixture(parts))
    unbroken = batches_of(rows, 7)
    assert sum((batch["reason"] > 0).sum() for batch in unbroken) >= 2
    for start, count, how in ((0, stop, before), (stop, 7 - stop, after)):
        hosts = [
            batches_of(rows, count, position=start, host=host, **how)
            for host in range(how["hosts"])
        ]
        for expected, *found in zip(unbroken[start : start + count], *hosts, strict=True):
            assert_same(
                {name: np.concatenate([part[name] for part in found]) for name in expected},
                expected,
            )


VIEWS = ("first_view", "second_view", "word_start")


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_arrays_for_objectives_are_the_same_on_any_number_of_hosts_and_change_no_others(
    damaged_source, hosts
):
    plain = rows_of(damaged_source)
    rows = dataclasses.replace(
        plain, inputs=VIEWS, view_augmentation=AugmentationConfig(area=(0.2, 1.0), flip=0.5)
    )
    batches = [batches_of(rows, 5, position=2, host=host, hosts=hosts) for host in range(hosts)]
    # substitutes have views too
    assert sum((batch["reason"] > 0).sum() for part in batches for batch in part) >= 2
    for k, parts in enumerate(zip(*batches, strict=True)):
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_same(whole, expected_batch(rows, k + 2))
        assert_same(
            {name: value for name, value in whole.items() if name not in VIEWS},
            expected_batch(plain, k + 2),
        )


def test_views_are_drawn_apart_from_the_image_and_from_each_other_and_of_the_same_picture(source):
    preprocessor = dataclasses.replace(
        rows_of(source).preprocessor, images=ImagesConfig(resize="squash")
    )
    rows = TrainRows(
        only(source), preprocessor, AugmentationConfig(flip=0.5), seed=0, inputs=VIEWS[:2]
    )
    seen = collections.Counter()
    for position in range(20 * COUNT):
        row = rows.row(position)
        for name in VIEWS[:2]:
            assert any(
                (row[name] == image).all() for image in (row["image"], row["image"][:, ::-1])
            )
        seen[tuple(bool((row[name] == row["image"]).all()) for name in VIEWS[:2])] += 1
    assert len(seen) == 4 and min(seen.values()) > 5 * COUNT - 5 * (20 * COUNT * 3 / 16) ** 0.5
    alone = dataclasses.replace(rows, inputs=VIEWS[1:2])
    np.testing.assert_array_equal(alone.row(3)["second_view"], rows.row(3)["second_view"])
    other = dataclasses.replace(rows, view_augmentation=AugmentationConfig(grayscale=1.0)).row(3)
    assert (
        np.ptp(other["second_view"].astype(int), axis=-1).max()
        == 0
        < np.ptp(other["image"].astype(int), axis=-1).max()
    )


def test_a_batch_far_into_a_run_is_reached_directly(source):
    (batch,) = batches_of(rows_of(source), 1, position=10**9)
    assert_same(batch, expected_batch(rows_of(source), 10**9))


def test_a_batch_has_the_promised_shapes_and_types(source):
    (batch,) = batches_of(rows_of(source), 1)
    assert {
        name: (array.shape, array.dtype)
        for name, array in batch.items()
        if name not in ("bad_sample", "key")
    } == {
        "image": ((BATCH, SIZE, SIZE, 3), np.uint8),
        "text": ((BATCH, LENGTH), np.int32),
        "text_mask": ((BATCH, LENGTH), np.bool_),
        "truncated": ((BATCH,), np.bool_),
        "caption_id": ((BATCH, 2), np.int32),
        "image_id": ((BATCH, 2), np.int32),
        "part": ((BATCH,), np.int32),
        "reason": ((BATCH,), np.int32),
    }
    assert batch["bad_sample"].tolist() == [""] * BATCH


# Epochs


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_visits_every_sample_exactly_once(source, epoch):
    found = image_ids(rows_of(source), range(epoch * COUNT, (epoch + 1) * COUNT))
    assert collections.Counter(found) == {
        tuple(identity(png(number))): 1 for number in range(COUNT)
    }


def test_batches_visit_every_sample_once_an_epoch(source):
    # 28 rows: two epochs
    found = np.concatenate([batch["image_id"] for batch in batches_of(rows_of(source), 7)])
    for epoch in (found[:COUNT], found[COUNT:]):
        assert len({tuple(row) for row in epoch}) == COUNT


def test_every_epoch_has_another_order(source):
    orders = [
        tuple(image_ids(rows_of(source), range(epoch * COUNT, (epoch + 1) * COUNT)))
        for epoch in range(4)
    ]
    assert len(set(orders)) == 4


def test_another_seed_gives_another_order(source):
    orders = {tuple(image_ids(rows_of(source, seed), range(COUNT))) for seed in range(8)}
    assert len(orders) == 8


def test_a_neighbouring_seed_does_not_repeat_another_seed_s_epochs(source):
    """Grain shuffles epoch e with seed + e: unhashed, epoch 1 of seed 0 would be epoch 0 of seed
    1."""
    orders = [
        tuple(image_ids(rows_of(source, seed), range(epoch * COUNT, (epoch + 1) * COUNT)))
        for seed in range(4)
        for epoch in range(4)
    ]
    assert len(set(orders)) == 16


def test_a_sample_looks_different_in_every_epoch_and_with_every_seed(source):
    name = tuple(identity(png(0)))
    views = [
        row["image"].tobytes()
        for seed in (0, 1)
        for row in map(rows_of(source, seed).row, range(3 * COUNT))
        if tuple(row["image_id"]) == name
    ]
    assert len(views) == 6 and len(set(views)) == 6


def test_where_two_seeds_have_the_same_sample_at_a_place_it_is_transformed_differently(source):
    pairs = zip(
        map(rows_of(source, 0).row, range(5 * COUNT)),
        map(rows_of(source, 1).row, range(5 * COUNT)),
        strict=True,
    )
    same = [(a["image"], b["image"]) for a, b in pairs if (a["image_id"] == b["image_id"]).all()]
    assert same and all((a != b).any() for a, b in same)


def test_all_captions_of_a_sample_are_drawn(source):
    rows = rows_of(source)
    drawn = {tuple(rows.row(position)["caption_id"]) for position in range(10 * COUNT)}
    assert drawn == {
        tuple(identity(f"{word} {n}".encode()))
        for word in ("caption", "picture")
        for n in range(COUNT)
    }


def test_the_fingerprint_of_the_input_tells_seed_batch_size_and_source(source, damaged_source):
    def fingerprint(source, seed=0, batch_size=BATCH):
        return json.dumps(
            input_fingerprint(
                Experiment(seed=seed, data=DataConfig(batch_size=batch_size)), only(source)
            )
        )

    different = [
        fingerprint(source),
        fingerprint(source, seed=1),
        fingerprint(source, batch_size=8),
        fingerprint(damaged_source),
    ]
    assert len(set(different)) == 4 and fingerprint(source) == different[0]


# Damaged samples


def test_a_damaged_sample_is_replaced_and_reported_with_its_reason_and_key(damaged_source):
    rows = rows_of(damaged_source)
    epoch = [rows.row(position) for position in range(COUNT)]
    bad = [row for row in epoch if row["reason"]]
    assert sorted(str(row["bad_sample"])[:5] for row in bad) == ["s03: ", "s08: "]
    assert {REASONS[row["reason"] - 1] for row in bad} == {Reason.DAMAGED_IMAGE}
    assert all("image" in str(row["bad_sample"]) for row in bad)


def test_a_substitute_is_a_good_sample_and_every_other_row_is_what_it_would_have_been(
    source, damaged_source
):
    good = {tuple(identity(png(number))) for number in range(COUNT)}
    for position in range(3 * COUNT):
        whole, row = rows_of(source).row(position), rows_of(damaged_source).row(position)
        if row["reason"]:
            assert tuple(row["image_id"]) in good and (row["image_id"] != whole["image_id"]).any()
        else:
            assert_same(row, whole)


def test_a_substitute_is_another_one_each_time_and_the_same_when_asked_again(damaged_source):
    rows = rows_of(damaged_source)
    found = [
        (position, row)
        for position, row in enumerate(map(rows.row, range(10 * COUNT)))
        if row["reason"]
    ]
    assert len(found) == 20
    assert len({tuple(row["image_id"]) for _, row in found}) > 5
    for position, row in found:
        assert_same(rows_of(damaged_source).row(position), row)


def test_a_source_with_nothing_but_bad_samples_is_an_error_that_names_it_and_the_first(bad_source):
    with pytest.raises(DataError, match="100 bad samples in a row, the first is s") as caught:
        rows_of(bad_source).row(0)
    assert str(caught.value).startswith(f"data error: {bad_source.spec}: ")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_error_of_a_bad_source_arrives_where_the_batches_are_used(bad_source, workers):
    with pytest.raises(DataError, match="100 bad samples in a row"):
        batches_of(rows_of(bad_source), 1, workers=workers)


def test_closing_leaves_no_worker_process(source):
    batches = Batches(rows_of(source), DataConfig(batch_size=BATCH, workers=1))
    next(batches)
    before = multiprocessing.active_children()
    batches.close()
    assert before
    for process in before:
        process.join(10)
    assert not any(process.is_alive() for process in before)


@pytest.mark.full
def test_a_worker_that_is_killed_is_an_error_that_names_the_key(source):
    batches = Batches(rows_of(source), DataConfig(batch_size=BATCH, workers=1, prefetch=1))
    next(batches)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(DataError, match="a worker process was killed.* data.workers"):
        for _ in range(20):
            next(batches)
    batches.close()


@pytest.mark.full
def test_workers_leave_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text("""
import multiprocessing, time
from vlp_jax.data.config import DataConfig, TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import open_mixture
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer

if __name__ == "__main__":
    preprocessor = Preprocessor(8, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096))
    mixture = open_mixture(TrainSourceConfig(source="synthetic:64"))
    rows = TrainRows(mixture, preprocessor, AugmentationConfig(), 0)
    batches = Batches(rows, DataConfig(batch_size=4, workers=1))
    next(batches)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(100)
""")
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
    )
    workers = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
