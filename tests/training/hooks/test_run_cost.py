"""The line about the least cost of a run, against figures by hand."""

from types import SimpleNamespace

import pytest

from vlp_jax.hardware.chips import CHIPS
from vlp_jax.training.hooks import run_cost
from vlp_jax.training.hooks.compilations import WatchedStep
from vlp_jax.training.hooks.run_cost import RunCost, least_time


def test_the_least_time_is_flops_by_the_peak():
    """1.97e13 flops at 197e12 a second are 0.1 s; 36,000 of them an hour of each of 4 chips."""
    assert least_time(1.97e13, 512, 36_000, 4, CHIPS["v5e"]) == (
        "4 x v5e at 197 Tflops: at least 100.0 ms an update (5,120 examples/s at most), "
        "1:00:00 or 4.0 chip hours for 36,000 updates"
    )


def hook(kind, step, monkeypatch):
    monkeypatch.setattr(run_cost, "train_step_flops", lambda config: 2 * 1.97e13)
    mesh = SimpleNamespace(size=2, local_devices=[SimpleNamespace(device_kind=kind)])
    config = SimpleNamespace(data=SimpleNamespace(batch_size=512))
    return RunCost(config, mesh, 10, step)


@pytest.mark.parametrize("kind", CHIPS["v5e"].device_kinds)
def test_the_line_comes_once_with_the_memory_of_the_program(kind, monkeypatch, capsys):
    step = WatchedStep(None)
    step.program_bytes = 7_500_000_000
    monkeypatch.setattr(run_cost, "device_memory", lambda: (12 * 10**9, "a TPU v5e"))
    cost = hook(kind, step, monkeypatch)
    for number in (3, 4):
        cost.after(SimpleNamespace(step=number))
    (line,) = capsys.readouterr().out.splitlines()
    assert "for 8 updates" in line and "2 x v5e" in line
    assert line.endswith("; an update needs 7.5 GB, a TPU v5e has 12 GB")


def test_nothing_is_said_of_devices_without_known_peaks(monkeypatch, capsys):
    hook("cpu", WatchedStep(None), monkeypatch).after(SimpleNamespace(step=1))
    assert capsys.readouterr() == ("", "")
