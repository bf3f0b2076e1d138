"""Updates that are not made: those whose loss or gradient is not finite or stands out, decided on the device, so that the
host need not wait for each step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vlp_jax.config import schema
from vlp_jax.errors import TrainingError


@flax.struct.dataclass
class GuardState:
    """Part of the TrainState. skipped, consecutive (skips since the last update made), updates (made): int32.
    total: float32, the running mean of what spikes are told by, before it is divided by its weights' sum."""

    skipped: jax.Array
    consecutive: jax.Array
    updates: jax.Array
    total: jax.Array


def fresh_guard() -> GuardState:
    """The state before the first update; a function to trace."""
    zero = jnp.zeros((), jnp.int32)
    return GuardState(zero, zero, zero, jnp.zeros((), jnp.float32))


def skips_updates(config: schema.Guard) -> bool:
    """Whether anything is ever skipped; the state holds a GuardState then."""
    return config.non_finite == "skip" or config.spike_factor is not None


def guarded(config: schema.Guard, before: Any, after: Any, metrics: dict[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
    """`after`, or `before` with the step counted on where that update is to be skipped; and the metrics `skipped_updates`
    and `consecutive_skips`, float32.

    before, after: TrainStates around the update. metrics: of that update, with `loss` and `gradient_norm`.
    """
    guard, watched = before.guard, metrics[config.spike_of]
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    accepted = finite if config.non_finite == "skip" else jnp.bool_(True)
    if config.spike_factor is not None:
        weights = 1.0 - config.spike_decay ** guard.updates.astype(jnp.float32)  # Adam's correction of an average from zero
        spike = finite & (guard.updates >= config.spike_after) & (watched * weights > config.spike_factor * guard.total)
        accepted &= ~spike
    total = config.spike_decay * guard.total + (1.0 - config.spike_decay) * watched
    counted = GuardState(guard.skipped + ~accepted, jnp.where(accepted, 0, guard.consecutive + 1), guard.updates + accepted,
                         jnp.where(accepted & finite, total, guard.total))
    state = after.replace(params=chosen(accepted, after.params, before.params),
                          optimizer=chosen(accepted, after.optimizer, before.optimizer),
                          ema=chosen(accepted, after.ema, before.ema),
                          ema_statistics=chosen(accepted, after.ema_statistics, before.ema_statistics),
                          collections=chosen(accepted, after.collections, before.collections), guard=counted)
    return state, metrics | {"skipped_updates": counted.skipped.astype(jnp.float32),
                             "consecutive_skips": counted.consecutive.astype(jnp.float32)}


def chosen(accepted: jax.Array, after: Any, before: Any) -> Any:
    """One of two trees. The schedule's own count goes on in either case, as the step does: a rate belongs to a step."""
    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(lambda new, old: new if is_schedule(new) else jnp.where(accepted, new, old), after, before,
                        is_leaf=is_schedule)


def check_skips(config: schema.Guard, consecutive: float, step: int, last_good: Callable[[], str]) -> None:
    """Raises: TrainingError after more than `maximum_skips` skipped updates in a row; `last_good()` says where to go back to."""
    if consecutive > config.maximum_skips:
        raise TrainingError(f"{int(consecutive)} updates in a row were skipped up to step {step}, more than guard.maximum_skips="
                            f"{config.maximum_skips}; {last_good()}; a lower optimizer.learning_rate, a longer warm-up or "
                            "optimizer.clip_norm may help")
