"""A whole experiment: every section of a config."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeVar

from vlp_jax.config.durations import DURATIONS
from vlp_jax.config.fields import between, positive, section
from vlp_jax.config.problems import Problems
from vlp_jax.config.section import Section, component
from vlp_jax.data.batch_spec import VIEWS
from vlp_jax.data.config import DataConfig
from vlp_jax.distributed.processes import HostsConfig
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.options import PrecisionConfig
from vlp_jax.objectives.base import ObjectiveConfig
from vlp_jax.objectives.pretraining_module import asked_inputs
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.accumulation import AccumulationConfig
from vlp_jax.training.checkpoints.save_schedule import CheckpointConfig
from vlp_jax.training.guard import GuardConfig
from vlp_jax.training.hooks.profiler import ProfileConfig
from vlp_jax.training.hooks.watchdog import WatchdogConfig
from vlp_jax.training.optimizers.base import OptimizerConfig
from vlp_jax.training.pretrained import PretrainedConfig
from vlp_jax.training.regularizers import RegularizerConfig
from vlp_jax.training.writers.base import WriterConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Section):
    """A whole experiment."""

    seed: int = between(0, 0, 2**31 - 1)
    steps: int | None = between(None, 1)  # exactly one of the three durations is set
    examples: int | None = between(None, 1)
    epochs: float | None = positive(None)
    log_every: int = between(50, 1)
    data: DataConfig = section(DataConfig)
    model: ModelConfig = section(ModelConfig)
    objectives: dict[str, ObjectiveConfig] = section(dict)
    optimizer: OptimizerConfig = component(OptimizerConfig)
    regularizers: dict[str, RegularizerConfig] = section(dict)
    # decay of the exponential moving average (EMA) of the parameters
    ema: float | None = between(None, 0.0, 1.0)
    accumulation: AccumulationConfig = section(AccumulationConfig)
    precision: PrecisionConfig = section(PrecisionConfig)
    mesh: MeshConfig = section(MeshConfig)
    profile: ProfileConfig = section(ProfileConfig)
    hosts: HostsConfig = section(HostsConfig)
    guard: GuardConfig = section(GuardConfig)
    watchdog: WatchdogConfig = section(WatchdogConfig)
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    evaluators: dict[str, EvaluatorConfig] = section(dict)
    # next to metrics.jsonl
    writers: dict[str, WriterConfig] = section(
        lambda: {"tensorboard": WriterConfig.of("tensorboard")}
    )
    # a later entry takes precedence for a parameter in several
    pretrained: dict[str, PretrainedConfig] = section(dict)

    def check_duration(self, problems: Sequence[str], place: str = "") -> None:
        """Checks that exactly one of the three durations is set.

        Raises: ConfigError where it is not; a duration with an invalid value is in `problems`
          already.
        """
        durations = [name for name in DURATIONS if getattr(self, name) is not None]
        if len(durations) != 1 and not any(
            problem.startswith(f"{name}:") for problem in problems for name in DURATIONS
        ):
            found = " and ".join(durations) or "none of them"
            raise ConfigError(
                f"steps, examples, epochs: set exactly one (found {found}){at(place)}"
            )

    def completed(self, where: str = "", experiment: Any = None) -> Self:
        """The experiment with values that follow from others, after the checks of how its sections
        fit together.

        Args:
          where: the config's file, for messages.
          experiment: unused; it is this one.
        Raises: ConfigError, or ConfigErrors with all problems.
        """
        problems = Problems(f"{problem}{at(where)}" for problem in self.validate("", self))
        problems += [
            f"{problem}{at(where)}"
            for key, part in sections_of(self)
            for problem in part.validate(key, self)
        ]
        problems.report()
        return with_completed(self, "", self)

    def validate(self, where: str, experiment: Any) -> Iterator[str]:
        """Messages about missing objectives, a constant EMA, and parts that no objective uses."""
        if not self.objectives:
            yield "objectives: at least one is needed, such as contrastive.kind='clip'"
        if self.ema == 1.0:
            yield "ema: an EMA with decay 1 never changes; it must be below 1, such as 0.9999"
        for key, needed in self.unused_parts().items():
            yield f"{key}: has no effect without {needed}"

    def unused_parts(self) -> dict[str, str]:
        """The parts of the model and of the data that no objective uses, each with the objective
        that it needs."""
        objectives, decoder, unused = self.objectives.values(), self.model.decoder, {}
        if decoder is not None and not any(objective.uses_decoder for objective in objectives):
            unused["model.decoder"] = "an objective of kind 'captioning' or 'answering'"
        if (
            decoder is not None
            and decoder.has_prefix
            and not any("decoding" in objective.needs for objective in objectives)
        ):
            unused["model.decoder.text_prefix"] = "an objective of kind 'captioning'"
        if self.model.fusion is not None and not any(
            objective.uses_fusion for objective in objectives
        ):
            unused["model.fusion"] = (
                "an objective of kind 'matching', 'masked_joint', "
                "'answering', 'masked_language' with an image, or "
                "features='fused'"
            )
        if self.data.view_augmentation is not None and not {*VIEWS} & {
            *asked_inputs(self.objectives)
        }:
            unused["data.view_augmentation"] = "an objective of kind 'simclr'"
        return unused


def at(place: str) -> str:
    """A config's file in brackets, for the end of a message."""
    return f" [{place}]" if place else ""


def sections_of(section: Section, where: str = "") -> Iterator[tuple[str, Section]]:
    """The sections inside of a section, each with its dotted key."""
    for key, value in parts_of(section, where).items():
        yield key, value
        yield from sections_of(value, key)


def parts_of(section: Section, where: str = "") -> dict[str, Section]:
    """The sections that are values, or entries of values, of a section, by their dotted keys."""
    found = {}
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{where}.{field.name}" if where else field.name
        entries = (
            {f"{key}.{name}": entry for name, entry in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
        found |= {name: entry for name, entry in entries.items() if isinstance(entry, Section)}
    return found


AnySection = TypeVar("AnySection", bound=Section)


def with_completed(section: AnySection, where: str, experiment: Experiment) -> AnySection:
    """A section with all sections inside of it completed."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{where}.{field.name}" if where else field.name
        if isinstance(value, Section):
            changes[field.name] = with_completed(value, key, experiment).completed(key, experiment)
        elif isinstance(value, dict) and any(
            isinstance(entry, Section) for entry in value.values()
        ):
            changes[field.name] = {
                name: with_completed(entry, f"{key}.{name}", experiment).completed(
                    f"{key}.{name}", experiment
                )
                for name, entry in value.items()
            }
    return dataclasses.replace(section, **changes)
