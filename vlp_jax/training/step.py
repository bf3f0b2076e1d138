"""One update as a pure function that is compiled once."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import flax.linen as nn
import jax
import optax

from vlp_jax.objectives.pretraining_module import PretrainingModule, constrain_parameters
from vlp_jax.training.accumulation import Metrics, check_accumulation, loss_gradients
from vlp_jax.training.freeze import statistics_kept, zero_frozen
from vlp_jax.training.guard import guarded, skips_updates
from vlp_jax.training.regularizers import with_penalties
from vlp_jax.training.state import TrainState, running_statistics

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def build_train_step(
    config: "Experiment",
    module: PretrainingModule,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, dict], tuple[TrainState, Metrics]]:
    """`step(state, batch) -> (state, metrics)`, ready for `jax.jit`.

    The batch is as the input pipeline yields it, images in uint8. The metrics are float32 scalars:
    `loss`, `gradient_norm`, `learning_rate`, those of the objectives and regularizers, and those of
    the guard where updates may be skipped.

    Raises:
      ConfigError: accumulation is configured for objectives that cannot be split.
    """
    check_accumulation(config)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        with nn.intercept_methods(statistics_kept(config.optimizer.frozen)):
            gradients, metrics, collections = loss_gradients(config, module, state, batch, key)
        gradients, metrics = with_penalties(config, state.params, gradients, metrics)
        gradients = zero_frozen(gradients, config.optimizer.frozen)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        updated: Any = optax.apply_updates(state.params, updates)
        params = constrain_parameters(config.objectives, updated)
        ema, statistics = state.ema, state.ema_statistics
        if ema is not None and config.ema is not None:
            newest: Any = params, running_statistics(collections)
            averaged: Any = optax.incremental_update(newest, (ema, statistics), 1.0 - config.ema)
            ema, statistics = averaged
        norm, rate = optax.tree.norm(gradients), schedule(state.step)
        metrics |= {"gradient_norm": norm, "learning_rate": cast(jax.Array, rate)}
        after = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            optimizer=optimizer_state,
            ema=ema,
            collections=collections,
            ema_statistics=statistics,
        )
        return (
            guarded(config.guard, state, after, metrics)
            if skips_updates(config.guard)
            else (after, metrics)
        )

    return step
