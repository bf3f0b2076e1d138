"""How many worker processes a machine gets where the config names none."""

import os
import pathlib

import pytest

from vlp_jax.config import clip, load_config, siglip, to_config
from vlp_jax.data import cores
from vlp_jax.data.config import DataConfig
from vlp_jax.data.cores import available_cores, container_quota, workers_for

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("count", "accelerator", "workers"),
    [
        (1, True, 0),
        (2, True, 0),
        (2, False, 0),
        (3, True, 0),
        (4, True, 2),
        (4, False, 1),
        (8, True, 6),
        (8, False, 3),
        (16, True, 14),
        (128, True, 16),
        (128, False, 16),
    ],
)
def test_workers_are_fewer_than_the_cores_and_none_on_small_machines(count, accelerator, workers):
    assert workers_for(count, accelerator) == workers


def test_recipes_leave_the_workers_to_the_machine_and_smoke_variants_have_none():
    assert DataConfig().workers is None
    assert clip().data.workers is None and siglip().data.workers is None
    assert load_config(f"{ROOT}/configs/albef.py").data.workers is None
    assert load_config(f"{ROOT}/configs/albef.py:smoke").data.workers == 0
    tree = clip().to_dict()
    tree["data"]["workers"] = 16
    assert to_config(tree).data.workers == 16


def test_the_quota_of_a_container_counts(tmp_path, monkeypatch):
    unified, old = tmp_path / "cpu.max", tmp_path / "cpu.cfs_quota_us"
    assert container_quota(unified, old) is None
    unified.write_text("250000 100000\n")
    assert container_quota(unified, old) == 2.5
    unified.write_text("max 100000\n")
    assert container_quota(unified, old) is None
    unified.unlink()
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    for text, quota in (("400000\n", 4.0), ("-1\n", None), ("odd\n", None)):
        old.write_text(text)
        assert container_quota(unified, old) == quota
    old.write_text("50000\n")
    monkeypatch.setattr(cores, "CGROUPS", (unified, old))
    assert available_cores() == 1
    old.write_text("-1\n")
    assert available_cores() == len(os.sched_getaffinity(0))
