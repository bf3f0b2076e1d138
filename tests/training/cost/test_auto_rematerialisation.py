"""`rematerialisation="auto"`: the order of the policies, and the choice by a device's memory."""

import jax
import pytest

from vlp_jax.config import load_config
from vlp_jax.training.cost import auto_rematerialisation as auto
from vlp_jax.training.cost.memory import gigabytes

GIGABYTE = 10**9


def experiment(**changes):
    """clip_b32:smoke with `auto` in both towers."""
    overrides = {f"model.{tower}.rematerialisation": "auto" for tower in ("image", "text")}
    return load_config("clip_b32:smoke", [*(overrides | changes).items()])


def policies(config):
    return config.model.image.rematerialisation, config.model.text.rematerialisation


def test_the_least_recomputation_is_tried_first():
    found = [policies(candidate) for candidate in auto.candidates(experiment())]
    assert found == [("none",) * 2, ("save_matmuls",) * 2, ("full",) * 2]


def test_a_part_with_a_policy_of_its_own_keeps_it():
    config = experiment(**{"model.text.rematerialisation": "full"})
    found = [policies(candidate) for candidate in auto.candidates(config)]
    assert found == [("none", "full"), ("save_matmuls", "full"), ("full", "full")]
    given = experiment(
        **{f"model.{tower}.rematerialisation": "save_matmuls" for tower in ("image", "text")}
    )
    assert [*auto.candidates(given)] == [given] and auto.resolve(given) is given


def test_a_tower_without_a_policy_takes_the_next_with_less_memory():
    config = load_config(
        "clip_rn50:smoke",
        [(f"model.{tower}.rematerialisation", "auto") for tower in ("image", "text")],
    )
    found = [policies(candidate) for candidate in auto.candidates(config)]
    assert found == [("none", "none"), ("full", "save_matmuls"), ("full", "full")]


@pytest.mark.parametrize(
    ("memory", "chosen"), [(40.0, "none"), (21.0, "save_matmuls"), (20.5, "full"), (1.0, "full")]
)
def test_the_first_that_fits_is_taken_and_reported(monkeypatch, capsys, memory, chosen):
    """20 GB fit 21.06 GB, of which a twentieth stays free."""
    needs = {"none": 30 * GIGABYTE, "save_matmuls": 19.95 * GIGABYTE, "full": 5 * GIGABYTE}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(auto, "device_memory", lambda: (memory * GIGABYTE, "a GPU"))
    monkeypatch.setattr(
        auto, "memory_needed", lambda config: needs[config.model.image.rematerialisation]
    )
    assert policies(auto.resolve(experiment())) == (chosen, chosen)
    line = capsys.readouterr().out
    assert line.startswith(f"rematerialisation={chosen!r}: none needs 30 GB")
    assert line.endswith(f"a GPU has {gigabytes(memory * GIGABYTE)}\n")


@pytest.mark.full
def test_a_compiler_that_refuses_for_want_of_memory_does_not_end_the_search(monkeypatch):
    def refuse(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in hbm")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert policies(auto.resolve(experiment())) == ("full", "full")


def test_nothing_is_recomputed_or_compiled_for_a_cpu(monkeypatch):
    monkeypatch.setattr(auto, "memory_needed", None)
    assert policies(auto.resolve(experiment())) == ("none", "none")


def test_the_bytes_of_a_program_are_those_of_its_parts():
    compiled = (
        jax.jit(lambda x, y: (x + 1, (x @ y).sum()), donate_argnums=0)
        .lower(*[jax.ShapeDtypeStruct((64, 64), "float32")] * 2)
        .compile()
    )
    memory = compiled.memory_analysis()
    # two arguments, of which the first is used again for the result, and a scalar
    assert auto.program_bytes(memory) - memory.temp_size_in_bytes == 2 * 64 * 64 * 4 + 4 + (
        memory.output_size_in_bytes - 64 * 64 * 4 - 4
    )
