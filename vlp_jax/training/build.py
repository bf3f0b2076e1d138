"""All parts of a run, built from its config.

Errors in the config are found here, before any file is written.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh

from vlp_jax.data.batch_spec import PIXELS, device_arrays
from vlp_jax.data.cores import available_cores, workers_for
from vlp_jax.data.images.augmentation import check_augmentation
from vlp_jax.data.mixture import Mixture, open_mixture
from vlp_jax.data.notifications import message_while_waiting
from vlp_jax.data.pipeline import Batches, TrainRows, allow_workers, input_fingerprint
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.targets import Targets, check_given, find_targets
from vlp_jax.data.text.word_vectors import WordVectors, vectors_of_tokens
from vlp_jax.distributed.exchange import broadcast_from_primary
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.checks import check_evaluators
from vlp_jax.evaluators.context import Descriptions
from vlp_jax.evaluators.suite import EvaluationSuite, TrainingDescriptions
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.objectives.packing import check_packing
from vlp_jax.objectives.pretraining_module import PretrainingModule, asked_inputs
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import batch_sharding, build_mesh, check_batch, check_microbatch
from vlp_jax.sharding.process_rows import HostRows
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.accumulation import check_collections
from vlp_jax.training.cost.memory import check_state_fits
from vlp_jax.training.evaluation import (
    build_heads,
    build_predictor,
    build_text_generator,
    with_layout,
)
from vlp_jax.training.guard import skips_updates
from vlp_jax.training.optimizer import build_optimizer, only_where_trained
from vlp_jax.training.regularizers import check_regularizers
from vlp_jax.training.schedule import build_schedule, total_steps
from vlp_jax.training.state import (
    abstract_state,
    boxed_parameters,
    create_state,
    parameter_axes,
    word_tables,
)
from vlp_jax.training.step import build_train_step

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

SLOW_READING = 20.0  # seconds, after which a message names what is being read before the first step


@dataclasses.dataclass(frozen=True)
class Update:
    """One update of a config on a mesh.

    Attributes:
      module: the model with its objectives.
      optimizer: the Optax transformation.
      shapes, shardings: those of the state, each as a TrainState.
      train_step: the jitted `train_step(state, batch)`, to be compiled.
    """

    module: PretrainingModule
    optimizer: optax.GradientTransformation
    shapes: Any
    shardings: Any
    train_step: Any

    @property
    def state_shapes(self) -> Any:
        """The shapes of the state with their shardings, as arguments to compile with."""
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            self.shapes,
            self.shardings,
        )


@dataclasses.dataclass(frozen=True)
class Run(Update):
    """All parts of one training run."""

    config: "Experiment"
    layout: Layout
    host_rows: HostRows
    mixture: Mixture
    preprocessor: Preprocessor
    steps: int
    words: WordVectors | None

    @property
    def mesh(self) -> Mesh | AbstractMesh:
        """The mesh of the layout."""
        return self.layout.mesh

    def initial_state(self) -> Any:
        """The state before the first update, created with its final sharding."""
        batch, config = example_batch(self.config), self.config
        words = vector_arrays(self.words)
        return jax.jit(
            lambda words: create_state(
                self.module,
                batch,
                self.optimizer,
                config.seed,
                config.ema is not None,
                skips_updates(config.guard),
                words,
            ),
            out_shardings=self.shardings,
        )(words)

    def targets(self, stored: dict | None = None) -> Targets:
        """The targets predicted for samples.

        Args:
          stored: the classes as stored with a checkpoint. Default: the classes found in the
            training set.
        """
        return find_targets(
            self.config.data.targets, self.mixture.sources, stored or self.targets_found
        )

    @functools.cached_property
    def targets_found(self) -> dict:
        """The targets that the primary process finds in the training set, as JSON."""
        words = (
            "still reading the training data for the classes of data.targets; their `names`, "
            "or a `file`, spare that"
        )
        with message_while_waiting(lambda: words, SLOW_READING):
            return broadcast_from_primary("data.targets", self.look_for_targets)

    def look_for_targets(self) -> dict:
        """`targets_found` in one process.

        Raises: as `find_targets` and `check_given`.
        """
        targets = find_targets(self.config.data.targets, self.mixture.sources)
        check_given(targets, self.mixture.sources)
        return targets.to_json()

    def batches(self, position: int, targets: Targets | None = None) -> Batches:
        """The input from batch `position` on: the rows that the devices of this process hold.

        Args:
          position: number of batches consumed before.
          targets: the targets of the samples. Default: those found in the training set.
        """
        rows = TrainRows(
            self.mixture,
            self.preprocessor,
            self.config.data.augmentation,
            self.config.seed,
            asked_inputs(self.config.objectives),
            self.config.data.view_augmentation,
            targets or self.targets(),
        )
        data = dataclasses.replace(self.config.data, workers=self.workers)
        return Batches(rows, data, position, self.host_rows.rows)

    @property
    def workers(self) -> int:
        """The number of processes that decode on this host."""
        given = self.config.data.workers
        return (
            workers_for(available_cores(), jax.default_backend() != "cpu")
            if given is None
            else given
        )

    def to_device(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The arrays of this process's rows as parts of global arrays.

        Starts the transfer and returns without waiting.
        """
        return {key: self.host_rows.place(batch[key]) for key in shapes_of_batch(self.config)}

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of what `to_device` returns, with their shardings."""
        shapes = batch_shapes(self.config)
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.host_rows.sharding)
            for name, leaf in shapes.items()
        }

    def input_fingerprint(self) -> dict[str, Any]:
        """What decides which samples the k-th batch holds, by config key."""
        return input_fingerprint(self.config, self.mixture)

    def evaluation(self, descriptions: Descriptions | None, targets: Targets) -> EvaluationSuite:
        """The evaluators of the config.

        Args:
          descriptions: class descriptions as stored with a checkpoint. Default: collected from the
            training set.
          targets: the targets of the supervised heads.
        """
        specs = self.config.evaluators
        if descriptions is None:
            descriptions = TrainingDescriptions(specs, self.mixture.sources)
        predictor = build_predictor(self.module, self.preprocessor, self.layout)
        text_generator = build_text_generator(self.module, predictor, self.layout)
        heads = build_heads(self.module, predictor, targets, self.layout)
        return EvaluationSuite(
            specs, predictor, descriptions, self.config.data.threads, text_generator, heads
        )

    def evaluated_variables(self, state: Any) -> dict:
        """The EMA parameters and their statistics where the config keeps them, else those of the
        last update."""
        return (
            {"params": state.params, **state.collections}
            if state.ema is None
            else state.ema_variables
        )


def build_module(config: "Experiment", compute: str | None = None) -> PretrainingModule:
    """The module that a config describes, hashable; `compute` overrides its compute dtype."""
    precision = Precision(jnp.dtype(compute or config.precision.compute))
    return PretrainingModule(config.model, flax.core.freeze(config.objectives), precision)


def example_batch(config: "Experiment", rows: int = 2) -> dict[str, jax.Array]:
    """A batch of zeros (True for bool) in the shapes of the config, to initialise the module
    with."""
    arrays = shapes_of_batch(config, rows)
    return {name: jnp.full(shape, dtype is bool, dtype) for name, (shape, dtype) in arrays.items()}


def batch_shapes(config: "Experiment") -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the global batch as it comes from the host, with pixels as uint8."""
    shapes = jax.eval_shape(lambda: example_batch(config, config.data.batch_size))
    return shapes | {
        name: jax.ShapeDtypeStruct(shapes[name].shape, jnp.uint8)
        for name in PIXELS
        if name in shapes
    }


def shapes_of_batch(config: "Experiment", rows: int = 2) -> dict[str, tuple[tuple[int, ...], type]]:
    """{name: (shape, dtype)} of the arrays of a batch that go to the devices."""
    return device_arrays(config, asked_inputs(config.objectives), rows)


def build_run(config: "Experiment") -> Run:
    """The run that a config describes.

    Raises:
      ConfigError, MeshError, DataError: anything that cannot work.
    """
    mesh = build_mesh(config.mesh)
    layout = build_layout(config.mesh, mesh)
    check_batches(config, mesh)
    host_rows = HostRows(batch_sharding(mesh), config.data.batch_size)
    check_augmentation(config.data.augmentation)
    if config.data.view_augmentation is not None:
        check_augmentation(config.data.view_augmentation, "data.view_augmentation")
    check_evaluators(config)
    for name, writer in config.writers.items():
        writer.check(f"writers.{name}")
    preprocessor = Preprocessor.from_config(config)
    mixture = open_mixture(config.data.train)
    steps = total_steps(config, len(mixture))
    check_reached(config, steps)
    update = build_update(config, layout, steps)
    check_state_fits(update.shapes, update.shardings)
    if config.data.workers:
        allow_workers(config.data, asked_inputs(config.objectives))
    words = word_vectors(config.model.text, preprocessor, update.module, example_batch(config))
    return Run(
        **vars(update),
        config=config,
        layout=layout,
        host_rows=host_rows,
        mixture=mixture,
        preprocessor=preprocessor,
        steps=steps,
        words=words,
    )


def word_vectors(
    tower: TextTowerConfig,
    preprocessor: Preprocessor,
    module: PretrainingModule,
    batch: dict[str, jax.Array],
) -> WordVectors | None:
    """The initial values of the text tower's embeddings, where the config names a file; else None.

    Args:
      tower: the declaration of the text tower.
      preprocessor: the preprocessor with the tokens.
      module: the model with its objectives.
      batch: an example batch; only its shapes matter.
    Raises:
      ConfigError: the file does not fit, or no objective reads the text tower, which then has no
        parameters.
    """
    if tower.word_vectors is None:
        return None
    if not word_tables(parameter_axes(module, batch)):
        raise ConfigError(
            "model.text.word_vectors: has no effect with objectives that do not use the text tower"
        )
    return vectors_of_tokens(
        tower.word_vectors,
        preprocessor.tokenizer,
        tower.vocab_size,
        tower.word_width,
        tower.word_overlap,
    )


def vector_arrays(words: WordVectors | None) -> tuple[np.ndarray, np.ndarray] | None:
    """`words` as `create_state` takes them: vectors [V, D], and bool [V], the tokens that have
    one."""
    return None if words is None else (words.vectors, words.found)


def check_reached(config: "Experiment", steps: int) -> None:
    """Checks that everything with a start step starts before the run ends.

    Raises:
      ConfigError: the message names the key that starts after the last step.
    """
    starts = {"profile.start": config.profile.start or 0}
    starts |= {
        f"objectives.{name}.weight_start": spec.weight_start + 1
        for name, spec in config.objectives.items()
    }
    for name, start in starts.items():
        if start > steps:
            raise ConfigError(f"{name}: {start} is never reached, the run has {steps} steps")


def check_batches(config: "Experiment", mesh: jax.sharding.Mesh) -> None:
    """Checks that the batch and each microbatch divide over the mesh, and runs `check_packing`.

    Raises:
      MeshError: they do not divide; the message names the nearest sizes.
      ConfigError, MeshError: as `check_packing`.
    """
    check_batch(config.data.batch_size, mesh)
    check_microbatch(config.data.batch_size, config.accumulation.microbatches, mesh)
    check_packing(config, mesh)


def build_update(config: "Experiment", layout: Layout, steps: int) -> Update:
    """The update of a run of `steps` steps. It needs no data and, for shapes alone, no devices.

    Raises:
      ConfigError, MeshError: a model or optimizer that is not possible.
    """
    module, batch = build_module(config), jax.eval_shape(lambda: example_batch(config))
    schedule = build_schedule(config.optimizer.schedule, config.optimizer.learning_rate, steps)
    params = boxed_parameters(module, batch)
    optimizer = build_optimizer(config.optimizer, schedule, params)
    check_regularizers(config.regularizers, config.optimizer.frozen, nn.meta.unbox(params))
    if any(objective.planned for objective in config.objectives.values()):
        optimizer = only_where_trained(optimizer, params)
    shapes, shardings = abstract_state(
        module,
        batch,
        optimizer,
        config.seed,
        config.ema is not None,
        layout,
        skips_updates(config.guard),
    )
    check_collections(config, shapes.collections)
    step = with_layout(build_train_step(config, module, optimizer, schedule), layout)
    in_shardings = shardings, batch_sharding(layout.mesh)
    compiled = jax.jit(
        step, donate_argnums=0, in_shardings=in_shardings, out_shardings=(shardings, None)
    )
    return Update(module, optimizer, shapes, shardings, compiled)
