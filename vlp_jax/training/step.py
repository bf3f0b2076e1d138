"""One update, as a pure function that is compiled once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from vlp_jax.config import schema
from vlp_jax.data.images import normalise
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.module import PretrainingModule, build_objectives, constrain_parameters
from vlp_jax.training.guard import guarded, skips_updates
from vlp_jax.training.optimizer import zero_frozen
from vlp_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_train_step(config: schema.Config, module: PretrainingModule, optimizer: optax.GradientTransformation,
                    schedule: optax.Schedule) -> Callable[[TrainState, dict], tuple[TrainState, Metrics]]:
    """`step(state, batch) -> (state, metrics)`, ready for `jax.jit`.

    metrics: float32 scalars `loss`, `gradient_norm`, `learning_rate`, those of the objectives, and those of the guard where
      updates may be skipped.
    Raises: ConfigError where accumulation is asked of an objective it would change silently.
    """
    check_accumulation(config)
    objectives = build_objectives(config.objectives)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        batch = prepare(batch, config.data.images)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        gradients, metrics = accumulate(module, state, batch, key, config.accumulation.microbatches)
        gradients = zero_frozen(gradients, config.optimizer.frozen)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = constrain_parameters(objectives, optax.apply_updates(state.params, updates))
        average = state.average
        if average is not None:
            average = optax.incremental_update(params, average, 1.0 - config.ema)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "learning_rate": schedule(state.step)}
        after = state.replace(step=state.step + 1, params=params, optimizer=optimizer_state, average=average)
        return guarded(config.guard, state, after, metrics) if skips_updates(config.guard) else (after, metrics)

    return step


def prepare(batch: dict, images: schema.Images) -> dict:
    """Bytes to normalised pixels, on the device."""
    return {**batch, "image": normalise(batch["image"], images.mean, images.std)}


def accumulate(module: PretrainingModule, state: TrainState, batch: dict, key: jax.Array,
               microbatches: int) -> tuple[dict, Metrics]:
    """The mean over microbatches of gradients and metrics. Microbatch i takes every k-th row from row i on, so that
    each spans all devices."""
    def loss_of(params, batch, key):
        loss = module.apply({"params": params, **state.collections}, batch, train=True, rngs={"dropout": key})
        return loss.value, {"loss": loss.value, **loss.metrics}

    gradient = jax.grad(loss_of, has_aux=True)
    if microbatches == 1:
        return gradient(state.params, batch, key)
    parts = jax.tree.map(lambda x: rearrange(x, "(b k) ... -> k b ...", k=microbatches), batch)

    def add(total, part):
        batch, key = part
        return jax.tree.map(lambda a, b: a + b / microbatches, total, gradient(state.params, batch, key)), None

    keys = jax.random.split(key, microbatches)
    shapes = jax.eval_shape(gradient, state.params, jax.tree.map(lambda x: x[0], parts), keys[0])
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.scan(add, zeros, (parts, keys))[0]


def check_accumulation(config: schema.Config) -> None:
    """Raises: ConfigError for microbatches that do not divide the batch, or that an objective would see as batches."""
    count = config.accumulation.microbatches
    if count == 1:
        return
    if config.data.batch_size % count:
        raise ConfigError(f"accumulation.microbatches: {count} does not divide data.batch_size {config.data.batch_size}")
    coupled = [name for name, objective in build_objectives(config.objectives).items() if objective.couples_batch]
    if coupled and config.accumulation.negatives != "microbatch":
        raise ConfigError(
            f"accumulation.microbatches: objectives.{coupled[0]} compares the examples of a batch, and {count} microbatches "
            "would shrink its negatives; set accumulation.negatives='microbatch' to accept that, or microbatches=1")
