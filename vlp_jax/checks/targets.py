"""Checks of the objectives that predict a target of `data.targets`; the size of their heads is filled in."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from vlp_jax.data.target_kinds import ClassesConfig, TargetConfig, number_of_classes
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.pooled import PooledFusionConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives.answering import AnsweringConfig
from vlp_jax.objectives.supervised import RegressionConfig, SupervisedConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

Fail = Callable[[str, str], NoReturn]  # (key, problem)
KIND_OF_LOSS = {"softmax": "class", "hinge": "class", "binary": "scores"}


def with_outputs(config: "Experiment", place: str) -> "Experiment":
    """`config` with `outputs`, or `length`, of every objective that predicts a target.

    Raises: ConfigError for an incomplete target, and for an objective that does not fit its target.
    """
    def fail(path: str, text: str) -> NoReturn:
        raise ConfigError(f"{path}: {text}{f' [{place}]' if place else ''}")

    for name, target in config.data.targets.items():
        check_target(f"data.targets.{name}", target, fail)
    objectives = dict(config.objectives)
    for name, objective in config.objectives.items():
        if isinstance(objective, SupervisedConfig):
            outputs = outputs_of(f"objectives.{name}", objective, config, fail)
            objectives[name] = dataclasses.replace(objective, outputs=outputs)
        if isinstance(objective, AnsweringConfig):
            length = length_of(f"objectives.{name}", objective, config, fail)
            objectives[name] = dataclasses.replace(objective, length=length)
    return dataclasses.replace(config, objectives=objectives)


def check_target(path: str, target: TargetConfig, fail: Fail) -> None:
    """Calls `fail` for a target without a field, or without a number of classes that agrees with its names."""
    if not target.field:
        fail(f"{path}.field", "is missing; name the field of the metadata that holds it")
    if not isinstance(target, ClassesConfig):
        return
    if target.classes is None and not target.names:
        fail(f"{path}.classes", "is missing; set how many there are (it must be known before data are read), or give names")
    if target.names and target.classes not in (None, len(target.names)):
        fail(f"{path}.classes", f"is {target.classes}, and there are {len(target.names)} names; leave one of the two out")
    if len(set(target.names)) < len(target.names):
        fail(f"{path}.names", "names a class twice")
    if target.kind == "class" and number_of_classes(target) < 2:
        fail(f"{path}.names", "names one class, which is no choice; name two or more")


def outputs_of(path: str, objective: SupervisedConfig, config: "Experiment", fail: Fail) -> int:
    """The number of outputs of an objective.

    Calls `fail` where its target is of another kind, or its features are absent.
    """
    target = target_of(path, objective, config, fail)
    wanted = "number" if isinstance(objective, RegressionConfig) else KIND_OF_LOSS[objective.loss]
    if target.kind != wanted:
        what = "kind='regression'" if isinstance(objective, RegressionConfig) else f"loss={objective.loss!r}"
        fail(f"{path}.target", f"{what} needs a target of kind {wanted!r}, data.targets.{objective.target} is one of kind "
                               f"{target.kind!r}")
    image = config.model.image
    if objective.features == "image" and isinstance(image, ViTConfig) and image.pooling == "none":
        fail(f"{path}.features", "'image' reads what model.image.pooling='none' does not pool; set it, such as 'mean'")
    outputs = number_of_classes(target)
    if objective.outputs not in (None, outputs):
        fail(f"{path}.outputs", f"is {objective.outputs}, data.targets.{objective.target} has {outputs}; leave it out")
    return outputs


def target_of(path: str, objective: SupervisedConfig | AnsweringConfig, config: "Experiment",
              fail: Fail) -> TargetConfig:
    """The target of an objective. Calls `fail` where it does not exist."""
    if objective.target not in config.data.targets:
        known = ", ".join(config.data.targets) or "none; set data.targets.NAME=dict(kind='class', field=..., classes=...)"
        fail(f"{path}.target", f"{objective.target!r} is no name of data.targets (there are: {known})")
    return config.data.targets[objective.target]


def length_of(path: str, objective: AnsweringConfig, config: "Experiment", fail: Fail) -> int:
    """The number of tokens of an answer.

    Calls `fail` where its target is no text, or the model cannot generate it.
    """
    target, decoder, fusion = target_of(path, objective, config, fail), config.model.decoder, config.model.fusion
    if target.kind != "text":
        fail(f"{path}.target", f"needs a target of kind 'text', data.targets.{objective.target} is one of kind {target.kind!r}")
    if fusion is None or isinstance(fusion, PooledFusionConfig):
        fail("model.fusion", f"{path} reads the text's tokens after fusion; set one that has some, such as kind='cross_attention'")
    looks = decoder is not None and decoder.image in ("cross_attention", "attention")
    if not looks or decoder.kind in ("on_text_tower", "in_text_tower"):
        fail("model.decoder", f"{path} writes by a decoder of its own that looks at tokens; set kind='transformer' with "
                              "image='cross_attention', or kind='lstm' or 'gru' with image='attention'")
    if target.length > config.model.text.length:
        fail(f"data.targets.{objective.target}.length",
             f"is {target.length}, more than model.text.length={config.model.text.length}")
    text = config.data.text
    for key, token, does in (("start_token", text.start_token, "begins"), ("end_token", text.end_token, "ends")):
        if token is None:  # without an end, an answer is ranked above all its continuations
            fail(f"data.text.{key}", f"is None, and {path} {does} an answer with it; set one")
    if objective.length not in (None, target.length):
        fail(f"{path}.length", f"is {objective.length}, data.targets.{objective.target} has {target.length}; leave it out")
    return target.length
