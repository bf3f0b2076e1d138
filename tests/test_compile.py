"""The door that compiles for absent chips.

Tests marked `compile` run the real compilers for TPU and GPU.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from vlp_jax.compile import table
from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.hardware.chips import CHIPS
from vlp_jax.hardware.topologies import parse_topology
from vlp_jax.models.layers.fused_attention import fused_attention
from vlp_jax.models.layers.long_attention import long_attention
from vlp_jax.models.text.recurrent import GruConfig
from vlp_jax.training.cost import estimate as costs
from vlp_jax.training.cost import largest_batch as search
from vlp_jax.training.cost.estimate import CostEstimate, memory_asked_for, nearest_fix, policies
from vlp_jax.training.cost.flops import train_step_flops

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"{ROOT}/configs/clip_b16.py"
KEYS = {
    "parameters",
    "arguments_bytes",
    "temporaries_bytes",
    "output_bytes",
    "chip_memory_bytes",
    "flops_per_step",
    "floor_seconds",
    "collectives",
    "compile_seconds",
    "topology",
    "rematerialisation",
    "batch_size",
}


def door(*arguments):
    """Runs the door as a user does, with no network name, tokenizer or data to be found."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": ""}
    return subprocess.run(
        [sys.executable, "-m", "vlp_jax.compile", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def cost(**changes):
    values = dict(
        topology="v5e:2x2",
        chips=4,
        batch_size=64,
        mesh=dict(data=4, fsdp=1, tensor=1),
        rematerialisation="none",
        parameters=1_000_000,
        arguments_bytes=10,
        temporaries_bytes=20,
        output_bytes=1,
        memory_bytes=31,
        chip_memory_bytes=100,
        fits=True,
        flops_per_step=1,
        floor_compute_seconds=1.0,
        floor_memory_seconds=0.5,
        floor_interconnect_seconds=0.1,
        floor_network_seconds=None,
        floor_seconds=1.0,
        collectives={},
        compile_seconds=1.0,
    )
    return CostEstimate(**{**values, **changes})


# The compilers

tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install '.[compile]'",
)
gpu = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="jax-cuda12-plugin is not installed: pip install '.[compile]'",
)


@pytest.mark.compile
@tpu
def test_a_small_config_compiles_for_a_tpu_and_gives_its_cost(tmp_path):
    done = door(f"--config={CONFIG}:smoke", "--topology=v5e:2x2", f"--json={tmp_path}/cost.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found.keys() >= KEYS
    assert all(isinstance(found[key], int) for key in found if key.endswith("_bytes"))
    # AdamW: parameters and two moments, float32, and the batch of 16 a chip (bytes, ids and masks)
    # beside a few scalars
    state = 3 * 4 * found["parameters"]
    batch = 16 * (32 * 32 * 3 + 24 * 4 + 24 + 2 * 8)
    # tiles of (8, 128) pad what is small
    assert state + batch <= found["arguments_bytes"] < 1.1 * (state + batch) + 2e6
    assert found["output_bytes"] < 0.05 * state  # donated: the new state takes the old one's place
    assert found["flops_per_step"] == train_step_flops(load_config(f"{CONFIG}:smoke"))
    assert (
        found["collectives"]["all-reduce"]["count"] > 0
        and found["collectives"]["collective-permute"]["count"] > 0
    )
    assert found["chip_memory_bytes"] == CHIPS["v5e"].memory_bytes
    assert found["floor_seconds"] >= found["flops_per_step"] / 4 / 197e12
    assert "headroom" in done.stdout or "free" in done.stdout


@pytest.mark.compile
@tpu
def test_what_does_not_fit_is_status_2_with_a_fix_and_two_topologies_are_a_table(tmp_path):
    wide = [
        "--config.model.image.width=4096",
        "--config.model.image.mlp_dim=16384",
        "--config.model.image.heads=32",
        "--config.model.image.depth=48",
    ]
    done = door(
        f"--config={CONFIG}:smoke",
        "--topology=v5e:2x2,v5p:2x2x1",
        f"--json={tmp_path}/costs.json",
        *wide,
    )
    assert done.returncode == 2, done.stderr
    small, large = json.loads((tmp_path / "costs.json").read_text())
    assert not small["fits"] and large["chip_memory_bytes"] > small["chip_memory_bytes"]
    assert small["memory_bytes"] > 3 * 4 * small["parameters"] * 0.9
    assert "nearest fix: --config.mesh.fsdp=4" in done.stdout
    assert (
        done.stdout.splitlines()[-2].startswith("v5e:2x2")
        and "does not fit" in done.stdout.splitlines()[-2]
    )


@pytest.mark.compile
@tpu
def test_other_tpus_and_two_slices_compile_and_what_crosses_slices_is_told_apart(tmp_path):
    done = door(
        f"--config={CONFIG}:smoke",
        "--topology=v4:2x2x1,v6e:2x2,2*v5e:2x2",
        f"--json={tmp_path}/costs.json",
    )
    assert done.returncode == 0, done.stderr
    *single, double = json.loads((tmp_path / "costs.json").read_text())
    assert [cost["chip_memory_bytes"] for cost in single] == [
        CHIPS[name].memory_bytes for name in ("v4", "v6e")
    ]
    assert all(
        cost["floor_network_seconds"] is None
        and cost["collectives"]["all-reduce"]["network_bytes"] == 0
        for cost in single
    )
    assert double["chips"] == 8 and double["floor_network_seconds"] > 0
    assert sum(found["network_bytes"] for found in double["collectives"].values()) > 0


@pytest.mark.compile
@tpu
def test_fsdp_gathers_parameters_and_scatters_their_gradients_on_a_tpu(tmp_path):
    """Each chip sends seven eighths of every large parameter's bfloat16 copy, and of every
    gradient."""
    done = door(
        f"--config={CONFIG}:smoke",
        "--topology=v5e:2x4",
        f"--json={tmp_path}/cost.json",
        "--config.mesh.data=1",
        "--config.mesh.fsdp=-1",
        "--config.mesh.replicate_below=0",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["collectives"]["all-gather"]["sent_bytes"] >= 7 / 8 * 2 * 0.5 * found["parameters"]
    assert found["collectives"]["reduce-scatter"]["sent_bytes"] > 0
    assert found["arguments_bytes"] < 3 * 4 * found["parameters"]


@pytest.mark.compile
@tpu
def test_what_clip_b16_keeps_on_64_chips_stays_under_8_gigabytes(tmp_path):
    """The full config at its size: the smallest steps do not show what a compiler keeps twice."""
    done = door(
        f"--config={CONFIG}",
        "--topology=v5e:8x8",
        "--config.data.batch_size=8192",
        f"--json={tmp_path}/cost.json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["rematerialisation"] == "save_matmuls" and found["temporaries_bytes"] < 8.0e9


@pytest.mark.compile
@tpu
@pytest.mark.parametrize(("length", "kernel"), [(196, fused_attention), (1024, long_attention)])
def test_attention_of_short_and_long_sequences_is_a_kernel_that_a_tpu_s_compiler_takes(
    length, kernel
):
    """Forward and backward; no array of all logits is among the temporaries."""
    program = f"""
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from vlp_jax.models.layers.{kernel.__name__} import {kernel.__name__} as attention
from vlp_jax.hardware.topologies import parse_topology
there = SingleDeviceSharding(parse_topology("v5e:1x1").devices()[0])
x = jax.ShapeDtypeStruct((8, {length}, 16 * 72), jnp.bfloat16, sharding=there)
loss = lambda q, k, v: attention(q, k, v, heads=16).astype(jnp.float32).sum()
compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile()
print("tpu_custom_call" in compiled.as_text(), compiled.memory_analysis().temp_size_in_bytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": ""},
    )
    assert done.returncode == 0, done.stderr
    is_kernel, size = done.stdout.split()
    assert is_kernel == "True" and int(size) < 8 * 16 * length**2 * 4


@pytest.mark.compile
@gpu
@pytest.mark.parametrize("topology", ["h100:8", "h200:16"])
def test_a_small_config_compiles_for_gpus(topology, tmp_path):
    done = door(
        f"--config={CONFIG}:smoke", f"--topology={topology}", f"--json={tmp_path}/cost.json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["temporaries_bytes"] > 0 and found["collectives"]["all-reduce"]["count"] > 0
    assert (found["floor_network_seconds"] is not None) == (found["chips"] > 8)


AUTO = """
import dataclasses, json, sys
from vlp_jax.config import load_config
from vlp_jax.hardware.topologies import parse_topology
from vlp_jax.training.cost import auto_rematerialisation, estimate
topology = parse_topology(sys.argv[1])
keys = [(f"model.{tower}.rematerialisation", "auto") for tower in ("image", "text")]
config = load_config("clip_b16:smoke", [*keys, ("data.batch_size", str(2048 * topology.chips))])
costs = {
    candidate: estimate.estimate_as_given(candidate, topology)
    for candidate in auto_rematerialisation.candidates(config)
}
bills = {cost.rematerialisation: cost.memory_bytes for cost in costs.values()}
estimate.estimate_as_given = lambda candidate, topology: costs[candidate]
chosen = {}
for policy, needed in bills.items():
    room = int(needed / auto_rematerialisation.USED) + 1
    chip = dataclasses.replace(topology.chip, memory_bytes=room)
    there = dataclasses.replace(topology, chip=chip)
    chosen[policy] = estimate.estimate_cost(config, there).rematerialisation
print(json.dumps([bills, chosen]))
"""


@pytest.mark.compile
@pytest.mark.parametrize(
    "topology",
    [pytest.param(name, marks=tpu) for name in ("v5e:1x1", "v5p:1x1x1", "v6e:1x1")]
    + [pytest.param("h100:1", marks=gpu)],
)
def test_automatic_rematerialisation_recomputes_as_little_as_fits_a_chip(topology):
    """With room for the bill of a policy, that policy is chosen, and not one that recomputes
    more."""
    done = subprocess.run(
        [sys.executable, "-c", AUTO, topology],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": ""},
    )
    assert done.returncode == 0, done.stderr
    bills, chosen = json.loads(done.stdout.splitlines()[-1])
    assert bills["none"] > bills["save_matmuls"] > bills["full"] > 0
    assert chosen == {policy: policy for policy in chosen}


# What needs no compiler


@pytest.mark.compile
@tpu
def test_a_topology_or_file_that_cannot_be_is_said_before_anything_is_compiled(tmp_path):
    for arguments, words in (
        (["--topology=v5e:2x2,v5e:3x5"], "v5e:3x5"),
        (
            ["--topology=v5e:2x2", f"--json={tmp_path}/none/cost.json"],
            "none/cost.json cannot be written",
        ),
    ):
        done = door(f"--config={CONFIG}:smoke", *arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
        assert not done.stdout


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--topology=v9:2x2"], "'v9:2x2' is none"),
        (["--topology=v5e:2x2", "--config.model.image.depht=3"], "did you mean 'depth'"),
        ([], "--topology"),
    ],
)
def test_a_mistaken_call_is_one_line_and_status_2(arguments, words):
    done = door(f"--config={CONFIG}:smoke", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_the_table_has_a_line_a_topology():
    lines = table(
        [cost(), cost(topology="v5e:4x4", chips=16, fits=False, temporaries_bytes=None)]
    ).splitlines()
    assert len(lines) == 3 and "69.0%" in lines[1] and "does not fit" in lines[2]


def test_the_compilers_words_are_read_and_other_errors_passed_on():
    chip = CHIPS["v5e"]
    assert memory_asked_for("RESOURCE_EXHAUSTED: Used 31.62G of 15.75G hbm. Exceeded", chip) == int(
        31.62 * 2**30
    )
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (372.65G) exceeds available"
    )
    assert memory_asked_for(said, chip) == int(372.65 * 2**30)
    with pytest.raises(ConfigError, match="refused the program: INTERNAL: no"):
        memory_asked_for("INTERNAL: no\nmore", chip)


FULL = [("model.image.rematerialisation", "full"), ("model.text.rematerialisation", "full")]


@pytest.mark.parametrize(
    ("changes", "overrides", "fix"),
    [
        ({}, [("model.image.rematerialisation", "none")], "rematerialisation=save_matmuls"),
        ({}, [("model.image.rematerialisation", "save_matmuls")], "rematerialisation=full"),
        (
            {"parameters": 10_000_000_000},
            [],
            "--config.mesh.fsdp=4 --config.mesh.data=1 (the state",
        ),
        (
            {"parameters": 10_000_000_000},
            [("mesh.strategy", "data")],
            "mesh.fsdp=4 --config.mesh.data=1 --config.mesh.strategy=none",
        ),
        (
            {"parameters": 10_000_000_000, "mesh": dict(data=2, fsdp=1, tensor=2)},
            [("mesh.tensor", "2")],
            "--config.mesh.fsdp=2 ",
        ),
        (
            {"parameters": 10_000_000_000, "mesh": dict(data=1, fsdp=4, tensor=1)},
            [],
            "more chips, or larger ones",
        ),
        ({"memory_bytes": 34_000_000_000}, FULL, "data.batch_size=28,"),
        (
            {"memory_bytes": 34_000_000_000},
            [*FULL, ("accumulation.microbatches", "4")],
            "data.batch_size=16,",
        ),
        ({"memory_bytes": 34_000_000_000_000}, FULL, "more chips, or larger ones"),
    ],
)
def test_the_nearest_fix_loses_least_and_can_be_done(changes, overrides, fix, monkeypatch):
    monkeypatch.setattr(costs, "plan", lambda config, topology: None)
    config = load_config(f"{CONFIG}:smoke", overrides)
    found = nearest_fix(
        config,
        parse_topology("v5e:2x2"),
        cost(chip_memory_bytes=16_911_433_728, fits=False, **changes),
    )
    assert fix in found


def test_a_text_tower_without_layers_to_rematerialise_is_left_out_of_the_fix():
    config = load_config(f"{CONFIG}:smoke", [("model.image.rematerialisation", "none")])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, text=GruConfig()))
    found = nearest_fix(
        config, parse_topology("v5e:2x2"), cost(chip_memory_bytes=16_911_433_728, fits=False)
    )
    assert (
        found == "--config.model.image.rematerialisation=save_matmuls"
        and policies(config.model) == "none"
    )


def test_a_fix_that_the_model_does_not_divide_by_is_not_proposed(monkeypatch):
    def refuses_four(config, topology):
        if config.mesh.fsdp == 4:
            raise MeshError("no")

    monkeypatch.setattr(costs, "plan", refuses_four)
    large = cost(chip_memory_bytes=16_911_433_728, fits=False, parameters=10_000_000_000)
    found = nearest_fix(load_config(f"{CONFIG}:smoke"), parse_topology("v5e:2x2"), large)
    assert "--config.mesh.fsdp=2 --config.mesh.data=2" in found


@pytest.mark.parametrize(
    "memory_of",
    [lambda size: 1000 + 7 * size, lambda size: 2000 + size**2 // 50, lambda size: 9000 + size],
)
def test_the_largest_batch_is_within_an_eighth_of_the_end_and_fits(memory_of, monkeypatch):
    compiled = []

    def pretend(config, topology):
        size = config.data.batch_size
        compiled.append(size)
        return cost(
            batch_size=size,
            memory_bytes=memory_of(size),
            chip_memory_bytes=10_000,
            fits=memory_of(size) <= 10_000,
        )

    monkeypatch.setattr(search, "estimate_cost", pretend)
    monkeypatch.setattr(search, "unit_of", lambda config, topology: 4)
    found = search.largest_batch(
        load_config(f"{CONFIG}:smoke"), parse_topology("v5e:2x2"), lambda line: None
    )
    largest = max(size for size in range(4, 20_000, 4) if memory_of(size) <= 10_000)
    assert found.fits and found.batch_size >= largest * 8 / 9 - 4
    assert len(compiled) <= search.COMPILES


def test_where_not_one_example_fits_that_is_said(monkeypatch):
    monkeypatch.setattr(
        search, "estimate_cost", lambda config, topology: cost(memory_bytes=200, fits=False)
    )
    monkeypatch.setattr(search, "unit_of", lambda config, topology: 4)
    with pytest.raises(ConfigError, match="not even 4 examples fit v5e:2x2"):
        search.largest_batch(
            load_config(f"{CONFIG}:smoke"), parse_topology("v5e:2x2"), lambda line: None
        )
