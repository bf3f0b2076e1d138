"""Runs that begin with what others have trained, one by one and as the stages of one command."""

import pathlib
import shutil

import numpy as np
import pytest
from tiny_experiment import leaves

import vlp_jax
from vlp_jax import main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config, load_stages, to_tree
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.training import initialize_from
from vlp_jax.training.build import build_run
from vlp_jax.training.checkpoints import read_errors
from vlp_jax.training.initialize_from import find_origins, initialize_state

ROOT = pathlib.Path(__file__).parents[2]
SYNTHETIC = "data.train.source=synthetic:64"
RESNET = (
    "model.image.norm=batch",
    "model.image.groups=32",
    "model.image.width=4",
    "evaluators={}",
    "data.batch_size=8",
    "log_every=1",
    "steps=3",
    "ema=None",
)
STAGED = """
import runpy
def get_config(variant="full"):
    def stage(steps, **pretrained):
        config = runpy.run_path(CLIP)["get_config"]("smoke")
        config.update(steps=steps, epochs=None, examples=None, pretrained=pretrained)
        return config
    return dict(stages=dict(first=stage(2), second=stage(3, towers=dict(stage="first"))))
"""


@pytest.fixture(scope="module")
def train(tiny):
    """`train(FOLDER, "steps=3", ...)` trains there, which must end well; returns the folder."""

    def run(folder, *changes):
        flags = tiny(SYNTHETIC, "steps=2", *changes)
        assert (
            main.main(
                [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={folder}", *flags]
            )
            == 0
        )
        return folder

    return run


def train_resnet(folder, *changes):
    changes = {change.split("=", 1)[0]: change for change in (*RESNET, *changes)}.values()
    arguments = [f"--config={ROOT}/configs/clip_emoji_resnet.py:smoke", f"--workdir={folder}"]
    assert main.main([*arguments, *(f"--config.{change}" for change in changes)]) == 0
    return folder


def parameters(folder, **options):
    return leaves(vlp_jax.load(folder, **options)[1]["params"])


@pytest.fixture(scope="module")
def source(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("source") / "run", "seed=1", "ema=0.5")


UNCHANGED = ("steps=1", "optimizer.learning_rate=0", "ema=None")


@pytest.fixture(scope="module")
def fresh(train, tmp_path_factory):
    return parameters(train(tmp_path_factory.mktemp("fresh") / "run", *UNCHANGED))


@pytest.mark.full
@pytest.mark.parametrize(
    ("origin", "taken", "ema"),
    [
        pytest.param("", "", True, marks=pytest.mark.slow),
        pytest.param(",'ema':False", "", False, marks=pytest.mark.slow),
        pytest.param(",'parameters':('^model/',)", "model/", True, marks=pytest.mark.slow),
        (",'parameters':('^model/image/',)", "model/image/", True),
    ],
)
def test_a_run_begins_with_the_parameters_that_its_patterns_name_and_no_others(
    origin, taken, ema, train, source, fresh, tmp_path
):
    begun = parameters(
        train(tmp_path / "run", f"pretrained={{'a':{{'workdir':'{source}'{origin}}}}}", *UNCHANGED)
    )
    theirs = parameters(source, ema=ema)
    assert begun.keys() == theirs.keys()
    for path, value in begun.items():
        np.testing.assert_array_equal(
            value, theirs[path] if path.startswith(taken) else fresh[path], err_msg=path
        )
    assert any(np.any(value != fresh[path]) for path, value in begun.items())


@pytest.mark.full
def test_objectives_that_continue_keep_what_they_have_learned_and_others_begin_from_scratch(
    train, source, fresh, tmp_path, capsys
):
    """A learned scale, by default, where name, kind and shapes are the same; what is left out is
    listed."""
    theirs, scale = parameters(source), "objectives_contrastive/log_scale"
    assert theirs[scale] != fresh[scale]
    taken = parameters(
        train(tmp_path / "run", f"pretrained={{'a':{{'workdir':'{source}'}}}}", *UNCHANGED)
    )
    assert taken[scale] == theirs[scale] and "not pretrained" not in capsys.readouterr().out
    other = train(
        tmp_path / "other",
        f"pretrained={{'a':{{'workdir':'{source}'}}}}",
        *UNCHANGED,
        "objectives={'contrastive':{'kind':'siglip'}}",
    )
    assert parameters(other)["objectives_contrastive/log_scale"] != theirs[scale]
    said = capsys.readouterr().out
    assert "not taken from there: objectives_contrastive/log_scale" in said
    assert "not pretrained, as initialised by the seed: objectives_contrastive (2)" in said


@pytest.mark.full
def test_a_run_begins_with_parameters_that_have_another_name_in_the_other(
    train, source, fresh, tmp_path, capsys
):
    image, text = "model/image/transformer/layer_{}", "model/text/transformer/layer_{}"
    entry = (
        f"'workdir':'{source}','parameters':('^model/image/',),'renamed':(('{image}','{text}'),)"
    )
    run = train(tmp_path / "run", f"pretrained={{'a':{{{entry}}}}}", *UNCHANGED)
    begun, theirs = parameters(run), parameters(source, ema=True)
    for path, value in begun.items():
        name = path.replace("image/transformer", "text/transformer")
        expected = theirs[name] if path.startswith("model/image/") else fresh[path]
        np.testing.assert_array_equal(value, expected, err_msg=path)
    assert "not taken from there: model/image (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["^objectives_pairs/", "^objectives_label/"]),
        ({"objectives.pairs.kind": "siglip"}, ["^objectives_label/"]),
        ({"data.targets.label.field": "subgroup"}, ["^objectives_pairs/"]),
        ({"data.train.source": "folder:/other"}, ["^objectives_pairs/"]),
        ({"shapes": {"objectives_label/head/kernel": [4, 10]}}, ["^objectives_pairs/"]),
    ],
)
def test_an_objective_continues_by_name_kind_shapes_and_target(changes, expected):
    def config(**changed):
        flags = {
            "objectives": "{'pairs':{'kind':'clip'},"
            "'label':{'kind':'classification','target':'label','features':'image'}}",
            "data.targets": "{'label':{'kind':'class','field':'group','classes':9}}",
            **changed,
        }
        return load_config(f"{ROOT}/configs/clip_emoji.py:smoke", list(flags.items()))

    shapes = {
        "model/x": [3],
        "objectives_pairs/log_scale": [],
        "objectives_label/head/kernel": [4, 9],
        "objectives_label/head/bias": [9],
    }
    changes = dict(changes)
    there = {**shapes, **changes.pop("shapes", {})}
    assert (
        initialize_from.objectives_that_continue(
            shapes, there, to_tree(config(**changes)), config()
        )
        == expected
    )


@pytest.mark.slow
def test_of_several_entries_the_last_wins_and_the_average_begins_there_too(
    train, source, tmp_path, capsys
):
    other = train(tmp_path / "other", "seed=2", "ema=None")
    first = f"'a':{{'workdir':'{source}'}}"
    second = f"'b':{{'workdir':'{other}','parameters':('^model/text/',)}}"
    entries = f"{{{first},{second}}}"
    run = train(
        tmp_path / "run", f"pretrained={entries}", "steps=1", "optimizer.learning_rate=0", "ema=0.5"
    )
    assert f"parameters from {other}, step 2" in capsys.readouterr().out
    for path, value in parameters(run, ema=True).items():
        if path.startswith("model/"):
            expected = (
                parameters(other)[path]
                if path.startswith("model/text/")
                else parameters(source, ema=True)[path]
            )
            np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=path)


@pytest.mark.slow
def test_running_statistics_come_with_their_tower_and_a_run_that_goes_on_needs_its_origin_no_more(
    tmp_path,
):
    origin = train_resnet(tmp_path / "origin")
    changes = (
        f"pretrained={{'a':{{'workdir':'{origin}','parameters':('^model/image/',)}}}}",
        "optimizer.frozen=('^model/image/',)",
        "optimizer.schedule.kind=constant",
        "optimizer.schedule.warmup=0",
    )
    run = train_resnet(tmp_path / "run", *changes, "steps=1")
    there, here = (leaves(vlp_jax.load(folder)[1]) for folder in (origin, run))
    # one update of momentum 0.9 from there, and not from 0
    moved = 0.9 * there["batch_stats/model/image/norm_stem/mean"]
    later = (here["batch_stats/model/image/norm_stem/mean"] - moved) / 0.1
    assert (
        np.abs(moved).max() > 0
        and np.abs(later - there["batch_stats/model/image/norm_stem/mean"] / (1 - 0.9**3)).max()
        < 0.5
    )
    np.testing.assert_array_equal(
        here["params/model/image/convolution_stem/kernel"],
        there["params/model/image/convolution_stem/kernel"],
    )
    shutil.rmtree(origin)
    with pytest.raises(ConfigError, match="pretrained.a: .*holds no checkpoint"):
        train_resnet(tmp_path / "anew", *changes, "steps=1")
    assert not (tmp_path / "anew").exists()
    train_resnet(run, *changes, "steps=1")


@pytest.mark.full
def test_what_cannot_be_taken_is_named_before_anything_is_written(train, tiny, source, tmp_path):
    def refused(entry, *changes):
        with pytest.raises(ConfigError) as error:
            train(tmp_path / "run", f"pretrained={{'a':{{{entry}}}}}", *changes)
        assert not (tmp_path / "run").exists()
        return str(error.value)

    theirs = f"'workdir':'{source}'"
    assert "has no checkpoint of step 7; there are 2" in refused(f"{theirs},'step':7")
    assert "set either workdir" in refused("") and "set either workdir" in refused(
        f"{theirs},'stage':'b'"
    )
    assert ("'^model/(' is not a regular expression") in refused(
        f"{theirs},'parameters':('^model/(',)"
    )
    assert "'^decoder/' matches no parameter" in refused(f"{theirs},'parameters':('^decoder/',)")
    without = train(tmp_path / "without", "ema=None")
    assert "pretrained.a.ema: " in refused(f"'workdir':'{without}','ema':True")
    message = refused(theirs, "model.image.mlp_dim=24")
    assert "pretrained.a: model/image/" in message and "24] in this config" in message
    tokenizer = tmp_path / "vocab.txt"
    tokenizer.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(chr, range(97, 123))]))
    words = (
        f"data.text.tokenizer={tokenizer}",
        "data.text.start_token=[CLS]",
        "data.text.end_token=[SEP]",
        "data.text.padding_token=[PAD]",
    )
    assert "another tokenizer" in refused(theirs, *words)
    overrides = split_overrides(tiny(SYNTHETIC, "steps=2", *words))[1]
    entry = f"{{'a':{{{theirs},'parameters':('^model/image/',)}}}}"
    config = load_config(f"{ROOT}/configs/clip_emoji.py:smoke", [*overrides, ("pretrained", entry)])
    (origin,) = find_origins(build_run(config), "run")
    assert origin.parameters and all(path.startswith("model/image/") for path in origin.parameters)


@pytest.mark.full
def test_all_hosts_begin_with_the_step_that_host_0_finds_newest(
    tiny, source, tmp_path, monkeypatch
):
    shutil.copytree(source, tmp_path / "origin")
    # which this host sees, and host 0 not yet
    shutil.copytree(source / "checkpoints/2", tmp_path / "origin/checkpoints/3")
    monkeypatch.setattr(initialize_from, "broadcast_from_primary", lambda what, decide: 2)
    overrides = split_overrides(
        tiny(SYNTHETIC, "steps=2", f"pretrained={{'a':{{'workdir':'{tmp_path}/origin'}}}}")
    )[1]
    (origin,) = find_origins(
        build_run(load_config(f"{ROOT}/configs/clip_emoji.py:smoke", overrides)),
        str(tmp_path / "run"),
    )
    assert origin.source.step == 2 and origin.parameters


@pytest.mark.full
def test_what_another_host_cannot_read_stops_this_one_too(tiny, source, tmp_path, monkeypatch):
    overrides = split_overrides(
        tiny(SYNTHETIC, "steps=2", f"pretrained={{'a':{{'workdir':'{source}'}}}}")
    )[1]
    run = build_run(load_config(f"{ROOT}/configs/clip_emoji.py:smoke", overrides))
    origins, state = find_origins(run, str(tmp_path / "run")), run.initial_state()

    def told(what, fault):
        assert fault is None
        return [
            None,
            ["DamagedCheckpoint", "ema: cut short"] if what.startswith("ema of ") else None,
        ]

    monkeypatch.setattr(read_errors, "exchange", told)
    with pytest.raises(CheckpointError, match="checkpoints/2: is damaged: ema: cut short"):
        initialize_state(state, origins, run.layout)
    assert vlp_jax.load(source)[1]["params"]  # of one host alone: it asks nobody


@pytest.mark.full
def test_stages_run_one_after_the_other_and_a_second_command_goes_on_where_the_first_stopped(
    tiny, tmp_path, capsys
):
    config = tmp_path / "staged.py"
    config.write_text(STAGED.replace("CLIP", repr(f"{ROOT}/configs/clip_emoji.py")))
    small = tiny(SYNTHETIC)
    with pytest.raises(
        ConfigError,
        match=": /.*run/first: holds no checkpoint .*train the stage 'first' before this one",
    ):
        main.main([f"--config={config}:full:second", f"--workdir={tmp_path}/run", *small])
    alone = [f"--config={config}:full:first", f"--workdir={tmp_path}/run", *small]
    assert main.main(alone) == 0
    command = [
        f"--config={config}",
        f"--workdir={tmp_path}/run",
        *small,
        "--config.stages.second.optimizer.learning_rate=0",
    ]
    assert main.main(command) == 0
    said = capsys.readouterr().out
    assert "resumed from step 2" in said and f"stage second, in {tmp_path}/run/second" in said
    first, second = (
        parameters(tmp_path / "run/first"),
        parameters(tmp_path / "run/second", ema=False),
    )
    assert all(
        np.array_equal(value, first[path])
        for path, value in second.items()
        if path.startswith("model/")
    )
    assert main.main(command) == 0
    assert "resumed from step 3" in capsys.readouterr().out


def test_what_is_wrong_with_a_late_stage_is_said_before_the_first_trains(tiny, tmp_path):
    config = tmp_path / "staged.py"
    config.write_text(STAGED.replace("CLIP", repr(f"{ROOT}/configs/clip_emoji.py")))
    with pytest.raises(ConfigError, match="optimizer.frozen: '.nothing/' matches no parameter"):
        main.main(
            [
                f"--config={config}",
                f"--workdir={tmp_path}/run",
                *tiny(SYNTHETIC),
                "--config.stages.second.optimizer.frozen=('^nothing/',)",
            ]
        )
    assert not (tmp_path / "run").exists()


def test_stages_are_named_where_one_is_needed_and_where_there_is_none(tmp_path):
    config = tmp_path / "staged.py"
    config.write_text(STAGED.replace("CLIP", repr(f"{ROOT}/configs/clip_emoji.py")))
    stages = load_stages(str(config), [("seed", "5"), ("stages.second.steps", "9")])
    assert [(name, stage.seed, stage.steps) for name, stage in stages.items()] == [
        ("first", 5, 2),
        ("second", 5, 9),
    ]
    assert load_config(f"{config}:full:second") == load_stages(str(config))["second"]
    with pytest.raises(
        ConfigError,
        match="trains in stages, first, second; only main takes them all, name one.*:full:first",
    ):
        load_config(str(config))
    sorted_by_name = tmp_path / "sorted.py"
    sorted_by_name.write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n    "
        "return ConfigDict(dict(stages={}))\n"
    )
    for name, tree, words in (
        ("beside", "stages=dict(a=CONFIG), steps=5", "'steps' is given next to stages"),
        ("none", "stages={}", "expected a dict of at least one config"),
        ("number", "stages=dict(a=3)", "stage a is int"),
    ):
        (tmp_path / f"{name}.py").write_text(
            f"CONFIG = dict(steps=5)\ndef get_config():\n    return dict({tree})\n"
        )
        with pytest.raises(ConfigError, match=words):
            load_stages(f"{tmp_path}/{name}.py")
    for spec, overrides, words in (
        (str(sorted_by_name), (), "a ConfigDict forgets the order"),
        (f"{config}:full:third", (), "has no stage 'third'; stages: first, second"),
        (
            str(config),
            [("stages.third.steps", "3")],
            "--config.stages.third.steps: there is no stage",
        ),
        (f"{ROOT}/configs/clip_emoji.py:full:first", (), "trains in no stages"),
        (f"{config}:full:second", [("stages.first.steps", "3")], "there is no stage 'first' here"),
        (str(config), [("stages.second", "none")], "is a whole stage; set its keys"),
        (
            str(config),
            [("stages.second.pretrained.towers.stage", "second")],
            "stages.second.pretrained.towers.stage: there is no stage "
            "'second' here; possible: first",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            load_stages(spec, overrides)
