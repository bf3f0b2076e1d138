"""Everything a run needs, built from its config. What is wrong with the config is found here, before a file is written."""

import dataclasses
import difflib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vlp_jax.config import schema
from vlp_jax.data.augmentation import check_augmentation
from vlp_jax.data.mixture import Mixture, open_mixture
from vlp_jax.data.pipeline import Batches, TrainRows, input_fingerprint
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.embedder import Embedder
from vlp_jax.evaluators.suite import EvaluationSuite, collect_descriptions, metric_names
from vlp_jax.models.layers import Precision
from vlp_jax.objectives.module import PretrainingModule
from vlp_jax.sharding.host_rows import HostRows
from vlp_jax.sharding.mesh import batch_sharding, check_batch, make_mesh
from vlp_jax.training.guard import skips_updates
from vlp_jax.training.optimizer import make_optimizer
from vlp_jax.training.schedule import make_schedule, total_steps
from vlp_jax.training.state import abstract_parameters, abstract_state, make_state
from vlp_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of one training run, and the compiled update."""

    config: schema.Config
    mesh: jax.sharding.Mesh
    host_rows: HostRows
    mixture: Mixture
    preprocessor: Preprocessor
    module: PretrainingModule
    optimizer: optax.GradientTransformation
    steps: int
    shapes: Any
    shardings: Any
    train_step: Any

    def initial_state(self) -> Any:
        """The state before the first update, made where it will lie."""
        batch, config = example_batch(self.config), self.config
        return jax.jit(lambda: make_state(self.module, batch, self.optimizer, config.seed, config.ema is not None,
                                          skips_updates(config.guard)),
                       out_shardings=self.shardings)()

    def batches(self, position: int) -> Batches:
        """The input from batch `position` on: the rows that this host's devices hold."""
        rows = TrainRows(self.mixture, self.preprocessor, self.config.data.augmentation, self.config.seed)
        return Batches(rows, self.config.data, position, self.host_rows.rows)

    def to_device(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The arrays of this host's rows as parts of global arrays; starts the transfer and returns."""
        return {key: self.host_rows.place(value) for key, value in batch.items() if key in DEVICE_KEYS}

    def input_fingerprint(self) -> dict[str, Any]:
        return input_fingerprint(self.config, self.mixture)

    def evaluation(self, descriptions: dict | None) -> EvaluationSuite:
        """The config's evaluators; `descriptions` as stored with a checkpoint, or collected from the training set."""
        specs = self.config.evaluators
        if descriptions is None:
            descriptions = collect_descriptions(specs, self.mixture.sources)
        return EvaluationSuite(specs, make_embedder(self.module, self.preprocessor, self.mesh), descriptions,
                               self.config.data.threads)

    def evaluated_variables(self, state: Any) -> dict:
        """The averaged parameters where the config keeps an average, else the parameters."""
        return {"params": state.params if state.average is None else state.average, **state.collections}


DEVICE_KEYS = ("image", "text", "text_mask", "caption_id", "image_id")


def make_module(config: schema.Config, compute: str | None = None) -> PretrainingModule:
    """The module that a config describes, hashable; `compute` overrides its precision."""
    precision = Precision(jnp.dtype(compute or config.precision.compute))
    return PretrainingModule(config.model, flax.core.freeze(config.objectives), precision)


def make_embedder(module: PretrainingModule, preprocessor: Preprocessor, mesh: jax.sharding.Mesh) -> Embedder:
    """What embeds pictures and captions for evaluators, over the devices of `mesh`."""
    def embed(variables, image, text, mask):
        return module.apply(variables, image, text, mask, method="embed")

    return Embedder(embed, preprocessor, mesh)


def example_batch(config: schema.Config, rows: int = 2) -> dict[str, jax.Array]:
    """Zeros of a batch's shapes, to initialise the module with."""
    size, length = config.model.image.image_size, config.model.text.length
    return {"image": jnp.zeros((rows, size, size, 3)), "text": jnp.zeros((rows, length), jnp.int32),
            "text_mask": jnp.ones((rows, length), bool), "caption_id": jnp.zeros((rows, 2), jnp.int32),
            "image_id": jnp.zeros((rows, 2), jnp.int32)}


def check_best_metric(config: schema.Config) -> None:
    """Raises: ConfigError if the best checkpoints are to be kept by something that no evaluator measures."""
    metric, names = config.checkpoint.best_metric, metric_names(config.evaluators)
    if metric in names or (metric is None and not config.checkpoint.keep_best):
        return
    closest = difflib.get_close_matches(metric or "", names, n=1, cutoff=0.0)
    known = ", ".join(names) or "nothing, there is no evaluator"
    advice = f"did you mean {closest[0]!r}?" if closest and metric else f"they measure {known}"
    raise ConfigError(f"checkpoint.best_metric: {metric!r} is not measured by the config's evaluators ({advice})")


def assemble(config: schema.Config) -> Run:
    """Raises: ConfigError, MeshError or DataError for whatever cannot work."""
    mesh = make_mesh(config.mesh)
    check_batch(config.data.batch_size, mesh)
    check_batch(config.data.batch_size // config.accumulation.microbatches, mesh, "a microbatch of")
    host_rows = HostRows(batch_sharding(mesh), config.data.batch_size)
    check_augmentation(config.data.augmentation)
    check_best_metric(config)
    module = make_module(config)
    batch = example_batch(config)
    parameters = abstract_parameters(module, batch)
    preprocessor = Preprocessor.from_config(config)
    mixture = open_mixture(config.data.train)
    steps = total_steps(config, len(mixture))
    schedule = make_schedule(config.optimizer.schedule, config.optimizer.rate, steps)
    optimizer = make_optimizer(config.optimizer, schedule, parameters)
    shapes, shardings = abstract_state(module, batch, optimizer, config.seed, config.ema is not None, mesh,
                                       skips_updates(config.guard))
    step = make_train_step(config, module, optimizer, schedule)
    compiled = jax.jit(step, donate_argnums=0, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=(shardings, None))
    return Run(config, mesh, host_rows, mixture, preprocessor, module, optimizer, steps, shapes, shardings, compiled)
