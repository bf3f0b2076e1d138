"""Throughput of the train step of a config, or of OpenCLIP, on this machine's accelerators.

Images and tokens are random.

python benchmarks/accelerator_step.py --config=configs/clip_b16.py [--steps=20] \
    [--profile=DIR] [--config.data.batch_size=512 ...]
python benchmarks/accelerator_step.py --open-clip=ViT-B-16 [--batch=512] [--compiled] [--steps=20]

The second form uses OpenCLIP's model, loss and optimizer groups with bfloat16 autocast (its
`--precision amp_bf16`) and fused AdamW, on one GPU. Both time whole blocks of steps and wait for
the last update. Prints one line of JSON, in which `memory_gigabytes` is the peak memory in use, and
`estimated_gigabytes` the compiler's estimate of it. `--profile` records three steps more for the
profiler, and `--compile-only` ends after compilation, to fill the compilation cache.
"""

import argparse
import json
import math
import sys
import time

import numpy as np


def our_step(given, arguments):
    import jax

    from vlp_jax.command_line import split_overrides
    from vlp_jax.config import load_config
    from vlp_jax.hardware.chips import chip_of
    from vlp_jax.sharding.mesh import batch_sharding, build_mesh
    from vlp_jax.sharding.rules import build_layout
    from vlp_jax.training.build import batch_shapes, build_update, example_batch
    from vlp_jax.training.cost.flops import train_step_flops
    from vlp_jax.training.state import create_state

    rest, overrides = split_overrides(arguments)
    if rest:
        sys.exit(f"not known: {rest}")
    config = load_config(given.config, overrides)
    layout = build_layout(config.mesh, build_mesh(config.mesh))
    update = build_update(config, layout, steps=100_000)
    rng = np.random.default_rng(0)
    batch = {
        name: random_array(rng, shape, config.model.text.vocab_size)
        for name, shape in batch_shapes(config).items()
    }
    batch = jax.tree.map(lambda x: jax.device_put(x, batch_sharding(layout.mesh)), batch)
    initial = jax.jit(
        lambda: create_state(
            update.module,
            example_batch(config),
            update.optimizer,
            config.seed,
            config.ema is not None,
        ),
        out_shardings=update.shardings,
    ).lower()
    start = time.perf_counter()
    step = update.train_step.lower(update.state_shapes, batch).compile()
    compile_seconds = time.perf_counter() - start
    memory, initial = step.memory_analysis(), initial.compile()
    estimate = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e9
    if given.compile_only:
        return {"compile_seconds": compile_seconds, "estimated_gigabytes": estimate}
    state = initial()

    def advance(steps):
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch)
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    seconds, loss = timed(advance, given.steps)
    if given.profile:
        with jax.profiler.trace(given.profile):
            advance(3)
    device = layout.mesh.local_devices[0]
    chip, used = chip_of(device.device_kind), device.memory_stats() or {}
    flops = train_step_flops(config)
    return {
        "config": given.config,
        "device": device.device_kind,
        "devices": layout.mesh.size,
        **rates(seconds, config.data.batch_size),
        "compile_seconds": compile_seconds,
        "loss": loss,
        "model_flops_utilisation": flops / seconds / (chip.flops * layout.mesh.size)
        if chip
        else None,
        "memory_gigabytes": used["peak_bytes_in_use"] / 1e9 if used else None,
        "estimated_gigabytes": estimate,
    }


def random_array(rng, like, vocabulary):
    """A random array: bytes for pixels, token ids or sample numbers for integers, True for
    masks."""
    if like.dtype == bool:
        return np.ones(like.shape, bool)
    return rng.integers(0, 256 if like.dtype == np.uint8 else vocabulary, like.shape, like.dtype)


def open_clip_step(given):
    import open_clip
    import torch

    torch.set_float32_matmul_precision("high")
    model = open_clip.create_model(given.open_clip, device="cuda").train()
    model.set_grad_checkpointing(given.checkpointing)
    loss_of = open_clip.ClipLoss()
    plain = {
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
                parameter for name, parameter in model.named_parameters() if plain[name] == without
            ],
            weight_decay=decay,
        )
        for without, decay in ((True, 0.0), (False, 0.2))
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)
    images = torch.randn(given.batch, 3, 224, 224, device="cuda")
    text = torch.randint(1, 49407, (given.batch, 77), device="cuda")
    text[:, -1] = 49407
    forward = torch.compile(model) if given.compiled else model

    def advance(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_of(*forward(images, text))
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
        torch.cuda.synchronize()
        return loss.item()

    seconds, loss = timed(advance, given.steps)
    return {
        "open_clip": given.open_clip,
        "compiled": given.compiled,
        "checkpointing": given.checkpointing,
        "device": torch.cuda.get_device_name(),
        **rates(seconds, given.batch),
        "loss": loss,
        "memory_gigabytes": torch.cuda.max_memory_allocated() / 1e9,
    }


def timed(advance, steps):
    """(seconds per step, last loss): the median of three blocks, after a warm-up."""
    advance(3)
    blocks = []
    for _ in range(3):
        start = time.perf_counter()
        loss = advance(steps)
        blocks.append((time.perf_counter() - start) / steps)
    return sorted(blocks)[1], loss


def rates(seconds, rows):
    return {"batch": rows, "seconds": seconds, "samples_per_second": rows / seconds}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", help="ours: a config file, with --config.KEY=VALUE after it")
    which.add_argument("--open-clip", metavar="MODEL", help="OpenCLIP's model of that name instead")
    parser.add_argument(
        "--batch", type=int, default=512, help="of OpenCLIP's; ours is data.batch_size"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="OpenCLIP's model through torch.compile"
    )
    parser.add_argument(
        "--checkpointing",
        action="store_true",
        help="OpenCLIP's model with activation checkpointing",
    )
    parser.add_argument("--steps", type=int, default=20, help="of a block")
    parser.add_argument("--profile", help="folder for a profile of three more steps of ours")
    parser.add_argument("--compile-only", action="store_true", help="compile ours, time nothing")
    given, rest = parser.parse_known_args()
    print(
        json.dumps(open_clip_step(given) if given.open_clip else our_step(given, rest)), flush=True
    )


if __name__ == "__main__":
    main()
