"""Targets in a config: heads get their sizes, and what does not fit is named."""

import pytest

from vlp_jax.config import base, to_config, to_tree
from vlp_jax.errors import ConfigError

CLASS = dict(kind="class", field="a", classes=7)
OBJECTIVE = dict(kind="classification", target="x", features="image")


def config_of(target=CLASS, objective=OBJECTIVE, **changes):
    config = base()
    config.update(steps=1, objectives=dict(tell=objective))
    config.data.targets = dict(x=target)
    for key, value in changes.items():
        section, name = key.split("__")
        config[section][name] = value
    return to_config(config.to_dict())


@pytest.mark.parametrize(
    ("target", "objective", "outputs"),
    [
        (CLASS, OBJECTIVE, 7),
        (
            dict(kind="class", field="a", names=("p", "q")),
            dict(OBJECTIVE, loss="hinge", margin=0.5),
            2,
        ),
        (dict(CLASS, kind="scores"), dict(OBJECTIVE, loss="binary"), 7),
        (dict(kind="number", field="a"), dict(OBJECTIVE, kind="regression"), 1),
    ],
)
def test_a_head_is_as_wide_as_its_target_and_stays_so_in_a_stored_config(
    target, objective, outputs
):
    config = config_of(target, objective)
    assert config.objectives["tell"].outputs == outputs
    assert to_config(to_tree(config)) == config


@pytest.mark.parametrize(
    ("target", "objective", "message"),
    [
        (dict(CLASS, field=""), OBJECTIVE, "data.targets.x.field: is missing"),
        (dict(kind="class", field="a"), OBJECTIVE, "data.targets.x.classes: is missing"),
        (
            dict(CLASS, names=("p", "q")),
            OBJECTIVE,
            "data.targets.x.classes: is 7, and there are 2 names",
        ),
        (
            dict(kind="class", field="a", names=("p", "p")),
            OBJECTIVE,
            "data.targets.x.names: names a class twice",
        ),
        (
            dict(kind="class", field="a", names=("p",)),
            OBJECTIVE,
            "data.targets.x.names: names one class, which is no choice",
        ),
        (
            dict(kind="class", field="a", names=("p", "q"), file="f"),
            OBJECTIVE,
            "data.targets.x.file: has no effect with `names`",
        ),
        (dict(CLASS, agreeing=2), OBJECTIVE, "data.targets.x.agreeing: is for kind='scores'"),
        (
            CLASS,
            dict(OBJECTIVE, target="y"),
            r"objectives.tell.target: 'y' is no name of data.targets "
            r"\(there are: x\)",
        ),
        (
            CLASS,
            dict(OBJECTIVE, loss="binary"),
            "loss='binary' needs a target of kind 'scores', data.targets.x is one of kind 'class'",
        ),
        (
            CLASS,
            dict(OBJECTIVE, kind="regression"),
            "kind='regression' needs a target of kind 'number'",
        ),
        (CLASS, dict(OBJECTIVE, outputs=8), "objectives.tell.outputs: is 8, data.targets.x has 7"),
        (
            CLASS,
            dict(OBJECTIVE, margin=2.0),
            "objectives.tell.margin: has no effect with loss='softmax'",
        ),
        (
            CLASS,
            dict(OBJECTIVE, loss="hinge", label_smoothing=0.1),
            "objectives.tell.label_smoothing: has no effect",
        ),
        (
            CLASS,
            dict(kind="clip"),
            "data.targets.x: has no effect without an objective that has target='x'",
        ),
    ],
)
def test_what_does_not_fit_is_named(target, objective, message):
    with pytest.raises(ConfigError, match=message):
        if objective.get("target") == "y":  # a target that nothing tells would be named first
            base_config = base()
            base_config.update(steps=1, objectives=dict(tell=objective, other=OBJECTIVE))
            base_config.data.targets = dict(x=target)
            to_config(base_config.to_dict())
        config_of(target, objective)


def test_what_pools_nothing_cannot_be_read_and_a_fusion_needs_a_reader():
    config = base()
    with pytest.raises(
        ConfigError, match="objectives.tell.features: 'image' reads what model.image.pooling='none'"
    ):
        config_of(model__image=dict(config.model.image.to_dict(), pooling="none"))
    with pytest.raises(ConfigError, match="model.fusion: has no effect .*features='fused'"):
        config_of(model__fusion=dict(kind="gated"))
    assert (
        config_of(
            objective=dict(OBJECTIVE, features="fused"), model__fusion=dict(kind="gated")
        ).model.fusion.kind
        == "gated"
    )


@pytest.mark.parametrize(
    "image", [dict(kind="vit"), dict(kind="resnet"), dict(kind="vgg"), dict(kind="inception_v3")]
)
def test_every_image_tower_can_be_read(image):
    config = base()
    config.model.image = image
    config.update(steps=1, objectives=dict(tell=OBJECTIVE))
    config.data.targets = dict(x=CLASS)
    assert to_config(config.to_dict()).objectives["tell"].outputs == 7
