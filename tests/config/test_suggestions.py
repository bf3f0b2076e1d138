"""Mistakes in a config: all at once, in a second, and with the key that was meant, wherever it
is."""

import pathlib
import subprocess
import sys

import pytest

from vlp_jax.command_line import Flags
from vlp_jax.config import base, clip, load_config, load_stages, to_config, variant_of
from vlp_jax.config.suggestions import SYNONYMS, paths_of, suggestion
from vlp_jax.errors import ConfigError, ConfigErrors
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[2]
CLIP_EMOJI = f"{ROOT}/configs/clip_emoji.py"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("batch_size", "data.batch_size"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("data.lr", "optimizer.learning_rate"),
        ("optimizer.rate", "optimizer.learning_rate"),
        ("average", "ema"),
        ("dtype", "precision.compute"),
        ("model.dtype", "precision.compute"),
        ("warmup", "optimizer.schedule.warmup"),
        ("optimizer.warmup", "optimizer.schedule.warmup"),
        ("optimizer.warmup_steps", "optimizer.schedule.warmup"),
        ("num_epochs", "epochs"),
        ("train.batch_size", "data.batch_size"),
        ("modle.text.width", "model"),
        ("training.lr", "optimizer.learning_rate"),
        ("model.vision.image_size", "model.image.image_size"),
        ("weight_decay", "optimizer.weight_decay"),
        ("image_size", "model.image.image_size"),
        ("tokenizer", "data.text.tokenizer"),
        ("context_length", "model.text.length"),
        ("accum_freq", "accumulation.microbatches"),
        ("num_workers", "data.workers"),
        ("batchsize", "data.batch_size"),
        ("wieght_decay", "optimizer.weight_decay"),
        ("model.text.num_layers", "depth"),
        ("model.text.hidden_size", "width"),
        ("logit_scale", "objectives.contrastive.initial_scale"),
        ("val_frequency", "evaluators.val_concept.every_steps"),
        ("save_every", "checkpoint.every_steps"),
        ("modle", "model"),
    ],
)
def test_a_suggestion_is_looked_for_in_the_whole_config(key, meant):
    with pytest.raises(ConfigError, match=f"^config error: {key}") as caught:
        load_config(CLIP_EMOJI, [(key, "3")])
    assert f"{key}: unknown key (did you mean {meant!r}?)" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "meant"),
    [("softmax", "clip"), ("sigmoid", "siglip"), ("image_views", "simclr"), ("Clip", "clip")],
)
def test_a_kind_is_found_by_its_other_names(kind, meant):
    with pytest.raises(ConfigError, match=f"got '{kind}' .did you mean '{meant}'"):
        load_config(CLIP_EMOJI, [("objectives.contrastive.kind", kind)])


def test_every_synonym_leads_to_a_key_that_exists():
    paths = {*paths_of(Experiment)}
    assert all(any(f".{path}".endswith(f".{end}") for path in paths) for end in SYNONYMS)
    assert suggestion("qqq", ["width", "depth"], Experiment, {}) == "(there are: width, depth)"
    named_twice = [name for names in SYNONYMS.values() for name in names]
    assert len(named_twice) == len(set(named_twice))


def test_all_mistakes_are_reported_at_once():
    wrong = {
        "batch_size": "3",
        "optimizer.ratee": "1",
        "data.workers": "-1",
        "seed.x": "1",
        "model.image.preset.y": "2",
        "model.image.pooling": "max",
        "data.text.canonicalize": "html,lowercase",
        "precision.compute": "float16",
        "evaluators.val_vendor.tasks": "retreival",
        "evaluators.nobody": "none",
        "optimizer.frozen.x": "1",
    }
    with pytest.raises(ConfigErrors) as caught:
        load_config(CLIP_EMOJI, list(wrong.items()))
    assert len(caught.value.lines) == len(wrong)
    assert all(line.startswith("config error: ") for line in caught.value.lines)
    for key in wrong:
        assert any(
            line.startswith(
                f"config error: {key.rpartition('.x')[0] or key.rpartition('.y')[0] or key}"
            )
            for line in caught.value.lines
        ), key


def test_all_settings_without_effect_are_reported_at_once():
    with pytest.raises(ConfigErrors) as caught:
        load_config(
            f"{ROOT}/configs/clip_b16.py",
            [
                ("optimizer.weight_decay", "0"),
                ("optimizer.decay_coupling", "schedule"),
                ("watchdog.seconds", "none"),
                ("watchdog.exit", "true"),
                ("data.targets.x.kind", "class"),
            ],
        )
    assert {line.split(": ")[1] for line in caught.value.lines} == {
        "data.targets.x",
        "data.targets.x.classes",
        "data.targets.x.field",
        "optimizer.decay_coupling",
        "watchdog.exit",
    }


def test_mistakes_of_all_stages_are_reported_at_once():
    with pytest.raises(ConfigErrors) as caught:
        load_stages(
            f"{ROOT}/configs/staged.py",
            [("stages.text.steeps", "3"), ("stages.joint.data.batch_size", "0")],
        )
    assert [line.split(": ")[1] for line in caught.value.lines] == ["steeps", "data.batch_size"]


def test_the_command_reports_every_mistake_on_a_line_of_its_own_before_it_starts_a_device(tmp_path):
    """Devices, which take seconds, are started by the first array."""
    code = (
        "import sys, vlp_jax.main as main, vlp_jax.command_line as line\n"
        "try: line.run_entry_point(main.main)\n"
        "finally: from jax._src import xla_bridge; "
        "print(xla_bridge.backends_are_initialized(), 'grain' in sys.modules)"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            f"--config={CLIP_EMOJI}",
            f"--workdir={tmp_path / 'run'}",
            "--config.batch_size=3",
            "--config.optimizer.lr=1",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 2 and result.stdout.split() == ["False", "False"]
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and all(
        line.startswith("config error: ") and "clip_emoji.py" in line for line in lines
    )
    assert not (tmp_path / "run").exists()


def test_a_flag_that_is_a_key_of_the_config_is_recognized():
    flags = Flags(prog="main")
    with pytest.raises(
        ConfigError,
        match=r"--batch-size=3 \(did you mean "
        r"--config.data.batch_size=3\?\)",
    ):
        flags.parse_with_overrides(["--batch-size=3"])


# Durations: what a user sets replaces the recipe's.


def test_a_file_that_starts_from_a_recipe_sets_its_own_duration():
    config = clip()
    config.steps = 10
    shrunk = variant_of(config, "full")
    assert (shrunk.steps, shrunk.examples) == (10, None)
    again = variant_of(shrunk, "full")
    again.epochs = 2.0
    assert variant_of(again, "full").epochs == 2.0 and again.steps is None


@pytest.mark.parametrize(
    ("lines", "overrides", "expected"),
    [
        ("config = clip()\n    config.steps = 10", (), (10, None, None)),
        ("config = siglip()\n    config.epochs = 2.0", (), (None, None, 2.0)),
        ("config = clip()\n    config.update(examples=None, steps=10)", (), (10, None, None)),
        ("config = clip()\n    config.steps = 10", (("epochs", "1"),), (None, None, 1.0)),
        (
            "config = runpy.run_path('{root}/configs/clip_emoji.py')['get_config']()\n    "
            "config.steps = 10",
            (),
            (10, None, None),
        ),
        (
            "config = runpy.run_path('{root}/configs/clip_emoji.py')['get_config']('smoke')\n    "
            "config.examples = 640",
            (),
            (None, 640, None),
        ),
        (
            "config = clip()\n    config.steps = 10\n    config.epochs = 1.0",
            (),
            "found steps and epochs",
        ),
        (
            "config = base()\n    config.steps = 10\n    config.epochs = 1.0",
            (),
            "found steps and epochs",
        ),
        ("config = clip()", (("epochs", "1"), ("steps", "3")), "found steps and epochs"),
        ("config = base()", (), "found none of them"),
    ],
)
def test_a_duration_in_a_file_or_flag_replaces_the_one_of_the_recipe(
    tmp_path, lines, overrides, expected
):
    path = tmp_path / "mine.py"
    path.write_text(
        "import runpy\n\nfrom vlp_jax.config import base, clip, siglip\n\n\ndef "
        "get_config():\n"
        f"    {lines.replace('{root}', str(ROOT))}\n"
        "    config.objectives = config.objectives or "
        "dict(contrastive=dict(kind='clip'))\n    return config\n"
    )
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=f"set exactly one .{expected}"):
            load_config(str(path), overrides)
    else:
        config = load_config(str(path), overrides)
        assert (config.steps, config.examples, config.epochs) == expected


def test_a_stage_has_its_own_duration_beside_that_of_all():
    stages = load_stages(
        f"{ROOT}/configs/staged.py:smoke", [("steps", "3"), ("stages.joint.epochs", "1")]
    )
    assert (
        stages["joint"].epochs == 1.0
        and stages["joint"].steps is None
        and stages["image"].steps == 3
    )


# Entries of named sections.


def test_evaluators_are_removed_replaced_and_added_by_flags():
    def names(*overrides):
        return {
            name: spec.source
            for name, spec in load_config(CLIP_EMOJI, overrides).evaluators.items()
        }

    assert list(names(("evaluators.val_vendor", "none"))) == ["val_concept"]
    assert names(("evaluators", "{}")) == {}
    assert (
        names(("evaluators.mine.source", "folder:/x"))["mine"] == "folder:/x"
        and len(names(("evaluators.m.source", "a:b"))) == 3
    )
    replaced = load_config(
        CLIP_EMOJI,
        [("evaluators.val_vendor", "none"), ("evaluators.val_vendor.source", "folder:/x")],
    )
    assert replaced.evaluators["val_vendor"] == EvaluatorConfig(source="folder:/x")
    whole = load_config(
        CLIP_EMOJI, [("evaluators", "{'v': {'source': 'a:b'}}"), ("evaluators.v.batch_size", "2")]
    )
    assert whole.evaluators == {"v": EvaluatorConfig(source="a:b", batch_size=2)}
    with pytest.raises(
        ConfigError,
        match=r"there is no 'val_vender' to take out \(there are: "
        r"val_concept, val_vendor\)",
    ):
        names(("evaluators.val_vender", "none"))


def test_an_entry_that_a_file_sets_to_none_is_taken_out():
    tree = base().to_dict() | dict(
        steps=1, objectives=dict(pairs=dict(kind="clip"), other=None), evaluators=dict(val=None)
    )
    assert list(to_config(tree).objectives) == ["pairs"] and not to_config(tree).evaluators
