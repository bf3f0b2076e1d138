"""Our training step compared with OpenCLIP's, eager and compiled, on a CPU.

The model is ViT-B/32 with CLIP's 12 x 512 text tower, in float32 with AdamW.

python -m venv /tmp/open_clip && /tmp/open_clip/bin/pip install torch==2.14.1 torchvision==0.29.1 \
    open_clip_torch
python benchmarks/train_step.py --open-clip-python=/tmp/open_clip/bin/python [--rounds=5] \
    [--steps=2] [--batch=16]

Each framework runs in a process of its own and does a block of steps on request. The blocks
alternate and never overlap, so that other load on the machine affects both. The first step of a
block is not counted: in it, memory and caches that the others have used come back, which does not
happen in training. Ours is started twice, with an empty and with a filled compilation cache.
Without `--open-clip-python` ours runs alone. All use large pages, which avoid page faults (the C
library's `GLIBC_TUNABLES`; set it to another value to compare). Prints a table and, as the last
line, JSON.
"""

import argparse
import functools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
RATE, BETAS, EPSILON, DECAY = 5e-4, (0.9, 0.98), 1e-6, 0.2
START, END = 49406, 49407


def random_batch(rows):
    """A random batch.

    Returns: uint8 images [B, 224, 224, 3], token ids [B, 77] (start token, words, end token, zeros)
      and their padding mask.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, 224, 224, 3)).astype(np.uint8)
    lengths = rng.integers(8, 78, (rows, 1))
    places = np.arange(77)
    text = np.where(places < lengths, rng.integers(1, START, (rows, 77)), 0)
    text[:, 0] = START
    np.put_along_axis(text, lengths - 1, END, axis=1)
    return images, text.astype(np.int32), places < lengths


def our_step(rows):
    """(function that does one step and returns its loss, seconds of tracing and compilation)."""
    import jax
    import numpy as np

    from vlp_jax.config import base, to_config
    from vlp_jax.sharding.mesh import batch_sharding, build_mesh
    from vlp_jax.sharding.rules import build_layout
    from vlp_jax.training.build import build_update, example_batch
    from vlp_jax.training.state import create_state

    config = base()
    config.update(steps=1000, objectives=dict(contrastive=dict(kind="clip")))
    config.data.batch_size = rows
    config.model.image.update(
        preset="B/32",
        norm_epsilon=1e-5,
        embedding_norm=True,
        patch_bias=False,
        initialization="clip",
    )
    config.model.text.update(preset="clip-B", norm_epsilon=1e-5, initialization="clip")
    config.optimizer.update(
        learning_rate=RATE, b1=BETAS[0], b2=BETAS[1], epsilon=EPSILON, weight_decay=DECAY
    )
    config.optimizer.schedule.kind = "constant"
    config = to_config(config.to_dict())

    layout = build_layout(config.mesh, build_mesh(config.mesh))
    update = build_update(config, layout, config.steps)
    images, text, mask = random_batch(rows)
    ids = np.stack([np.arange(rows), np.arange(rows)], axis=1).astype(np.int32)
    batch = dict(image=images, text=text, text_mask=mask, caption_id=ids, image_id=ids)
    batch = jax.tree.map(lambda x: jax.device_put(x, batch_sharding(layout.mesh)), batch)
    state = jax.jit(
        lambda: create_state(update.module, example_batch(config), update.optimizer, 0, False),
        out_shardings=update.shardings,
    )()
    start = time.perf_counter()
    step = update.train_step.lower(state, batch).compile()
    seconds = time.perf_counter() - start

    def advance():
        nonlocal state
        # the loss alone may be ready before the update is
        state, metrics = jax.block_until_ready(step(state, batch))
        return float(metrics["loss"])

    return advance, seconds


def open_clip_step(rows, compiled=False):
    """The same for OpenCLIP: its ViT-B-32, ClipLoss, and the parameter groups of its trainer.

    compiled: whether to use torch.compile.
    """
    import math

    import open_clip
    import torch

    model = open_clip.create_model("ViT-B-32").train()
    loss_of = open_clip.ClipLoss()
    kept = {
        name: parameter.ndim < 2
        or "bn" in name
        or "ln" in name
        or "bias" in name
        or "logit_scale" in name
        for name, parameter in model.named_parameters()
    }
    groups = [
        dict(
            params=[
                parameter for name, parameter in model.named_parameters() if kept[name] == without
            ],
            weight_decay=decay,
        )
        for without, decay in ((True, 0.0), (False, DECAY))
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON)
    images, text, _ = random_batch(rows)
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    images = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    text = torch.from_numpy(text).long()
    forward = torch.compile(model) if compiled else model

    def advance():
        optimizer.zero_grad()
        loss = loss_of(*forward(images, text))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return loss.item()

    return advance, 0.0


STEPS = {
    "ours": our_step,
    "open_clip": open_clip_step,
    "open_clip compiled": functools.partial(open_clip_step, compiled=True),
}


def work(name, rows):
    """A worker: reports when it is ready, then answers each number of steps with their times."""
    advance, compile_seconds = STEPS[name](rows)
    start = time.perf_counter()
    advance()
    if name == "open_clip compiled":  # it compiles in its first step
        compile_seconds = time.perf_counter() - start
    print(json.dumps({"compile_seconds": compile_seconds}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        advance()
        first, seconds, cpu_before = time.perf_counter() - start, [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = advance()
            seconds.append(time.perf_counter() - start)
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cpu_seconds = (time.process_time() - cpu_before) / int(line)
        print(
            json.dumps(
                {
                    "first_seconds": first,
                    "seconds": seconds,
                    "cpu_seconds": cpu_seconds,
                    "loss": loss,
                    "gigabytes": gigabytes,
                }
            ),
            flush=True,
        )


class Worker:
    """The other end of `work`."""

    def __init__(self, python, name, rows, cache):
        environment = {
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.process = subprocess.Popen(
            [python, __file__, f"--worker={name}", f"--batch={rows}"],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.compile_seconds = self.read()["compile_seconds"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a worker ended with status {self.process.wait()}; its message stands above")
        return json.loads(line)

    def run(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(arguments):
    with tempfile.TemporaryDirectory() as cache:
        first = Worker(sys.executable, "ours", arguments.batch, cache)
        first.close()
        workers = {"ours": Worker(sys.executable, "ours", arguments.batch, cache)}
    if arguments.open_clip_python:
        for name in ("open_clip", "open_clip compiled"):
            workers[name] = Worker(arguments.open_clip_python, name, arguments.batch, "")
    blocks = {name: [] for name in workers}
    for i in range(arguments.rounds):
        for name in sorted(workers, reverse=i % 2 == 1):  # the order alternates too
            blocks[name].append(workers[name].run(arguments.steps))
    for worker in workers.values():
        worker.close()
    return {
        "batch": arguments.batch,
        "compile_seconds": first.compile_seconds,
        "compile_seconds_with_cache": workers["ours"].compile_seconds,
        "first_step_seconds_open_clip_compiled": workers["open_clip compiled"].compile_seconds
        if len(workers) > 1
        else None,
        **{name: summary(results, arguments.batch) for name, results in blocks.items()},
    }


def summary(blocks, rows):
    seconds = statistics.mean(second for block in blocks for second in block["seconds"])
    cpu = statistics.mean(block["cpu_seconds"] for block in blocks)
    return {
        "all_seconds": [round(second, 2) for block in blocks for second in block["seconds"]],
        "first_seconds": [round(block["first_seconds"], 2) for block in blocks],
        "seconds": seconds,
        "samples_per_second": rows / seconds,
        "cpu_seconds": cpu,
        "samples_per_cpu_second": rows / cpu,
        "gigabytes": max(block["gigabytes"] for block in blocks),
        "loss": blocks[-1]["loss"],
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--open-clip-python", help="the interpreter of an environment with open_clip_torch"
    )
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each framework")
    parser.add_argument(
        "--steps", type=int, default=2, help="steps a block, after one that is not counted"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--worker", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.batch)
    results = compare(arguments)
    print(
        f"{'':18} {'s/step':>8} {'samples/s':>10} {'CPU s/step':>11} {'samples/CPU s':>14} "
        f"{'peak GB':>8}"
    )
    for name in STEPS:
        if name in results:
            row = results[name]
            print(
                f"{name:18} {row['seconds']:8.2f} {row['samples_per_second']:10.2f} "
                f"{row['cpu_seconds']:11.2f} {row['samples_per_cpu_second']:14.2f} "
                f"{row['gigabytes']:8.1f}"
            )
    print(
        f"compile: {results['compile_seconds']:.1f} s, "
        f"{results['compile_seconds_with_cache']:.1f} s with cache"
    )
    for name in ("open_clip", "open_clip compiled"):
        if name in results:
            ratio, cpu_ratio = (
                results[name][key] / results["ours"][key] for key in ("seconds", "cpu_seconds")
            )
            results[f"ratio to {name}"], results[f"CPU ratio to {name}"] = ratio, cpu_ratio
            print(
                f"ours is {ratio:.3f} times as fast as {name} by the clock, {cpu_ratio:.3f} "
                "times by CPU time"
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
