"""What weight decay takes of each parameter of a config, from the optimizer itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.experiment import Experiment
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.optimizer import build_optimizer
from vlp_jax.training.schedule import build_schedule
from vlp_jax.training.state import boxed_parameters

STEPS = 1000


def taken(config: Experiment) -> tuple[dict[str, float], float]:
    """{path: share} of an update without any gradient, with the schedule at its highest, and that
    height over the learning rate."""
    boxed = boxed_parameters(build_module(config), jax.eval_shape(lambda: example_batch(config)))
    schedule = build_schedule(
        config.optimizer.schedule, config.optimizer.learning_rate, STEPS * 1000
    )
    peak = float(jnp.max(schedule(jnp.arange(0, STEPS * 1000, STEPS))))
    optimizer = build_optimizer(config.optimizer, lambda step: jnp.float32(peak), boxed)
    shapes = nn.meta.unbox(boxed)
    # the rules read paths, not sizes
    ones = jax.tree.map(lambda leaf: jnp.ones((1,) * leaf.ndim), shapes)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, ones), optimizer.init(ones), ones)
    found = {
        path_of(path): -float(leaf.reshape(()))
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    return found, peak / config.optimizer.learning_rate
