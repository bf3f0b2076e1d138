"""The benchmarks that need no other framework run, small: their figures mean nothing here."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from vlp_jax.data.sources.registry import open_source

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number, sample in enumerate(open_source("synthetic:8?height=300&width=400")):
        (folder / f"{number}.jpg").write_bytes(sample.image)
    return folder


def run(script, *arguments):
    command = [sys.executable, f"{ROOT}/benchmarks/{script}.py", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def last_line(script, *arguments):
    return json.loads(run(script, *arguments).stdout.splitlines()[-1])


@pytest.mark.slow
def test_input_pipeline(photographs, tmp_path):
    few = [
        "--samples=64",
        "--batch=16",
        "--batches=1",
        "--warm=1",
        "--rounds=1",
        "--workers=1",
        f"--folder={tmp_path}",
    ]
    found = last_line("input_pipeline", f"--photographs={photographs}", *few)["1"]
    assert found["ours"]["shape"] == [16, 224, 224, 3]
    assert {"ours/decoder", "ours/pillow"} <= found.keys()


@pytest.mark.slow
def test_image_decoding(photographs):
    found = last_line("image_decoding", photographs, "--rounds=1", "--count=2")
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.slow
def test_large_set(tmp_path):
    found = last_line("large_set", "--samples=20000", f"--folder={tmp_path}")
    assert {kind: found[kind]["open"]["samples"] for kind in found} == {
        "webdataset": 20000,
        "arrayrecord": 20000,
        "jsonl": 20000,
    }


@pytest.mark.slow
def test_accelerator_step():
    found = last_line(
        "accelerator_step",
        "--config=configs/clip_emoji.py:smoke",
        "--config.data.batch_size=8",
        "--steps=1",
    )
    assert found["batch"] == 8 and found["loss"] > 0


@pytest.mark.slow
def test_start_up():
    found = last_line("start_up", "--rounds=1", "--config.steps=2")
    assert found.keys() == {"this version, cold", "this version, warm"}
    for phases in found.values():
        named = [phases[name] for name in ("imports", "config", "model", "parameters", "update")]
        assert all(seconds > 0 for seconds in named) and sum(named) < phases["total"]


@pytest.mark.slow
def test_convert_memory(tmp_path):
    done = run("convert_memory", tmp_path, "--layers=1", "--text-layers=1")
    sizes, inwards, outwards = done.stdout.splitlines()
    assert sizes.endswith("GiB as float32")
    assert "peak" in inwards and "huggingface:" in outwards.partition(" -> ")[2]


@pytest.mark.slow
def test_gpu_matrix(tmp_path):
    output = tmp_path / "matrix.json"
    done = run("gpu_matrix", "--dry-run", "--steps=1", "--seconds=3000", f"--output={output}")
    found = json.loads(output.read_text())
    assert [row["name"] for row in found["rows"]] == [
        "unrolled, none",
        "unrolled, save_matmuls",
        f"{found['rows'][2]['name'].rpartition(',')[0]}, batch 16",
    ]
    assert all(row["samples_per_second"] > 0 for row in found["rows"])
    parts = found["breakdown"]
    assert parts["matmul"] > 0 and "| unrolled, none | 8 |" in done.stdout


def test_kinds_of_kernels_and_idle_time_of_a_profile(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    gpu_matrix = importlib.import_module("gpu_matrix")
    events = [
        ("sm90_xmma_gemm_bf16", 0, 40),
        ("cudnn_generated_fort_native_sdpa_fprop", 40, 20),
        ("loop_transpose_fusion", 70, 10),  # after 10 idle
        ("input_reduce_fusion", 75, 25),  # at the same time as the last, in part
    ]
    assert gpu_matrix.breakdown(events[::-1]) == pytest.approx(
        {"matmul": 0.4, "attention": 0.2, "copies": 0.1, "rest": 0.25, "idle": 0.1}
    )


@pytest.mark.slow
def test_contrastive_memory():
    found = last_line(
        "contrastive_memory", "--platform=cpu", "--shapes=2,4", "--rows=16", "--width=16"
    )
    assert len(found["temporaries"]) == 6 and all(
        size > 0 for sizes in found["temporaries"].values() for size in sizes.values()
    )


@pytest.mark.slow
def test_vqa_fusions(tmp_path):
    few = ["--config.steps=1", "--config.data.batch_size=8"]
    found = last_line("vqa_fusions", tmp_path, "--fusions=gated", *few)["gated"]
    assert (
        found["val_vendor/classification_samples"] == 4380
        and found["val_vendor/classification_majority"] > 0.15
    )


@pytest.mark.full
def test_retrieval_memory():
    command = [sys.executable, f"{ROOT}/benchmarks/retrieval_memory.py", "--images=300", "--dim=16"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "ranks of 200 queries equal those of a sort: True" in done.stdout, done.stderr
