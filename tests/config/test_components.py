"""Components: every kind of every table from a config and from Python, kinds from outside, and what
a change of kind does."""

import dataclasses
import json
import pathlib
import pickle
import re
import sys
import typing

import pytest

from vlp_jax.config import load_config, schema, to_config, to_tree
from vlp_jax.config.describe import fields_of, sections
from vlp_jax.config.frozen import FrozenDict
from vlp_jax.config.parse import read_section
from vlp_jax.config.registry import outside_class
from vlp_jax.config.section import Component
from vlp_jax.config.tree import hints_of
from vlp_jax.errors import ConfigError
from vlp_jax.experiment import Experiment, sections_of
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.models.vision.vgg import VggConfig
from vlp_jax.models.vision.vit import ViTConfig

ROOT = pathlib.Path(__file__).parents[2]
DECLARATIONS = list(dict.fromkeys(section.declaration for section in sections(Experiment)))
# image transforms have no kinds
COMPONENTS = [each for each in DECLARATIONS if issubclass(each, Component) and each.kinds]
every = pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda each: each.__name__)
components = pytest.mark.parametrize("declaration", COMPONENTS, ids=lambda each: each.__name__)


def test_there_are_components_of_many_kinds():
    assert len(COMPONENTS) > 35 and len({id(each.kinds) for each in COMPONENTS}) >= 6


@components
def test_the_table_leads_to_the_class_and_back(declaration):
    kind = declaration.kinds.name_of(declaration)
    assert declaration.kinds[kind] is declaration and declaration().kind == kind
    assert type(declaration.of(kind)) is declaration


@every
def test_defaults_are_the_same_from_a_config_and_from_python(declaration):
    built = declaration()
    tree = {key: value for key, value in to_tree(built).items() if key != "kind"}
    assert read_section(declaration, tree, "here") == built == read_section(declaration, {}, "here")
    assert pickle.loads(pickle.dumps(built)) == built and hash(built) == hash(declaration())


@every
def test_a_wrong_type_and_a_number_out_of_range_are_the_same_error_from_a_config_and_from_python(
    declaration,
):
    found = 0
    for name, field in fields_of(declaration).items():
        low, high = field.metadata.get("range", (None, None))
        wrong = [object()] if typing.get_origin(hints_of(declaration)[name]) is not tuple else []
        wrong += [low - 1] if low is not None else []
        wrong += [high + 1] if high is not None else []
        if "excluded" in field.metadata:
            wrong.append(field.metadata["excluded"])
        for value in wrong:
            with pytest.raises(ConfigError) as in_python:
                declaration(**{name: value})
            with pytest.raises(ConfigError) as in_config:
                read_section(declaration, {name: value}, "")
            assert (
                str(in_python.value).split(": ", 1)[1].split(" [")[0]
                == str(in_config.value).split(": ", 1)[1].split(" [")[0]
            )
            found += 1
    assert found or not fields_of(declaration)


@every
def test_a_section_takes_keywords_only_and_is_frozen(declaration):
    name = next(iter(fields_of(declaration)), "other")
    with pytest.raises(TypeError):
        declaration(getattr(declaration(), name, None))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(declaration(), name, None)


def test_lists_and_dicts_become_hashable():
    tower = ViTConfig(stem_channels=[3, 4], stem="convolution", stem_strides=[2, 2])
    assert tower.stem_channels == (3, 4) and hash(tower)
    config = load_config(str(ROOT / "configs/clip_emoji.py"))
    assert hash(config) and isinstance(config.objectives, FrozenDict)
    with pytest.raises(TypeError, match="immutable"):
        config.objectives["other"] = None
    assert json.loads(json.dumps(to_tree(config)))["objectives"]["contrastive"]["kind"] == "clip"


def test_every_section_of_an_experiment_is_found_by_its_key():
    found = dict(sections_of(load_config(str(ROOT / "configs/albef.py"))))
    assert {"data.text", "model.image", "model.fusion", "objectives.matching", "optimizer"} <= {
        *found
    }
    assert found["model.fusion"].kind == "cross_attention"


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ([("model.image.kind", "vgg")], {"kind": "vgg", "depth": 16}),
        ([("model.image.kind", "vgg"), ("model.image.depth", "11")], {"kind": "vgg", "depth": 11}),
        ([("model.image.depth", "11"), ("model.image.kind", "vgg")], {"kind": "vgg", "depth": 11}),
        ([("model.text.kind", "gru"), ("model.text.width", "64")], {"kind": "gru", "width": 64}),
    ],
)
def test_a_changed_kind_drops_what_was_not_typed(overrides, changed):
    config = load_config(str(ROOT / "configs/clip_b16.py"), overrides)
    section = config.model.image if "image" in overrides[0][0] else config.model.text
    assert changed.items() <= to_tree(section).items()


def test_what_all_kinds_have_is_kept_as_the_recipe_chose_it():
    assert (
        load_config(
            str(ROOT / "configs/clip_b16.py"), [("model.text.kind", "gru")]
        ).model.text.vocab_size
        == 49408
    )
    kept = load_config(
        str(ROOT / "configs/siglip_b16.py"),
        [("model.text.kind", "gru"), ("model.embedding_dim", "768")],
    ).model.text
    assert (kept.vocab_size, kept.length, kept.projection) == (32_000, 64, "linear_with_bias")


def test_a_typed_key_of_another_kind_is_named():
    with pytest.raises(
        ConfigError,
        match=r"model.image.registers: is for kind='vit', not for 'vgg' "
        r"\[--config.model.image.registers=3",
    ):
        load_config(
            str(ROOT / "configs/clip_b16.py"),
            [("model.image.kind", "vgg"), ("model.image.registers", "3")],
        )


def test_in_a_file_a_key_of_another_kind_may_stand_at_its_default_only():
    tree = to_tree(load_config(str(ROOT / "configs/clip_emoji.py")))
    tree["model"]["image"] = to_tree(VggConfig()) | {"registers": 0}
    assert isinstance(to_config(tree).model.image, VggConfig)
    tree["model"]["image"]["registers"] = 3
    with pytest.raises(ConfigError, match="model.image.registers: is for kind='vit'"):
        to_config(tree)


def outside(tmp_path, monkeypatch, name="outside_tower", body=""):
    """A module of a user, importable, not imported."""
    (tmp_path / f"{name}.py").write_text(
        "import dataclasses\nfrom vlp_jax.models.vision.vgg "
        "import VggConfig\n\n"
        "@dataclasses.dataclass(frozen=True, "
        "kw_only=True)\nclass Mine(VggConfig):\n"
        f"    extra: int = 3\n{body}"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return f"{name}:Mine"


def test_a_kind_may_be_a_class_of_the_users_own(tmp_path, monkeypatch):
    place = outside(tmp_path, monkeypatch)
    config = load_config(
        str(ROOT / "configs/clip_b16.py"), [("model.image.kind", place), ("model.image.extra", "7")]
    )
    assert config.model.image.extra == 7 and config.model.image.kind == place
    assert to_config(to_tree(config)) == config


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("no_such_module:Mine", "importing no_such_module failed: ModuleNotFoundError"),
        ("outside_tower:Other", "has no 'Other'"),
        ("json:JSONDecoder", "does not derive from vlp_jax.models.vision.tower.ImageTowerConfig"),
        ("vlp_jax.models.text.recurrent:GruConfig", "does not derive from"),
    ],
)
def test_a_class_that_cannot_be_taken_is_one_message(tmp_path, monkeypatch, place, words):
    outside(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="model.image.kind: names the class ") as error:
        load_config(str(ROOT / "configs/clip_b16.py"), [("model.image.kind", place)])
    assert words in str(error.value)


def test_where_it_is_not_allowed_an_outside_module_is_not_imported(tmp_path, monkeypatch):
    place = outside(tmp_path, monkeypatch, "outside_secret")
    with pytest.raises(ConfigError, match="if you trust it, import outside_secret first"):
        outside_class(place, ImageTowerConfig, allowed=())
    assert "outside_secret" not in sys.modules
    assert outside_class(place, ImageTowerConfig, allowed=("outside_secret",)).__name__ == "Mine"
    assert outside_class(place, ImageTowerConfig, allowed=()).__name__ == "Mine"  # imported by now
    with pytest.raises(ConfigError, match="does not derive from"):
        outside_class(place, TextTowerConfig)


def test_every_section_is_found_by_its_short_name():
    assert {"Images", "Text", "ViT", "Vgg", "AdamW", "Matching", "Data"} <= {*dir(schema)}
    assert all(f"{getattr(schema, name).__name__}" == f"{name}Config" for name in dir(schema))
    with pytest.raises(
        AttributeError, match="no section of a config is called 'Picture'; there are Accumulation, "
    ):
        schema.Picture  # noqa: B018


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("\nclass Bare(VggConfig):\n    pass\n", "is no dataclass of its own"),
        (
            "\n@dataclasses.dataclass(frozen=True, kw_only=True)\nclass Bare(VggConfig):\n    "
            "size: int\n",
            "whose field 'size' has no default",
        ),
    ],
)
def test_a_class_that_is_no_declaration_is_one_message(tmp_path, monkeypatch, body, words):
    outside(tmp_path, monkeypatch, "outside_bare", body)
    with pytest.raises(
        ConfigError, match="model.image.kind: names the class 'outside_bare:Bare'"
    ) as error:
        load_config(str(ROOT / "configs/clip_b16.py"), [("model.image.kind", "outside_bare:Bare")])
    assert words in str(error.value)


def test_a_changed_kind_keeps_what_both_inherit_from_one_base():
    kept = load_config(
        str(ROOT / "configs/clip_b16.py"), [("objectives.contrastive.kind", "siglip")]
    ).objectives["contrastive"]
    assert (kept.kind, kept.implementation, kept.initial_scale) == ("siglip", "ring", 10.0)
    fusion = load_config(
        str(ROOT / "configs/albef.py"), [("model.fusion.kind", "merged")]
    ).model.fusion
    assert (fusion.kind, fusion.depth, fusion.norm, fusion.dropout) == ("merged", 6, "post", 0.1)


def test_a_section_of_named_entries_is_not_taken_out_as_a_whole():
    with pytest.raises(
        ConfigError, match="writers: expected a section of named entries, got 'none'"
    ):
        load_config(str(ROOT / "configs/clip_b16.py"), [("writers", "none")])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("entity", "writers.NAME.entity"),
        ("report_to", "writers"),
        ("objectives.contrastive.logit_scale", "objectives.contrastive.initial_scale"),
    ],
)
def test_a_suggested_key_is_one_that_is_there(key, meant):
    with pytest.raises(ConfigError, match=re.escape(f"did you mean {meant!r}?")):
        load_config(str(ROOT / "configs/clip_b16.py"), [(key, "1")])
