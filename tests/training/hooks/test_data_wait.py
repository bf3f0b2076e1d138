"""Why a run waits for its data: the cause that is named, and no advice that makes it slower."""

import time

import pytest

from vlp_jax.data.config import DataConfig
from vlp_jax.training.hooks import data_wait
from vlp_jax.training.hooks.data_wait import DataWait


def waiting(workers, cores, threads=2):
    return DataWait(DataConfig(threads=threads), workers, cores)


@pytest.mark.parametrize(
    ("workers", "cores", "busy", "words", "others"),
    [
        (
            16,
            2,
            1.0,
            "data.workers=16 processes take turns on 2 cores; fewer are faster",
            "storage",
        ),
        (
            0,
            2,
            0.95,
            "keep the 2 cores busy, and more data.workers would not help; smaller images do",
            "storage",
        ),
        (
            0,
            8,
            0.2,
            "2 data.threads decode, and 80% of the 8 cores is idle; set data.workers to 6",
            "would not help",
        ),
        (
            6,
            8,
            0.1,
            "90% of the 8 cores is idle, so that the storage is what is waited for",
            "take turns",
        ),
        (0, 1, 0.1, "90% of the 1 core is idle, so that the storage", "set data.workers"),
    ],
)
def test_the_cause_is_named(workers, cores, busy, words, others):
    cause = waiting(workers, cores).cause(busy)
    assert words in cause and others not in cause


def test_busy_cores_are_told_from_idle_ones():
    watch = waiting(0, 1)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    busy = watch.cpu
    assert data_wait.cpu_seconds() - busy >= 0.25
    watch.restart()
    time.sleep(0.3)
    assert watch.busy() < 0.5


def test_a_run_that_waits_is_reported_once_and_not_for_its_start():
    watch = waiting(4, 8)
    assert watch.news(0.9) == [] and watch.news(0.1) == [] and watch.news(0.9) == []
    (message,) = watch.news(0.8)
    assert message.startswith("the data keeps the run waiting 80% of the time: ")
    assert watch.news(0.9) == []
