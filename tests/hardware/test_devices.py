"""The line about devices at the end of an installation."""

from types import SimpleNamespace

import jax
import pytest

from vlp_jax.hardware import devices
from vlp_jax.hardware.chips import CHIPS


def test_the_devices_of_this_process_are_counted(capsys):
    assert devices.main(["cpu"]) == 0
    assert capsys.readouterr().out == (
        f"8 x cpu (8 here), without known peaks; jax {jax.__version__}\n"
    )


def test_a_chip_of_known_peaks_is_shown_with_them(monkeypatch):
    found = [SimpleNamespace(device_kind=CHIPS["h100"].device_kinds[0])] * 16
    monkeypatch.setattr(jax, "local_devices", lambda: found[:8])
    line = devices.described(found)
    assert line.startswith(f"16 x {CHIPS['h100'].device_kinds[0]} (8 here), 989")


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_a_platform_that_is_not_there_is_an_error(platform, capsys):
    assert devices.main([platform]) == 1
    assert capsys.readouterr().err.startswith(f"JAX finds no {platform}, only 8 x cpu (8 here), ")


def test_a_backend_that_does_not_start_is_named(monkeypatch, capsys):
    def none():
        raise RuntimeError("unable to initialize backend")

    monkeypatch.setattr(jax, "devices", none)
    assert devices.main(["tpu"]) == 1
    assert capsys.readouterr().err == "JAX finds no tpu: unable to initialize backend\n"
