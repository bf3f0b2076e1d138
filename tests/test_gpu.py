"""On an NVIDIA GPU, which nothing else here needs: JAX_PLATFORMS=cuda python -m pytest -n 0 -m
gpu"""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.models.layers.attention import cudnn_attention, kernel_for, plain_attention
from vlp_jax.sharding.layout import Layout

pytestmark = pytest.mark.gpu

# (queries, tokens looked at, causal, masked): a picture, a caption, a caption that looks at a
# picture
SHAPES = [
    (197, 197, False, False),
    (77, 77, True, True),
    (64, 64, False, True),
    (77, 197, False, False),
    (50, 50, False, False),
]


@pytest.fixture(scope="module")
def layout():
    devices = np.array(jax.devices("cuda")[:1]).reshape(1, 1, 1)
    return Layout(
        jax.sharding.Mesh(devices, ("data", "fsdp", "tensor")),
        (("batch", "data"), ("activation_heads", "tensor")),
    )


@pytest.mark.parametrize("queries, tokens, causal, masked", SHAPES)
def test_cudnn_is_chosen_and_equals_plain_attention(layout, queries, tokens, causal, masked):
    q, k, v = (
        jax.random.normal(key, (4, length, 3 * 64), jnp.bfloat16)
        for key, length in zip(
            jax.random.split(jax.random.key(0), 3), (queries, tokens, tokens), strict=True
        )
    )
    mask = jnp.arange(tokens) < jnp.array([[tokens], [tokens // 2], [1], [0]]) if masked else None
    assert kernel_for(layout, q, k, heads=3) is cudnn_attention

    def results(compute, *arrays):
        def loss(q, k, v):
            out = compute(q, k, v, heads=3, mask=mask, causal=causal).astype(jnp.float32)
            return (
                out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
            ).sum(), out

        gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
        return out, *gradients

    exact = results(plain_attention, *(x.astype(jnp.float32) for x in (q, k, v)))
    for name, ours, plain, expected in zip(
        ["out", "dq", "dk", "dv"],
        results(cudnn_attention, q, k, v),
        results(plain_attention, q, k, v),
        exact,
        strict=True,
    ):
        ours, plain = (
            np.abs(np.asarray(x, np.float32) - np.asarray(expected)).max() for x in (ours, plain)
        )
        # as exact as bfloat16 by plain products is
        assert ours <= max(2 * plain, 0.01 * np.abs(expected).max()), name


def train(workdir, platform, *changes):
    """The losses of metrics.jsonl after `python -m vlp_jax.main`, a process of its own."""
    command = [
        sys.executable,
        "-m",
        "vlp_jax.main",
        "--config=configs/clip_emoji.py:smoke",
        f"--workdir={workdir}",
        "--config.evaluators={}",
        "--config.log_every=1",
        *(f"--config.{change}" for change in changes),
    ]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": platform,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": "",
        # this process has taken most of the memory
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


def test_losses_are_those_of_a_cpu_and_a_resumed_run_is_an_unbroken_one(tmp_path):
    unbroken = train(tmp_path / "gpu", "cuda", "steps=6")
    np.testing.assert_allclose(unbroken, train(tmp_path / "cpu", "cpu", "steps=6"), rtol=1e-4)
    resumed = tmp_path / "resumed"
    train(resumed, "cuda", "steps=6", "checkpoint.every_steps=3")
    shutil.rmtree(resumed / "checkpoints" / "6")
    assert train(resumed, "cuda", "steps=6", "checkpoint.every_steps=3") == unbroken
