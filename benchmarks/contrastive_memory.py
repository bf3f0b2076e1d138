"""Memory of the contrastive losses alone, from the TPU compiler: only its library is needed, no
TPU.

pip install "jax[tpu]"; python benchmarks/contrastive_memory.py [--shapes=4x8,8x8,8x16,16x16] \
    [--rows=256] [--width=512]

Compiles value and gradients (with respect to embeddings, scale and bias) for v5e slices of growing
size with the same number of examples per chip, and prints the temporaries per chip, in bytes. For
comparison it prints 4 B E 4 bytes: the gathered embeddings of all B examples and their gradients,
for images and texts. Arrays that fit into the chip's on-chip memory are no temporaries, so that 0
is possible. Prints a table and, as the last line, JSON. `--platform=cpu --shapes=2,4,8` does the
same with that many virtual CPU devices.
"""

import argparse
import functools
import json
import math
import os
import sys

from vlp_jax.sharding.mesh import MeshConfig

KINDS = ("softmax", "sigmoid")


def prepare_environment(platform, shapes):
    """Sets the environment variables that must be set before JAX is imported."""
    os.environ |= dict(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    if platform == "cpu":
        count = max(math.prod(map(int, shape.split("x"))) for shape in shapes)
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"


def devices_of(platform, shape):
    import jax
    from jax.experimental import topologies

    if platform == "cpu":
        return jax.devices()[: math.prod(map(int, shape.split("x")))]
    return topologies.get_topology_desc(platform="tpu", topology_name=f"{platform}:{shape}").devices


def loss_of(kind, implementation, image, text, scale, bias, caption_id, image_id):
    """The loss alone, as `objectives.contrastive` computes it on a batch."""
    import jax.numpy as jnp

    from vlp_jax.objectives.contrastive import SigmoidContrastiveConfig, SoftmaxContrastiveConfig

    config = {"softmax": SoftmaxContrastiveConfig, "sigmoid": SigmoidContrastiveConfig}[kind](
        implementation=implementation
    )
    module = config.build()
    parameters = {"log_scale": jnp.log(scale)} | ({"bias": bias} if kind == "sigmoid" else {})
    batch = {"text": text, "caption_id": caption_id, "image_id": image_id}
    return module.apply(
        {"params": parameters},
        {"image_embedding": image, "text_embedding": text},
        batch,
        model=None,
    ).value


def temporaries(kind, implementation, devices, rows, width):
    """Temporaries per device of the compiled loss and its gradients, in bytes."""
    import jax
    import jax.numpy as jnp

    from vlp_jax.sharding.layout import Layout, layout_in_use
    from vlp_jax.sharding.mesh import batch_sharding, build_mesh, replicated

    mesh = build_mesh(MeshConfig(), devices)
    batch = rows * len(devices)
    vectors, scalar = (
        jax.ShapeDtypeStruct((batch, width), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    numbers = jax.ShapeDtypeStruct((batch, 2), jnp.int32)
    spread, whole = batch_sharding(mesh), replicated(mesh)
    function = jax.value_and_grad(
        functools.partial(loss_of, kind, implementation), argnums=(0, 1, 2, 3)
    )
    compiled = jax.jit(
        function,
        in_shardings=(spread, spread, whole, whole, spread, spread),
        out_shardings=(whole, (spread, spread, whole, whole)),
    )
    with layout_in_use(Layout(mesh, ())):
        lowered = compiled.lower(vectors, vectors, scalar, scalar, numbers, numbers)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def growth(sizes):
    return (
        f"{100 * (sizes[-1] / sizes[0] - 1):8.1f}%"
        if sizes[0]
        else f"{'0' if sizes[-1] == 0 else 'from 0':>9}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--platform", default="v5e", help="a TPU generation, or cpu")
    parser.add_argument("--shapes", default="4x8,8x8,8x16,16x16")
    parser.add_argument("--implementations", default="ring,chunked,dense")
    parser.add_argument("--rows", type=int, default=256, help="examples a chip")
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    shapes = options.shapes.split(",")
    prepare_environment(options.platform, shapes)
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    variants = [
        (kind, implementation)
        for kind in KINDS
        for implementation in options.implementations.split(",")
    ]
    found = {f"{kind} {implementation}": {} for kind, implementation in variants}
    print(f"{'temporaries a chip':20}" + "".join(f"{shape:>16}" for shape in shapes) + "   growth")
    for kind, implementation in variants:
        name = f"{kind} {implementation}"
        for shape in shapes:
            devices = devices_of(options.platform, shape)
            found[name][shape] = temporaries(
                kind, implementation, devices, options.rows, options.width
            )
        sizes = list(found[name].values())
        print(f"{name:20}" + "".join(f"{size:16,}" for size in sizes) + growth(sizes), flush=True)
    bounds = {
        shape: 16 * options.rows * math.prod(map(int, shape.split("x"))) * options.width
        for shape in shapes
    }
    print(f"{'4 B E 4 bytes':20}" + "".join(f"{bound:16,}" for bound in bounds.values()))
    print(json.dumps({"platform": options.platform, "temporaries": found, "bound": bounds}))


if __name__ == "__main__":
    main()
