"""Peak host memory and time of converting a large public checkpoint.

python benchmarks/convert_memory.py DIR [--layers=32] [--text-layers=24]
  writes a random CLIPModel of OpenCLIP's ViT-H sizes (986 million parameters) as shards of a
  Hugging Face folder, converts it to a workdir and back, each in a process of its own, and prints
  peak resident memory and seconds next to the bytes of the parameters.
"""

import argparse
import json
import math
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

VISION = dict(hidden_size=1280, intermediate_size=5120, num_attention_heads=16, patch_size=14)
TEXT = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, hidden_act="gelu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=32, help="of the image tower")
    parser.add_argument("--text-layers", type=int, default=24, help="of the text tower")
    parser.add_argument("--phase", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.phase:
        return convert(*given.phase)
    original = given.folder / "original"
    size = write(original, given.layers, given.text_layers)
    print(f"parameters: {size / 2**30:.2f} GiB as float32")
    steps = [
        (f"huggingface:{original}", str(given.folder / "workdir")),
        (str(given.folder / "workdir"), f"huggingface:{given.folder / 'again'}"),
    ]
    for origin, target in steps:
        run = [sys.executable, __file__, str(given.folder), "--phase", origin, target]
        print(subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip())


def convert(origin: str, target: str) -> None:
    """One conversion, in this process."""
    from vlp_jax import convert

    start = time.monotonic()
    inwards = ["--tokenizer=embedded:clip"] if origin.startswith("huggingface:") else []
    convert.main([f"--from={origin}", f"--to={target}", "-q", *inwards])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{origin} -> {target}: peak {peak / 2**30:.2f} GiB, {time.monotonic() - start:.0f} s")


def write(folder: pathlib.Path, layers: int, text_layers: int) -> int:
    """Writes a random checkpoint in shards; returns the bytes of its parameters."""
    from transformers import CLIPConfig

    from vlp_jax.weights.family import HUGGINGFACE
    from vlp_jax.weights.files import write_tensors

    folder.mkdir(parents=True)
    config = CLIPConfig(
        vision_config={**VISION, "num_hidden_layers": layers, "hidden_act": "gelu"},
        text_config={**TEXT, "num_hidden_layers": text_layers},
        projection_dim=1024,
    ).to_dict()
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip"}, default=str))
    family = HUGGINGFACE["clip"]()
    shapes = parameter_shapes(family, config)
    rng, total = np.random.default_rng(0), 0

    def tensors():
        nonlocal total
        for rule in rules_of(family, shapes):
            ours = [rng.normal(0, 0.02, shapes[path]).astype(np.float32) for path in rule.ours]
            total += sum(math.prod(shapes[path]) for path in rule.ours) * 4
            arrays = [np.array(array, order="C") for array in rule.give(ours)]
            yield from zip(rule.theirs, arrays, strict=True)

    write_tensors(str(folder), "model", tensors(), shard_bytes=1_000_000_000)
    return total


def parameter_shapes(family, config):
    """{our path: shape} of a config of theirs."""
    from vlp_jax.weights.export import parameter_shapes
    from vlp_jax.weights.public import as_experiment

    return parameter_shapes(as_experiment(family.config(config, {}, "config"), "config"))


def rules_of(family, shapes):
    """The rules for these parameters."""
    from vlp_jax.weights.matching import matching

    return matching(family.rules, shapes)[0]


if __name__ == "__main__":
    main()
