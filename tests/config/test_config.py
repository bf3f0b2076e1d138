"""Configs: every file parses, is what its golden text says, and mistakes are named."""

import pathlib
import re

import jax
import pytest

from vlp_jax.config import base, flatten, load_config, load_stages, to_config, variant_of
from vlp_jax.config.differences import differences
from vlp_jax.config.overrides import apply_overrides
from vlp_jax.errors import ConfigError
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import abstract_parameters

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
GOLDEN = ROOT / "tests/golden/configs"


def flat_text(name: str) -> str:
    """What a config changes from the defaults, a key a line: a new key with a default changes no
    golden text."""
    stages = load_stages(str(ROOT / "configs" / f"{name}.py"))
    tree = {
        f"stages.{stage}.{key}" if stage else key: value
        for stage, config in stages.items()
        for key, value in flatten(differences(config)).items()
    }
    return "".join(f"{key} = {value!r}\n" for key, value in tree.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_what_its_golden_text_says(name):
    """To accept a change: python tests/golden/make_configs.py."""
    assert flat_text(name) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_differences_from_the_defaults_make_the_same_config(name):
    for stage, config in load_stages(str(ROOT / "configs" / f"{name}.py")).items():
        tree = differences(config)
        assert stage or tree["steps" if config.steps else "epochs" if config.epochs else "examples"]
        assert to_config(tree) == config


def test_a_changed_default_of_a_chosen_kind_is_among_the_differences():
    tree = base().to_dict() | dict(
        steps=1, objectives=dict(matching=dict(kind="matching", negatives="uniform"))
    )
    tree["model"]["fusion"] = dict(kind="gated", width=12)
    found = differences(to_config(tree))
    assert found["objectives"] == {"matching": {"kind": "matching", "negatives": "uniform"}}
    assert found["model"]["fusion"] == {"kind": "gated", "width": 12}
    assert set(found) == {"steps", "objectives", "model"}


@pytest.mark.full
@pytest.mark.parametrize("variant", ["", ":smoke"])
@pytest.mark.parametrize("name", NAMES)
def test_a_config_describes_a_model_that_can_be_built(name, variant):
    for config in load_stages(str(ROOT / "configs" / f"{name}.py{variant}")).values():
        parameters = abstract_parameters(build_module(config), example_batch(config))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(parameters)} == {"float32"}


@pytest.mark.parametrize(
    ("name", "millions"),
    [("clip_b32", 151.3), ("clip_b16", 149.6), ("clip_l14", 427.6), ("siglip_b16", 203.2)],
)
def test_parameter_counts_are_the_published_ones(name, millions):
    config = load_config(str(ROOT / "configs" / f"{name}.py"))
    parameters = abstract_parameters(build_module(config), example_batch(config))
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) / 1e6 == pytest.approx(
        millions, abs=0.06
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("model.image.depht", "3"), "did you mean 'depth'?"),
        (("optimizer.learning_rat", "3"), "did you mean 'learning_rate'?"),
        (("regularizers.small.l3", "3"), "did you mean 'l2'?"),
        (("regularizers.small.l1", "-1"), "must be at least 0"),
        (("optimizer.b1", "1"), "must be between 0.0 and 0.999999, got 1.0"),
        (("optimizer.b2", "1"), "must be between 0.0 and 0.999999, got 1.0"),
        (
            ("optimizer.momentum", "1"),
            "optimizer.momentum: is for kind='sgd', not for 'muon' [--config.optimizer.momentum=1",
        ),
        (
            ("optimizer.schedule.timescale", "7"),
            "optimizer.schedule.timescale: is for kind='rsqrt', not for 'cosine'",
        ),
        (("data.batch_size", "many"), "expected a whole number"),
        (("data.batch_size", "0"), "must be at least 1"),
        (("precision.compute", "float16"), "did you mean 'bfloat16'?"),
        (("objectives.contrastive.kind", "hinge"), "must be one of"),
        (("data.text.canonicalize", "html,lowercase"), "did you mean 'lower_case'?"),
        (("seed.x", "1"), "is a single value"),
        (
            ("profile.start.x", "1"),
            "profile.start: is a single value and has no key 'x' [--config.profile.start.x=1",
        ),
        (
            ("data.view_augmentation.ratioo", "1"),
            "data.view_augmentation.ratioo: unknown key (did you mean 'ratio'?)",
        ),
        (("data.view_augmentation", "crop"), "expected a section with keys"),
        (("data.boxes.count", "5"), "data.boxes: has no effect without"),
    ],
)
def test_a_mistaken_override_is_named_with_the_way_out(override, message):
    with pytest.raises(ConfigError, match="config error: ") as caught:
        load_config(str(ROOT / "configs/clip_emoji.py"), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (
            {"model.image.saved": "query"},
            "model.image.saved",
            "with rematerialisation='save_matmuls'",
        ),
        (
            {"model.text.word_overlap": "0.1"},
            "model.text.word_overlap",
            "without model.text.word_vectors",
        ),
        (
            {"model.text.rematerialisation": "save_names"},
            "model.text.rematerialisation",
            "that is 'full'",
        ),
        (
            {
                "objectives.contrastive.implementation": "dense",
                "objectives.contrastive.chunk_size": "64",
            },
            "objectives.contrastive.chunk_size",
            "use 'chunked' or 'ring'",
        ),
        (
            {"optimizer.weight_decay": "0", "optimizer.decay_coupling": "schedule"},
            "optimizer.decay_coupling",
            "with weight_decay=0",
        ),
        (
            {
                "objectives": (
                    "{'match': {'kind': 'matching', 'negatives': 'uniform', 'negative_scale': 3.0}}"
                ),
                "model.fusion": "{'kind': 'gated'}",
            },
            "objectives.match.negative_scale",
            "with negatives='uniform'",
        ),
        ({"accumulation.negatives": "microbatch"}, "accumulation.negatives", "microbatches=1"),
        (
            {"checkpoint.best_metric": "val/text_to_image_recall@1"},
            "checkpoint.best_metric",
            "keep_best=0",
        ),
        ({"regularizers.small.pattern": "kernel"}, "regularizers.small", "l1=0 and l2=0"),
        (
            {"watchdog.exit": "true", "watchdog.seconds": "none"},
            "watchdog.exit",
            "without watchdog.seconds",
        ),
        ({"mesh.rules": "(('batch', 'data'),)"}, "mesh.rules", "set mesh.data and mesh.fsdp"),
    ],
)
def test_a_setting_without_effect_is_named(overrides, path, words):
    with pytest.raises(ConfigError, match=re.escape(f"{path}: has no effect")) as error:
        load_config(str(ROOT / "configs/clip_b16.py"), list(overrides.items()))
    assert words in str(error.value) and "clip_b16.py" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"optimizer.kind": "lion", "optimizer.epsilon": "1e-3"},
            ["optimizer.epsilon: is for kind='adamw' or 'adam' or 'muon', not for 'lion'"],
        ),
        (
            {"optimizer.kind": "sgd", "optimizer.b1": "0.8", "optimizer.b2": "0.9"},
            [
                (
                    f"optimizer.{key}: is for kind='adamw' or 'adam' or 'adafactor' or 'lion' or "
                    "'muon', not for 'sgd'"
                )
                for key in ("b1", "b2")
            ],
        ),
        (
            {"optimizer.schedule.kind": "constant", "optimizer.schedule.final": "0.1"},
            [
                "optimizer.schedule.final: is for kind='cosine' or 'linear' or 'rsqrt' or "
                "'exponential' or 'warmup_stable_decay', not for 'constant'"
            ],
        ),
        ({"optimizer.kind": "adam"}, ["optimizer.weight_decay: must be 0 with kind='adam'"]),
    ],
)
def test_a_setting_of_another_optimizer_or_schedule_is_an_error(changes, messages):
    with pytest.raises(ConfigError) as error:
        load_config(f"{ROOT}/configs/clip_b16.py", list(changes.items()))
    assert all(message in str(error.value) for message in messages)


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [("sgd", "constant"), ("muon", "rsqrt"), ("adafactor", "warmup_stable_decay")],
)
def test_another_optimizer_and_schedule_can_be_tried_on_a_config_with_settings_for_its_own(
    kind, schedule
):
    config = load_config(
        f"{ROOT}/configs/clip_b16.py",
        [("optimizer.kind", kind), ("optimizer.schedule.kind", schedule)],
    )
    assert (config.optimizer.kind, config.optimizer.schedule.kind) == (kind, schedule)


@pytest.mark.parametrize(
    ("name", "override", "path"),
    [
        ("gpt2_lm", ("objectives", "{'pixels': {'kind': 'masked_autoencoder'}}"), "model.decoder"),
        (
            "vilt",
            ("objectives", "{'words': {'kind': 'masked_language', 'with_image': False}}"),
            "model.fusion",
        ),
        (
            "clip_emoji",
            ("objectives", "{'pairs': {'kind': 'clip', 'weight': 0.0, 'weight_warmup': 5}}"),
            "objectives.pairs.weight",
        ),
    ],
)
def test_a_part_that_nothing_trains_is_named(name, override, path):
    with pytest.raises(ConfigError, match=re.escape(f"{path}: has no effect")):
        load_config(str(ROOT / f"configs/{name}.py"), [override])


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("clip_rn50", ("model.image.stem_size", "3"), "a stem of its own"),
        ("clip_rn50", ("model.image.groups", "8"), "norm='batch'"),
        ("clip_emoji_resnet", ("model.image.heads", "4"), "without clip=True"),
    ],
)
def test_a_setting_without_effect_on_a_resnet_is_named(name, override, words):
    with pytest.raises(ConfigError, match=re.escape(f"{override[0]}: has no effect")) as error:
        load_config(str(ROOT / f"configs/{name}.py"), [override])
    assert words in str(error.value)


def test_setting_one_duration_replaces_the_others():
    config = load_config(str(ROOT / "configs/clip_emoji.py"), [("steps", "7")])
    assert (config.steps, config.examples, config.epochs) == (7, None, None)


@pytest.mark.variants
@pytest.mark.parametrize(
    "kind",
    [
        "cross_attention",
        "merged",
        "co_attention",
        "concatenation",
        "gated",
        "bilinear",
        "visual_attention",
        "graph",
    ],
)
def test_every_fusion_has_a_smoke_form_that_is_narrow_and_can_be_built(kind):
    config = base()
    config.update(steps=1, objectives=dict(matching=dict(kind="matching", negatives="uniform")))
    config.model.text.update(causal=False, pooling="first")
    config.model.fusion = dict(kind=kind)
    config = variant_of(config, "smoke")
    config.evaluators = {}  # no embeddings are trained
    config = to_config(config.to_dict())
    parameters = abstract_parameters(build_module(config), example_batch(config))
    assert max(max(leaf.shape) for leaf in jax.tree.leaves(parameters["model"]["fusion"])) <= 256


def test_a_number_among_choices_may_come_from_the_command_line():
    tree = base().to_dict() | dict(
        steps=1, objectives=dict(matching=dict(kind="matching", negatives="uniform"))
    )
    tree["model"]["fusion"] = dict(kind="graph")
    assert (
        to_config(
            apply_overrides(tree, [("model.fusion.image_neighbours", "4")])
        ).model.fusion.image_neighbours
        == 4
    )
    whole = to_config(
        apply_overrides(tree, [("model.fusion", "{'kind': 'gated', 'width': 12}")])
    ).model.fusion
    assert (whole.kind, whole.width) == ("gated", 12)
    with pytest.raises(ConfigError, match="model.fusion: expected a section with a key 'kind'"):
        to_config(apply_overrides(tree, [("model.fusion", "gated")]))
    tree["model"]["fusion"] = dict(kind="graph")
    with pytest.raises(
        ConfigError,
        match="model.fusion.image_neighbours: must be one of 4, 8, got '5' .*--config.model.fusion",
    ):
        to_config(apply_overrides(tree, [("model.fusion.image_neighbours", "5")]))
