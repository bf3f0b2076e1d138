"""Checks of `data.boxes` and `data.dependencies` for a graph fusion; the number of regions is filled in."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from vlp_jax.data.images.boxes import BoxesConfig
from vlp_jax.data.text.dependency_parses import DependenciesConfig
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.graph_fusion import GraphFusionConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

from vlp_jax.data.text.dependency_parses import SOURCE_PROMPT

Fail = Callable[[str, str], NoReturn]  # (key, problem)


def with_box_count(config: "Experiment", place: str) -> "Experiment":
    """`config` with `box_count` of a fusion whose regions are boxes.

    Raises: ConfigError for graphs without their data, data without a graph that uses them, and
      settings incompatible with them.
    """
    def fail(path: str, text: str) -> NoReturn:
        raise ConfigError(f"{path}: {text}{f' [{place}]' if place else ''}")

    boxes, fusion = config.data.boxes, config.model.fusion
    graph = fusion if isinstance(fusion, GraphFusionConfig) else GraphFusionConfig()
    check_there("boxes", boxes, "regions", graph.regions, fail)
    check_there("dependencies", config.data.dependencies, "words", graph.words, fail)
    count = None if boxes is None else boxes.count
    if graph.box_count not in (None, count):
        fail("model.fusion.box_count", f"is {graph.box_count}, data.boxes has {count}; leave it out")
    if config.data.dependencies is not None:
        check_words(config, fail)
    if boxes is None:
        return config
    check_pictures(config, fail)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, fusion=dataclasses.replace(graph, box_count=count)))


def check_there(name: str, data: BoxesConfig | DependenciesConfig | None, key: str, value: str, fail: Fail) -> None:
    """Calls `fail` where only one of `data.NAME` and the fusion's `key` is set, or the first has no field."""
    if data is None and value == name:
        fail(f"model.fusion.{key}", f"{name!r} needs data.{name}: set it, such as dict(field={name!r}), the field of the metadata "
                                    "that holds them")
    if data is not None and value != name:
        fail(f"data.{name}", f"has no effect without model.fusion.kind='graph' with {key}={name!r}")
    if data is not None and not data.field:
        fail(f"data.{name}.field", "is missing; name the field of the metadata that holds them")


def check_pictures(config: "Experiment", fail: Fail) -> None:
    """Calls `fail` for augmentations that are not applied to boxes."""
    augmentation = config.data.augmentation
    for key, used in (("rotation", augmentation.rotation), ("randaugment.operations", augmentation.randaugment.operations)):
        if used:
            fail(f"data.augmentation.{key}", f"is {used}, and data.boxes are not moved along; set it to 0")


def check_words(config: "Experiment", fail: Fail) -> None:
    """Calls `fail` for texts other than a single caption.

    `data.dependencies` index the words of one caption.
    """
    train = config.data.train
    why = "and data.dependencies count the words of captions alone; set"
    if config.data.text.truncation_side != "right":
        fail("data.text.truncation_side", f"is 'left', {why} 'right'")
    if "stop_words" in config.data.text.canonicalize:
        fail("data.text.canonicalize", "has 'stop_words', and data.dependencies count all words of a caption; leave it out")
    if config.data.text.packing is not None:
        fail("data.text.packing", f"is {config.data.text.packing}, {why} None")
    parts = {f"data.train.mixture.{name}": part for name, part in train.mixture.items()}
    for path, texts in {"data.train": train, **parts}.items():
        for key in ("caption_and_keywords", "keywords"):
            if getattr(texts, key):
                fail(f"{path}.{key}", f"is {getattr(texts, key)}, {why} 0")
        if texts.prompts not in (None, ("{}",)):
            fail(f"{path}.prompts", f"are {texts.prompts}, {why} ('{{}}',)")
        if SOURCE_PROMPT.search(texts.source or ""):
            fail(f"{path}.source", f"has the option prompt=, {why} none")
