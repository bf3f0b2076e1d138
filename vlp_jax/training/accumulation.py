"""Gradients of the loss of a batch, computed at once or accumulated over microbatches.

With accumulation only one microbatch at a time is in memory. Microbatch i of k takes every k-th row
starting at row i, so that each microbatch is spread over all devices.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.data.batch_spec import PIXELS
from vlp_jax.data.images.preprocessing import ImagesConfig, normalise
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import constrain
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.training.freeze import is_frozen_norm
from vlp_jax.training.state import TrainState, parameter_axes

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

Metrics = dict[str, jax.Array]
TEACHER = 1  # folded into the key of a step for the dropout of the teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccumulationConfig(Section):
    """Gradient accumulation over `microbatches` equal parts of a batch."""

    microbatches: int = between(1, 1)
    # Negatives of losses that compare examples. batch: the whole batch, by a second forward pass,
    # with exactly the gradients of one batch. microbatch: cheaper, but a different loss.
    negatives: Literal["batch", "microbatch"] = "batch"

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`negatives`, where a batch is not divided."""
        return {"negatives": "with microbatches=1"} if self.microbatches == 1 else {}


def loss_gradients(
    config: "Experiment", module: PretrainingModule, state: TrainState, batch: dict, key: jax.Array
) -> tuple[dict, Metrics, dict]:
    """Gradients, metrics and updated collections of one batch.

    Args:
      config: the config of the run.
      module: the model with its objectives.
      state: the state before the update.
      batch: as the input pipeline yields it.
      key: PRNG key of dropout. Microbatch i uses the i-th key of `jax.random.split`.
    Returns: the gradients of the parameters, the metrics (`loss` and those of the objectives) and
      the collections of the state after the batch.
    """
    objectives = config.objectives.values()
    if config.accumulation.microbatches == 1:
        return at_once(config, module, state, batch, key)
    if config.accumulation.negatives == "batch" and any(
        objective.couples_batch for objective in objectives
    ):
        return *by_encodings(config, module, state, batch, key), state.collections
    return *by_mean(config, module, state, batch, key), state.collections


def prepare(batch: dict, images: ImagesConfig) -> dict:
    """The batch with its uint8 pixels normalised, on the device."""
    return {
        name: normalise(value, images.mean, images.std) if name in PIXELS else value
        for name, value in batch.items()
    }


def working_copy(module: PretrainingModule, params: Any, batch: dict) -> Any:
    """`params` with the kernels in the compute dtype; only the shapes of the prepared `batch`
    matter."""
    if module.precision.compute == jnp.float32:
        return params
    return module.precision.working_copy(params, parameter_axes(module, batch))


def at_once(
    config: "Experiment", module: PretrainingModule, state: TrainState, batch: dict, key: jax.Array
) -> tuple[dict, Metrics, dict]:
    """Gradients, metrics and updated collections of one batch in a single forward and backward
    pass."""
    inputs = prepare(batch, config.data.images)
    batch = with_teacher(config, module, state, inputs, key)

    def loss_of(params):
        params = working_copy(module, params, inputs)
        loss, collections = module.apply(
            {"params": params, **state.collections},
            batch,
            train=True,
            updates=state.step,
            rngs={"dropout": key},
            mutable=list(state.collections),
        )
        return loss.value, ({"loss": loss.value, **loss.metrics}, collections)

    gradients, (metrics, collections) = jax.grad(loss_of, has_aux=True)(state.params)
    return gradients, metrics, dict(collections)


def with_teacher(
    config: "Experiment", module: PretrainingModule, state: TrainState, batch: dict, key: jax.Array
) -> dict:
    """The batch with the outputs of the teacher (the EMA parameters) under the key `teacher`.

    The batch is returned unchanged where no objective uses a teacher. The teacher has dropout only
    where one of these objectives sets `teacher_dropout`; its dropout key differs from that of the
    student.
    """
    objectives = config.objectives.values()
    if not any(objective.uses_teacher for objective in objectives):
        return batch
    variables = state.ema_variables
    variables |= {"params": working_copy(module, variables["params"], batch)}
    rngs = {"teacher": key}
    if any(objective.teacher_dropout for objective in objectives):
        rngs["dropout"] = jax.random.fold_in(key, TEACHER)
    lessons, _ = module.apply(
        variables, batch, rngs=rngs, method="teacher_outputs", mutable=list(state.collections)
    )
    return {**batch, "teacher": lessons}


def by_mean(
    config: "Experiment", module: PretrainingModule, state: TrainState, batch: dict, key: jax.Array
) -> tuple[dict, Metrics]:
    """Mean over the microbatches of gradients and metrics.

    This equals the result of the batch at once where each loss is a mean over examples.
    """
    count = config.accumulation.microbatches
    parts = split(batch, count), jax.random.split(key, count)

    def gradient(part):
        return at_once(config, module, state, *part)[:2]

    def add(total, part):
        return jax.tree.map(lambda a, b: a + b / count, total, gradient(part)), None

    shapes = jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.scan(add, zeros, parts)[0]


def by_encodings(
    config: "Experiment", module: PretrainingModule, state: TrainState, batch: dict, key: jax.Array
) -> tuple[dict, Metrics]:
    """Gradients of the batch, exact also for losses that couple its examples.

    This is GradCache (Gao et al. 2021, section 3.2).

    The first pass over the microbatches keeps the encodings through which losses couple the batch.
    The coupled losses of the full batch give the gradients of their own parameters and of each
    encoding. The second pass computes the encodings again, with the same dropout, and
    backpropagates these gradients into the towers, together with the losses that are means over
    examples.
    """
    count, objectives = config.accumulation.microbatches, config.objectives
    coupled = tuple(name for name, objective in objectives.items() if objective.couples_batch)
    separate = tuple(name for name in objectives if name not in coupled)
    # one order in every process
    through = sorted({need for name in coupled for need in objectives[name].couples_through})
    needs = {*through, *(need for name in separate for need in objectives[name].needs)}
    parts = split(batch, count), jax.random.split(key, count)

    def apply(params, key, *arguments, method) -> Any:
        return module.apply(
            {"params": params, **state.collections},
            *arguments,
            rngs={"dropout": key},
            method=method,
        )

    def keep(_, part):
        batch, key = part
        # The same `needs` as in the second pass, so that dropout is drawn for the same shapes. XLA
        # drops what is not kept.
        encodings = apply(
            state.params, key, prepare(batch, config.data.images), needs, True, method="encode"
        )
        return None, {name: encodings[name] for name in through}

    def whole_loss(params, encodings):
        others = {name: value for name, value in batch.items() if name not in PIXELS}
        loss = apply(params, key, encodings, others, coupled, state.step, method="losses")
        return loss.value, loss

    def replayed(params, batch, key, slopes):
        batch = prepare(batch, config.data.images)
        params = working_copy(module, params, batch)
        batch = with_teacher(config, module, state, batch, key)
        encodings = apply(params, key, batch, needs, True, method="encode")
        loss = apply(params, key, encodings, batch, separate, state.step, method="losses")
        return sum(
            (slopes[name] * encodings[name]).sum() for name in through
        ) + loss.value / count, loss

    def add(total, part):
        gradients, loss = jax.grad(replayed, has_aux=True)(state.params, *part)
        return jax.tree.map(jnp.add, total, gradients), loss

    encodings = join(jax.lax.scan(keep, None, parts)[1])
    (gradients, slopes), whole = jax.grad(whole_loss, argnums=(0, 1), has_aux=True)(
        state.params, encodings
    )
    gradients, losses = jax.lax.scan(add, gradients, (*parts, split(slopes, count)))
    rest = jax.tree.map(lambda x: x.mean(axis=0), losses)
    return gradients, {"loss": whole.value + rest.value, **whole.metrics, **rest.metrics}


def split(tree: Any, count: int) -> Any:
    """Splits the leading axis of every leaf: [B, ...] -> [k, B / k, ...].

    Microbatch i has the rows i, i + k, ...
    """
    return jax.tree.map(lambda x: rearrange(x, "(b k) ... -> k b ...", k=count), tree)


def join(tree: Any) -> Any:
    """The inverse of `split`."""
    return jax.tree.map(
        lambda x: constrain(
            rearrange(x, "k b ... -> (b k) ..."), ("batch", *[None] * (x.ndim - 2))
        ),
        tree,
    )


def check_accumulation(config: "Experiment") -> None:
    """Checks that the config's microbatches and objectives fit together.

    Raises:
      ConfigError: microbatches do not divide the batch, an objective cannot be split, or an
        objective learns from the EMA parameters and the config keeps none.
    """
    count = config.accumulation.microbatches
    for name, objective in config.objectives.items():
        if objective.uses_teacher and config.ema is None:
            raise ConfigError(
                f"objectives.{name}: learns from the EMA of the parameters; set ema, such as 0.995"
            )
    if count == 1:
        return
    if config.data.batch_size % count:
        raise ConfigError(
            f"accumulation.microbatches: {count} does not divide data.batch_size "
            f"{config.data.batch_size}"
        )
    if config.accumulation.negatives == "microbatch":
        return
    for name, objective in config.objectives.items():
        large = ["image"] if objective.reads_pixels else []
        large += [
            need
            for need in (*objective.needs, *objective.teacher_needs)
            if need not in objective.couples_through
        ]
        if objective.couples_batch and large:
            raise ConfigError(
                f"accumulation.microbatches: objectives.{name} compares the examples of a batch by "
                f"their {large[0]}, which cannot be kept for all {count} microbatches; set "
                "microbatches=1, or accumulation.negatives='microbatch' to compare the examples of "
                "a microbatch only"
            )


# collection: the objective's setting that makes it unnecessary
OF_THE_BATCH = {"targets": "prior", "unigram": "unigram"}


def check_collections(config: "Experiment", collections: dict) -> None:
    """Checks that microbatches change no variable that training computes from the batch, as
    BatchNorm does.

    Args:
      config: the config of the run.
      collections: the collections of the state; shapes are enough. A frozen BatchNorm computes no
        statistics.
    Raises:
      ConfigError: the model keeps such variables and the config has more than one microbatch.
    """
    count, paths = (
        config.accumulation.microbatches,
        [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(collections)],
    )
    computed = [
        path
        for path in paths
        if not (
            path.startswith("batch_stats/")
            and is_frozen_norm(
                path.removeprefix("batch_stats/").rpartition("/")[0], config.optimizer.frozen
            )
        )
    ]
    if count > 1 and computed:
        name = computed[0]
        collection, owner = name.split("/")[:2]
        advice = (
            "a model without it"
            if collection != "batch_stats"
            else "a model without it, or freeze it by optimizer.frozen"
        )
        if collection in OF_THE_BATCH:
            advice = f"{owner.replace('_', '.', 1)}.{OF_THE_BATCH[collection]}='batch'"
        raise ConfigError(
            f"accumulation.microbatches: {name} is computed from the whole batch (as "
            f"BatchNorm's statistics are), which {count} microbatches cannot do; set "
            f"microbatches=1, or {advice}"
        )
