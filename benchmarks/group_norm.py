"""A small ResNet forward and backward with our GroupNorm, with Flax's and with none: `python benchmarks/group_norm.py`."""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.models import resnet

ROUNDS = 7


def flax_group_norm(groups: int, **options) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=groups, param_dtype=jnp.float32, **options)


def main():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(128, 32, 32, 3)), jnp.float32)
    module = resnet.ResNet((1, 1, 2), False, resnet.Convolutions("group", 8), width=48, stem_size=3, max_pool=False)
    params = module.init(jax.random.key(0), image)
    norms = {"ours": resnet.GroupNorm, "flax": flax_group_norm, "none": None}
    functions, seconds = {}, {name: [] for name in norms}
    for name, norm in norms.items():
        resnet.GroupNorm = norm or (lambda *_, **__: lambda x: x)
        functions[name] = jax.jit(jax.grad(lambda params: jnp.square(module.apply(params, image).pooled).sum()))
        jax.block_until_ready(functions[name](params))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.process_time()
            jax.block_until_ready(function(params))
            seconds[name].append(time.process_time() - start)
    for name, values in seconds.items():
        print(f"{name}: {np.median(values):.3f} CPU-seconds for 128 images of 32 x 32 (least: {min(values):.3f})")


if __name__ == "__main__":
    main()
