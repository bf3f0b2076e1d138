"""Boxes and dependencies in a config: the fusion knows how many regions there are, and what does
not fit is named."""

import pytest
from tiny_experiment import set_keys

from vlp_jax.config import base, to_config, to_tree
from vlp_jax.errors import ConfigError

BOXES, PARSES = dict(field="boxes"), dict(field="parse")
MATCHING = dict(kind="matching", negatives="uniform")


def config_of(fusion, boxes=None, dependencies=None, objective=MATCHING, **changes):
    config = base()
    config.update(steps=1, objectives=dict(pair=objective))
    config.model.fusion = dict(kind="graph", **fusion) if isinstance(fusion, dict) else fusion
    config.data.update(boxes=boxes, dependencies=dependencies)
    set_keys(config, changes)
    return to_config(config.to_dict())


def test_the_fusion_has_as_many_regions_as_there_are_boxes_and_stays_so_in_a_stored_config():
    config = config_of(dict(regions="boxes", words="dependencies"), dict(BOXES, count=5), PARSES)
    assert config.model.fusion.box_count == 5
    assert to_config(to_tree(config)) == config
    assert config_of({}).model.fusion.box_count is None
    assert config_of(dict(regions="boxes"), BOXES).model.fusion.box_count == 36


@pytest.mark.parametrize(
    ("fusion", "boxes", "dependencies", "changes", "message"),
    [
        (
            dict(regions="boxes"),
            None,
            None,
            {},
            r"model.fusion.regions: 'boxes' needs data.boxes: set "
            r"it, such as dict\(field='boxes'",
        ),
        (
            dict(words="dependencies"),
            None,
            None,
            {},
            "model.fusion.words: 'dependencies' needs data.dependencies",
        ),
        (
            {},
            BOXES,
            None,
            {},
            "data.boxes: has no effect without model.fusion.kind='graph' with regions='boxes'",
        ),
        (
            {},
            None,
            PARSES,
            {},
            "data.dependencies: has no effect without .* with words='dependencies'",
        ),
        (dict(regions="boxes"), dict(field=""), None, {}, "data.boxes.field: is missing"),
        (dict(words="dependencies"), None, {}, {}, "data.dependencies.field: is missing"),
        (
            dict(regions="boxes"),
            dict(BOXES, unit="metres"),
            None,
            {},
            "data.boxes.unit: must be one of 'pixels', 'fraction'",
        ),
        (
            dict(regions="boxes", box_count=3),
            BOXES,
            None,
            {},
            "model.fusion.box_count: is 3, data.boxes has 36; leave it out",
        ),
        (
            dict(regions="boxes", image_neighbours=4),
            BOXES,
            None,
            {},
            "image_neighbours: has no effect with regions='boxes'",
        ),
        (
            dict(box_neighbours="all"),
            None,
            None,
            {},
            "model.fusion.box_neighbours: has no effect with regions='grid'",
        ),
        (
            dict(words="dependencies", word_window=3),
            None,
            PARSES,
            {},
            "word_window: has no effect with words='dependencies'",
        ),
        (
            dict(regions="boxes"),
            BOXES,
            None,
            dict(data__augmentation__rotation=5.0),
            "data.augmentation.rotation: is 5.0, and data",
        ),
        (
            dict(regions="boxes"),
            BOXES,
            None,
            dict(data__augmentation__randaugment__operations=2),
            "data.augmentation.randaugment.operations: is 2, and data.boxes are not moved along; "
            "set it to 0",
        ),
        (
            dict(regions="boxes"),
            BOXES,
            None,
            dict(objective=dict(kind="masked_joint", mask_id=3)),
            "model.fusion.regions: 'boxes' leaves no patches that objectives.pair could predict",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__train__keywords=0.5),
            "data.train.keywords: is 0.5, and data.dep",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__train__prompts=("{}", "a photo of {}")),
            "data.train.prompts: are",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__train__source="csv:a.csv?caption=b&prompt=a {}"),
            "data.train.source: has the option prompt=, and data.dependencies count the words of "
            "captions alone; set none",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__train__mixture=dict(x=dict(source="csv:a", caption_and_keywords=1.0))),
            "data.train.mixture.x.caption_and_keywords: is 1.0",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__text__truncation_side="left"),
            "data.text.truncation_side: is 'left'",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__text__canonicalize=("html", "stop_words")),
            "data.text.canonicalize: has 'stop_words', and data.dependencies count all words",
        ),
        (
            dict(words="dependencies"),
            None,
            PARSES,
            dict(data__text__packing=4),
            "data.text.packing: is 4, and data.dependencies",
        ),
    ],
)
def test_what_does_not_fit_is_named(fusion, boxes, dependencies, changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(fusion, boxes, dependencies, **changes)


def test_other_fusions_read_neither():
    config = base()
    for name, data in (("boxes", BOXES), ("dependencies", PARSES)):
        config.update(steps=1, objectives=dict(pair=MATCHING))
        config.model.fusion = dict(kind="gated")
        with pytest.raises(
            ConfigError, match=f"data.{name}: has no effect without model.fusion.kind='graph'"
        ):
            to_config(config.to_dict() | {"data": config.data.to_dict() | {name: data}})
