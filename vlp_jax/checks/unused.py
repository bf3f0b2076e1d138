"""Finds settings that have no effect because of another setting."""

from typing import TYPE_CHECKING

from vlp_jax.config.problems import Problems
from vlp_jax.data.target_kinds import ClassesConfig
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.models.decoder.transformer import TextDecoderConfig
from vlp_jax.objectives.answering import AnsweringConfig
from vlp_jax.objectives.captioning import CaptioningConfig
from vlp_jax.objectives.contrastive import ContrastiveConfig
from vlp_jax.objectives.masked_joint import HIDES_WORDS, MaskedJointConfig
from vlp_jax.objectives.masked_language import MaskedLanguageConfig
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.objectives.simclr import ImageViewsConfig
from vlp_jax.objectives.supervised import ClassificationConfig, SupervisedConfig
from vlp_jax.training.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

MOMENTS = {"adamw": ("b1", "b2", "epsilon"), "adam": ("b1", "b2", "epsilon"), "muon": ("b1", "b2", "epsilon"),
           "lion": ("b1", "b2"), "adafactor": ("b1", "b2"), "sgd": ()}
OF_SCHEDULES = {"cosine": ("final",), "linear": ("final",), "rsqrt": ("decay", "timescale", "final"), "constant": (),
                "exponential": ("factor", "period", "final"), "warmup_stable_decay": ("decay", "final")}
# The tasks of an evaluator that a setting is for; one that is absent is for all.
TASKS_OF_SETTINGS = {"class_field": ("zero_shot",), "templates": ("zero_shot",), "class_names": ("zero_shot",),
                     "captions_per_class": ("zero_shot",), "merge_equal_captions": ("retrieval",), "by": ("classification",),
                     "objective": ("classification", "regression", "answers"), "num_beams": ("captions", "answers"),
                     "length_penalty": ("captions", "answers"), "early_stopping": ("captions", "answers")}
LISTED = ("zero_shot", "retrieval")  # tasks whose settings are listed, and are no error, where the task is absent
CHUNK_SIZE = ContrastiveConfig().chunk_size


def check_unused(config: "Experiment", place: str) -> None:
    """Checks for settings without an effect.

    Raises: ConfigError naming each, and what it needs.
    """
    at = f" [{place}]" if place else ""
    Problems(f"{path}: has no effect {needed}{at}" for path, unused, needed in unused_settings(config) if unused).report()


def passed_over(config: "Experiment") -> list[str]:
    """Settings, other than their defaults, that a kind or a task does not use.

    They are returned as `optimizer.b1=0.95 has no effect with ...`. They are no error, so that
    another kind can be tried on a config with settings for its own.
    """
    optimizer, schedule = config.optimizer, config.optimizer.schedule
    settings = [("optimizer", optimizer, [name for name in ("b1", "b2", "epsilon") if name not in MOMENTS[optimizer.kind]],
                 f"with optimizer.kind={optimizer.kind!r}"),
                ("optimizer.schedule", schedule, [name for name in ("decay", "timescale", "factor", "period", "final")
                                                  if name not in OF_SCHEDULES[schedule.kind]],
                 f"with optimizer.schedule.kind={schedule.kind!r}")]
    settings += [(f"evaluators.{name}", spec, names, f"without the task {task!r}")
                 for task in LISTED for names in [[name for name, tasks in TASKS_OF_SETTINGS.items() if tasks == (task,)]]
                 for name, spec in config.evaluators.items() if task not in spec.tasks]
    return [f"{path}.{name}={getattr(section, name)!r} has no effect {beside}" for path, section, names, beside in settings
            for name in names if getattr(section, name) != getattr(type(section)(), name)]


def unused_settings(config: "Experiment") -> list[tuple[str, bool, str]]:
    """All checks, as tuples of the setting, whether it has no effect, and the reason."""
    text = config.data.text
    settings = unused_parts(config) + unused_of_targets(config)
    for name, objective in config.objectives.items():
        settings.append((f"objectives.{name}.weight", objective.weight == 0 and objective.planned, "as 0 with a plan for it"))
        settings.append((f"objectives.{name}.weight_end", (objective.weight_end or 1 << 60) <= objective.weight_start,
                         "with a weight_start that is not before it: the objective would never count"))
        if isinstance(objective, HIDES_WORDS):
            ends = (("first", objective.keep_first, "start_token", text.start_token),
                    ("last", objective.keep_last, "end_token", text.end_token))
            settings += [(f"objectives.{name}.keep_{place}", spared and token is None, f"without data.text.{key}: that is a word")
                         for place, spared, key, token in ends]
        if isinstance(objective, MatchingConfig):
            settings.append((f"objectives.{name}.negative_scale", objective.negatives == "uniform" and
                             objective.negative_scale != MatchingConfig().negative_scale, "with negatives='uniform'"))
            settings.append((f"objectives.{name}.negative_floor", objective.negatives == "uniform" and objective.negative_floor > 0,
                             "with negatives='uniform'"))
        if isinstance(objective, MaskedLanguageConfig):
            settings.append((f"objectives.{name}.alpha_warmup", objective.alpha == 0 < objective.alpha_warmup, "with alpha=0"))
        if not isinstance(objective, ContrastiveConfig):
            continue
        dense = objective.implementation == "dense"
        settings.append((f"objectives.{name}.chunk_size", dense and objective.chunk_size != CHUNK_SIZE,
                         "with implementation='dense', which holds all pairs; use 'chunked' or 'ring'"))
    settings += [(f"regularizers.{name}", not (spec.l1 or spec.l2), "with l1=0 and l2=0")
                 for name, spec in config.regularizers.items()]
    accumulation, checkpoint, optimizer = config.accumulation, config.checkpoint, config.optimizer
    views = any(isinstance(objective, ImageViewsConfig) for objective in config.objectives.values())
    return settings + [
        ("data.view_augmentation", config.data.view_augmentation is not None and not views,
         "without an objective of kind 'simclr'"),
        ("data.text.packing_rows", text.packing is None and text.packing_rows != 1, "without data.text.packing"),
        ("optimizer.decay_coupling", optimizer.decay_coupling != "learning_rate" and not optimizer.weight_decay,
         "with weight_decay=0"),
        ("optimizer.newton_schulz_steps",
         optimizer.kind != "muon" and optimizer.newton_schulz_steps != OptimizerConfig().newton_schulz_steps,
         f"with optimizer.kind={optimizer.kind!r}: it is for 'muon'"),
        ("optimizer.momentum", optimizer.kind != "sgd" and optimizer.momentum != OptimizerConfig().momentum,
         f"with optimizer.kind={optimizer.kind!r}: it is for 'sgd'"),
        ("accumulation.negatives", accumulation.negatives != "batch" and accumulation.microbatches == 1, "with microbatches=1"),
        ("checkpoint.best_metric", checkpoint.best_metric is not None and not checkpoint.keep_best,
         "with checkpoint.keep_best=0; set how many of the best to keep"),
        ("watchdog.exit", config.watchdog.exit and config.watchdog.seconds is None, "without watchdog.seconds"),
        ("mesh.rules", any(rule[:1] == ("batch",) for rule in config.mesh.rules),
         "for 'batch': examples are always divided over data x fsdp; set mesh.data and mesh.fsdp")]


def unused_parts(config: "Experiment") -> list[tuple[str, bool, str]]:
    """A decoder and a fusion that no objective uses."""
    objectives = config.objectives.values()
    writes = any(isinstance(objective, CaptioningConfig | AnsweringConfig) for objective in objectives)
    fuses = any(isinstance(objective, MatchingConfig | MaskedJointConfig | AnsweringConfig)
                or (isinstance(objective, MaskedLanguageConfig) and objective.with_image)
                or (isinstance(objective, SupervisedConfig) and objective.features == "fused") for objective in objectives)
    captions = any(isinstance(objective, CaptioningConfig) for objective in objectives)
    decoder = config.model.decoder
    return [("model.decoder", decoder is not None and not writes, "without an objective of kind 'captioning' or 'answering'"),
            ("model.decoder.text_prefix", isinstance(decoder, TextDecoderConfig) and decoder.text_prefix > 0 and not captions,
             "without an objective of kind 'captioning'"),
            ("model.fusion", config.model.fusion is not None and not fuses,
             "without an objective of kind 'matching', 'masked_joint', 'answering', 'masked_language' with_image, "
             "or features='fused'")]


def unused_of_targets(config: "Experiment") -> list[tuple[str, bool, str]]:
    """Targets that no objective predicts, and settings of a target or of its objective without an effect."""
    objectives = {name: spec for name, spec in config.objectives.items() if isinstance(spec, SupervisedConfig)}
    told = {spec.target for spec in config.objectives.values() if isinstance(spec, SupervisedConfig | AnsweringConfig)}
    settings = [(f"data.targets.{name}", name not in told, f"without an objective that has target={name!r}")
                for name in config.data.targets]
    settings += [(f"data.targets.{name}.file", bool(spec.names) and spec.file is not None, "with `names`")
                 for name, spec in config.data.targets.items() if isinstance(spec, ClassesConfig)]
    for name, spec in objectives.items():
        if isinstance(spec, ClassificationConfig):
            settings += [(f"objectives.{name}.label_smoothing", spec.loss != "softmax" and spec.label_smoothing > 0,
                          f"with loss={spec.loss!r}"),
                         (f"objectives.{name}.margin", spec.loss != "hinge" and spec.margin != 1.0, f"with loss={spec.loss!r}")]
    heads, writers = {"classification", "regression", "answers"}, {"captions", "answers"}
    for name, spec in config.evaluators.items():
        settings += [(f"evaluators.{name}.objective", spec.objective is not None and not heads & {*spec.tasks},
                      "without the task 'classification', 'regression' or 'answers'"),
                     (f"evaluators.{name}.num_beams", spec.num_beams > 1 and not writers & {*spec.tasks},
                      "without the task 'captions' or 'answers'"),
                     *((f"evaluators.{name}.{key}", spec.num_beams == 1 and getattr(spec, key) != getattr(EvaluatorConfig(), key),
                        "with num_beams=1: it is for beam search") for key in ("length_penalty", "early_stopping")),
                     (f"evaluators.{name}.by", spec.by is not None and "classification" not in spec.tasks,
                      "without the task 'classification'")]
    return settings
