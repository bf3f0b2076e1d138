"""Skipped updates: those with a non-finite loss or gradient, or with a spike in the loss or
gradient norm.

The decision is made on the device, so that the host does not wait for each step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.errors import TrainingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardConfig(Section):
    """Handling of an update with a non-finite loss or gradient, or with a spike.

    A skipped update leaves parameters, moments and EMA unchanged; its batch counts as consumed.
    """

    # stop: ends the run, with a message naming the last good checkpoint
    non_finite: Literal["stop", "skip"] = "stop"
    # skip above this multiple of the running mean; None: never
    spike_factor: float | None = between(None, 1.0)
    spike_of: Literal["gradient_norm", "loss"] = "gradient_norm"
    # of the running mean over updates that were not skipped
    spike_decay: float = between(0.99, 0.0, 0.999999)
    spike_after: int = between(100, 1)  # updates before spikes are detected; early ones are noisy
    maximum_skips: int = between(20, 1)  # in a row; one more ends the run


@flax.struct.dataclass
class GuardState:
    """The counts of the guard, a part of the TrainState.

    Attributes:
      skipped: int32, skipped updates.
      consecutive: int32, skipped updates since the last update made.
      updates: int32, updates made.
      total: float32, the running mean with which spikes are compared, before division by the sum of
        its weights.
    """

    skipped: jax.Array
    consecutive: jax.Array
    updates: jax.Array
    total: jax.Array


def fresh_guard() -> GuardState:
    """The GuardState before the first update; a function to trace."""
    zero = jnp.zeros((), jnp.int32)
    return GuardState(zero, zero, zero, jnp.zeros((), jnp.float32))


def skips_updates(config: GuardConfig) -> bool:
    """Whether an update is ever skipped; the state holds a GuardState then."""
    return config.non_finite == "skip" or config.spike_factor is not None


def guarded(
    config: GuardConfig, before: Any, after: Any, metrics: dict[str, jax.Array]
) -> tuple[Any, dict[str, jax.Array]]:
    """The state after an update, or the one before it with the step counted if the update is
    skipped.

    Args:
      config: the config of the guard.
      before, after: TrainStates before and after the update.
      metrics: those of the update, with `loss` and `gradient_norm`.
    Returns: the state, and the metrics with `skipped_updates` and `consecutive_skips`, float32.
    """
    guard, watched = before.guard, metrics[config.spike_of]
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    accepted = finite if config.non_finite == "skip" else jnp.bool_(True)
    if config.spike_factor is not None:
        # bias correction, as in Adam
        weights = 1.0 - config.spike_decay ** guard.updates.astype(jnp.float32)
        spike = (
            finite
            & (guard.updates >= config.spike_after)
            & (watched * weights > config.spike_factor * guard.total)
        )
        accepted &= ~spike
    total = config.spike_decay * guard.total + (1.0 - config.spike_decay) * watched
    counted = GuardState(
        guard.skipped + ~accepted,
        jnp.where(accepted, 0, guard.consecutive + 1),
        guard.updates + accepted,
        jnp.where(accepted & finite, total, guard.total),
    )
    state = dataclasses.replace(
        after,
        params=chosen(accepted, after.params, before.params),
        optimizer=chosen(accepted, after.optimizer, before.optimizer),
        ema=chosen(accepted, after.ema, before.ema),
        ema_statistics=chosen(accepted, after.ema_statistics, before.ema_statistics),
        collections=chosen(accepted, after.collections, before.collections),
        guard=counted,
    )
    return state, metrics | {
        "skipped_updates": counted.skipped.astype(jnp.float32),
        "consecutive_skips": counted.consecutive.astype(jnp.float32),
    }


def chosen(accepted: jax.Array, after: Any, before: Any) -> Any:
    """One of two trees, `after` where the update is accepted.

    The schedule's own count is always that of `after`, as the step is: a learning rate belongs to a
    step.
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda new, old: new if is_schedule(new) else jnp.where(accepted, new, old),
        after,
        before,
        is_leaf=is_schedule,
    )


def check_skips(
    config: GuardConfig, consecutive: float, step: int, last_good: Callable[[], str]
) -> None:
    """Checks that not too many updates in a row were skipped.

    Args:
      config: the config of the guard.
      consecutive: skipped updates in a row.
      step: the step of the newest of them.
      last_good: returns the part of the message that names the last good checkpoint.
    Raises:
      TrainingError: more than `maximum_skips` updates in a row were skipped.
    """
    if consecutive > config.maximum_skips:
        raise TrainingError(
            f"{int(consecutive)} updates in a row were skipped up to step {step}, "
            f"more than guard.maximum_skips={config.maximum_skips}; {last_good()}; "
            "a lower optimizer.learning_rate, a longer warm-up or "
            "optimizer.clip_norm may help"
        )
