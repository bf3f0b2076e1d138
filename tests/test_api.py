"""The public names of the package, and what they compute, compared with the command line and with
NumPy."""

import ast
import importlib
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
import yaml
from contrastive_oracle import pairs, sigmoid_oracle, softmax_oracle
from PIL import Image
from tiny_experiment import leaves

import vlp_jax
from vlp_jax import evaluate, losses, main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config, to_config, to_tree
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.sharding.mesh import build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import build_update
from vlp_jax.training.state import fresh_variables

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = f"{ROOT}/configs/clip_emoji.py:smoke"
PACKAGES = ("vlp_jax", "vlp_jax.losses", "vlp_jax.models", "vlp_jax.data")
packages = pytest.mark.parametrize("package", PACKAGES)


@pytest.mark.parametrize(
    "code",
    [
        "import vlp_jax",
        "import vlp_jax.command_line",
        "import vlp_jax; vlp_jax.list_models(); dir(vlp_jax.models); vlp_jax.config.load_config",
        "import vlp_jax; vlp_jax.data.open_source('synthetic:4?height=8&width=8')[0]",
    ],
)
def test_importing_the_package_imports_no_jax(code):
    """In a process of its own, as this one has imported all of them."""
    heavy = ("jax", "flax", "torch", "tensorflow")
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys; print([name for name in {heavy} if name in sys.modules])",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert result.stdout == "[]\n"


@packages
def test_every_public_name_is_there_with_a_docstring_and_annotations(package):
    module = importlib.import_module(package)
    assert {*module.__all__} <= {*dir(module)} and [*module.__all__] == sorted(module.__all__)
    for name in module.__all__:
        found = getattr(module, name)
        assert found.__doc__, name
        if inspect.isfunction(found):
            parameters = inspect.signature(found).parameters.values()
            assert all(parameter.annotation is not parameter.empty for parameter in parameters), (
                name
            )
            assert inspect.signature(found).return_annotation is not inspect.Signature.empty, name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize(
    "function",
    [
        vlp_jax.create_model,
        vlp_jax.load,
        vlp_jax.train,
        vlp_jax.run_evaluation,
        vlp_jax.models.ViT.from_preset,
    ],
)
def test_what_is_called_first_documents_arguments_results_and_errors(function):
    text = inspect.cleandoc(function.__doc__)
    assert re.search(r"^Args:\n(.+\n)*?Returns: (.+\n)*Raises:", text, flags=re.M)
    assert all(
        re.search(rf"^  (\*\*)?{name}:", text, flags=re.M)
        for name in inspect.signature(function).parameters
    )


@pytest.mark.parametrize(
    "package",
    [
        "vlp_jax",
        "vlp_jax.models",
        "vlp_jax.data",
        *(
            f"vlp_jax.{name}"
            for name in (
                "data.sources",
                "data.text",
                "models.layers",
                "models.vision",
                "models.text",
                "models.decoder",
            )
        ),
    ],
)
def test_type_checkers_find_the_names_that_are_imported_late(package):
    path = pathlib.Path(importlib.import_module(package).__file__)
    block = next(
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    found = {
        alias.asname: f"{node.module}:{alias.name}" for node in block.body for alias in node.names
    }
    module = importlib.import_module(package)
    assert {*found} == {*module.__all__} == {*module._PLACES}
    for name, place in module._PLACES.items():
        assert getattr(module, name).__doc__
        assert found[name] in (place, f"{place.rpartition('.')[0]}:{place.rpartition('.')[2]}")


@packages
def test_the_page_of_the_api_lists_every_public_name(package):
    page = (ROOT / "docs/api.md").read_text()
    section = re.search(
        rf"^## {re.escape(package)}\n(.*?)(?=^## "
        r"|\Z)",
        page,
        flags=re.M | re.S,
    ).group(1)
    first_cells = re.findall(r"^\| (`[^|]+`) \|", section, flags=re.M)
    named = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(importlib.import_module(package).__all__)


def test_the_version_is_written_once_and_copied_right(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = {}
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {"__name__": "setup"})
    assert (
        given["version"]
        == vlp_jax.__version__
        == str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"])
    )
    assert f"version = {{{vlp_jax.__version__}}}" in (ROOT / "README.md").read_text()
    assert "py.typed" in given["package_data"]["vlp_jax"]


def test_models_are_listed_by_pattern():
    assert vlp_jax.list_models() == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert (
        vlp_jax.list_models("siglip_*16") == ["siglip_b16", "siglip_l16"]
        and vlp_jax.list_models("nothing*") == []
    )


@pytest.fixture(scope="module")
def tiny_config(tiny):
    """`tiny_config("steps=3", ...)`: the config that `tiny` makes on the command line, as a nested
    dict."""
    return lambda *changes: to_tree(load_config(SMOKE, split_overrides(tiny(*changes))[1]))


@pytest.fixture(scope="module")
def by_command(tiny, tmp_path_factory):
    """The workdir of three updates from the command line."""
    workdir = tmp_path_factory.mktemp("by_command") / "run"
    assert main.main([f"--config={SMOKE}", f"--workdir={workdir}", *tiny("steps=3")]) == 0
    return workdir


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.full
def test_a_config_in_python_trains_and_resumes_as_on_the_command_line(
    tiny_config, by_command, tmp_path
):
    workdir = tmp_path / "run"
    first = vlp_jax.train(tiny_config("steps=2"), workdir)  # a nested dict, and a path
    assert (first.step, first.exit_status) == (2, 0)
    longer = ml_collections.ConfigDict(tiny_config("steps=3"))
    with pytest.raises(ConfigError, match="was started with another config: steps: 2 -> 3"):
        vlp_jax.train(longer, workdir)
    second = vlp_jax.train(longer, workdir, accept_changes=True)
    assert [row["train/loss"] for row in rows(workdir)] == [
        row["train/loss"] for row in rows(by_command)
    ]
    assert second.metrics["train/loss"] == rows(by_command)[-1]["train/loss"]
    # a Experiment; the run is finished
    again = vlp_jax.train(to_config(tiny_config("steps=3")), str(workdir))
    assert (again.step, again.parameter_fingerprint) == (3, second.parameter_fingerprint)


@pytest.mark.full
def test_a_script_without_a_main_guard_is_not_run_again_by_the_processes_that_decode(
    tiny_config, tmp_path
):
    config = tiny_config(
        "steps=2", "data.workers=2", "data.train.source=synthetic:32?height=20&width=24"
    )
    script = tmp_path / "script.py"
    train = f"vlp_jax.train({config!r}, {str(tmp_path / 'run')!r})"
    script.write_text(f"import vlp_jax\nprint('started')\nprint({train}.step, __file__)\n")
    result = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.stdout.count("started") == 1 and result.stdout.endswith(f"2 {script}\n"), (
        result.stdout + result.stderr
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"steps": 3, "modle": {}}, "modle: unknown key"),
        ({"stages": {"a": {}}}, "stages: are several configs"),
        (3, "config: is int, expected a name"),
        ("clip_b17", "did you mean 'clip_b16'"),
    ],
)
def test_a_config_that_cannot_be_is_an_exception(config, words, tmp_path):
    for call in (
        lambda: vlp_jax.train(config, tmp_path / "run"),
        lambda: vlp_jax.create_model(config),
    ):
        with pytest.raises(ConfigError, match=words):
            call()
    assert not (tmp_path / "run").exists()


def embedded(model, params, preprocess):
    """Embeddings of an image and two texts."""
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    return [
        np.asarray(array)
        for array in model.embed(
            params, **preprocess(images=[image], texts=["cat face", "red apple"])
        )
    ]


@pytest.mark.full
def test_a_fresh_model_is_that_of_a_run_before_its_first_update(tiny_config, tmp_path):
    """Of a run on eight devices, with a learning rate so small that no float32 changes but those
    that are 0."""
    config = tiny_config("steps=1", "optimizer.learning_rate=1e-30")
    vlp_jax.train(config, tmp_path / "run")
    trained, fresh = vlp_jax.load(f"{tmp_path}/run", ema=False), vlp_jax.create_model(config)
    other = vlp_jax.create_model(config, seed=1)
    there, here = leaves(trained[1]), leaves(fresh[1])
    assert there.keys() == here.keys()
    for path, leaf in here.items():
        np.testing.assert_allclose(leaf, there[path], rtol=0, atol=1e-29, err_msg=path)
    assert (
        type(fresh[0]) is type(trained[0])
        and fresh[0].config == trained[0].config
        and fresh[2] == trained[2]
    )
    for one, two, third in zip(embedded(*fresh), embedded(*trained), embedded(*other), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1.0, rtol=1e-5)
        assert np.abs(one - third).max() > 0.01


@pytest.mark.full
def test_a_pretrained_model_is_what_load_gives_if_it_is_of_that_architecture(
    tiny_config, by_command, tmp_path
):
    # which change no output
    config = tiny_config("steps=7", "model.image.rematerialisation=full", "model.text.dropout=0.1")
    for one, two in zip(
        embedded(*vlp_jax.create_model(config, pretrained=by_command)),
        embedded(*vlp_jax.load(str(by_command))),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(
        ConfigError,
        match="holds another architecture than the config: "
        "model.image.depth: 1 -> 2; give the config",
    ):
        vlp_jax.create_model(tiny_config("model.image.depth=2"), pretrained=by_command)
    with pytest.raises(ConfigError, match="model.embedding_dim: 64 -> None; .* and [0-9]+ more"):
        vlp_jax.create_model("clip_b16", pretrained=by_command)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        vlp_jax.create_model(config, pretrained=tmp_path)
    with pytest.raises(ConfigError, match="seed: has no effect with pretrained"):
        vlp_jax.create_model(config, pretrained=by_command, seed=1)
    with pytest.raises(ConfigError, match="seed: must be between 0 and"):
        vlp_jax.create_model(config, seed=-1)


@pytest.mark.parametrize("name", ["clip_b16:smoke", "siglip_b16:smoke"])
def test_a_recipe_by_its_name_needs_no_network(name, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a connection is opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    # compiles nothing
    monkeypatch.setattr("vlp_jax.loading._initialized", lambda *arguments: {"params": {}})
    model, params, preprocess = vlp_jax.create_model(name)
    assert model.config == load_config(name) and params == {"params": {}}
    assert preprocess(texts="cat")["text"].shape == (1, model.config.model.text.length)


@pytest.mark.full
@pytest.mark.parametrize(
    "name", [path.stem for path in sorted((ROOT / "configs").glob("*.py")) if path.stem != "staged"]
)
def test_every_recipe_by_its_name_has_the_parameters_of_its_run(name, monkeypatch):
    def shapes_of(module, batch, seed, words):
        return jax.eval_shape(lambda: fresh_variables(module, batch, seed, words))

    monkeypatch.setattr("vlp_jax.loading._initialized", shapes_of)
    _, variables, _ = vlp_jax.create_model(f"{name}:smoke")
    config = load_config(f"{name}:smoke")
    mesh = build_mesh(config.mesh)
    update = build_update(config, build_layout(config.mesh, mesh), config.steps)
    assert variables == {"params": update.shapes.params, **update.shapes.collections}


def test_an_evaluation_in_python_gives_what_the_command_prints(by_command, capsys):
    source = "synthetic:24?height=20&width=24"
    assert (
        evaluate.main(
            [
                f"--workdir={by_command}",
                f"--source={source}",
                "--merge-equal-captions",
                "--batch-size=16",
            ]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    found = vlp_jax.run_evaluation(
        by_command, source=source, tasks="retrieval", merge_equal_captions=True, batch_size=16
    )
    assert found == printed and "text_to_image_recall@1" in found and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(tasks="recall"), "tasks: unknown evaluator 'recall'"),
        (dict(tasks=()), "tasks: name at least one of"),
        (dict(num_beam=3), r"num_beam: unknown key \(did you mean 'num_beams'\?\)"),
        (dict(batch_size=0), "batch_size: must be at least 1"),
        (dict(every_steps=3), "every_steps: has no effect"),
        (
            dict(templates="a {}"),
            "templates: is for the evaluators zero_shot, segmentation and grounding, "
            "and tasks are retrieval",
        ),
        (dict(tasks="captions"), "tasks: "),
    ],
)
def test_an_evaluation_that_cannot_be_is_an_exception(options, words, by_command):
    with pytest.raises(ConfigError, match=f"^config error: {words}"):
        vlp_jax.run_evaluation(by_command, source="synthetic:4?height=8&width=8", **options)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def cross_entropy(logits, labels):
    return -np.take_along_axis(log_softmax(logits), labels[..., None], axis=-1)[..., 0]


def nt_xent(first, second, temperature):
    views, size = np.concatenate([first, second]), len(first)
    logits = np.where(np.eye(2 * size, dtype=bool), -np.inf, views @ views.T / temperature)
    own = np.roll(np.arange(2 * size), size)
    return cross_entropy(logits, own).mean(), (logits.argmax(axis=1) == own)[:size].mean()


def hinges(image, text, margin, reduce):
    cosines = image @ text.T
    violated = [
        np.maximum(0, margin + scores - np.diag(cosines)[:, None])
        * ~np.eye(len(cosines), dtype=bool)
        for scores in (cosines, cosines.T)
    ]
    return sum(reduce(rows, axis=1).mean() for rows in violated)


def soft_targets(student, teacher, candidates, scale, alpha, positives):
    own = positives / positives.sum(axis=1, keepdims=True)
    targets = alpha * np.exp(log_softmax(scale * teacher @ candidates.T)) + (1 - alpha) * own
    return -(targets * log_softmax(scale * student @ candidates.T)).sum(axis=1).mean()


def smoothed(logits, labels, smoothing):
    return (1 - smoothing) * cross_entropy(logits, labels) - smoothing * log_softmax(logits).mean(
        axis=-1
    )


IMAGE, TEXT, POSITIVES = pairs(batch=8, dim=4)
IDENTITY, RNG = np.eye(8, dtype=bool), np.random.default_rng(1)
LOGITS, WORDS, REAL = (
    RNG.normal(size=(2, 5, 7)),
    RNG.integers(0, 7, (2, 5)),
    np.arange(5) < np.array([[5], [3]]),
)
TEACHER, CHOSEN = RNG.normal(size=(2, 5, 7)), RNG.integers(0, 2, (2, 5)).astype(bool)
CLASSES, LABELS, SCORES = RNG.normal(size=(5, 3)), RNG.integers(0, 3, 5), RNG.uniform(size=(5, 3))
MATCH, ASKED = RNG.normal(size=(5, 2)), np.array([True, True, False, True, True])
MATCHES = np.array([1, 0, 0, 1, 0])
PLACES, CODES = np.array([[3, 0], [1, 2]]), RNG.integers(0, 7, (2, 4))
HIDDEN = losses.HiddenPatches(
    places=PLACES, mask=(PLACES[:, :, None] == np.arange(4)).any(axis=1), codes=CODES
)
SOFTMAX = softmax_oracle(IMAGE, TEXT, 5.0, IDENTITY, 0.1)[0]
SIGMOID = sigmoid_oracle(IMAGE, TEXT, 5.0, -2.0, IDENTITY)[0]
IN_FLOAT64 = {  # {function: (its arguments, its value)}
    "softmax_contrastive": (
        (IMAGE, TEXT, 5.0, POSITIVES, 0.1),
        softmax_oracle(IMAGE, TEXT, 5.0, POSITIVES, 0.1)[0],
    ),
    "chunked_softmax_contrastive": ((IMAGE, TEXT, 5.0, (), 0.1, 2), SOFTMAX),
    "ring_softmax_contrastive": ((IMAGE, TEXT, 5.0, (), 0.1, 2), SOFTMAX),
    "sigmoid_contrastive": (
        (IMAGE, TEXT, 5.0, -2.0, POSITIVES),
        sigmoid_oracle(IMAGE, TEXT, 5.0, -2.0, POSITIVES)[0],
    ),
    "chunked_sigmoid_contrastive": ((IMAGE, TEXT, 5.0, -2.0, (), 2), SIGMOID),
    "ring_sigmoid_contrastive": ((IMAGE, TEXT, 5.0, -2.0, (), 2), SIGMOID),
    "soft_contrastive": (
        (IMAGE, TEXT, TEXT, 5.0, 0.4, POSITIVES, np.ones(8, bool)),
        soft_targets(IMAGE, TEXT, TEXT, 5.0, 0.4, POSITIVES),
    ),
    "triplet_contrastive": ((IMAGE, TEXT, 0.2), hinges(IMAGE, TEXT, 0.2, np.max)),
    "hinge_contrastive": ((IMAGE, TEXT, 0.2), hinges(IMAGE, TEXT, 0.2, np.sum)),
    "nt_xent": ((IMAGE, TEXT, 0.5), nt_xent(IMAGE, TEXT, 0.5)[0]),
    "matching_loss": ((MATCH, MATCHES, ASKED), cross_entropy(MATCH, MATCHES)[ASKED].mean()),
    "token_losses": ((LOGITS, WORDS), cross_entropy(LOGITS[:, :-1], WORDS[:, 1:])),
    "next_token_loss": (
        (LOGITS, WORDS, REAL, 0.1),
        smoothed(LOGITS[:, :-1], WORDS[:, 1:], 0.1)[REAL[:, 1:]].mean(),
    ),
    "masked_loss": ((LOGITS, WORDS, CHOSEN), cross_entropy(LOGITS, WORDS)[CHOSEN].mean()),
    "code_loss": (
        (LOGITS[:, :2], HIDDEN),
        cross_entropy(LOGITS[:, :2], np.take_along_axis(CODES, PLACES, axis=1)).mean(),
    ),
    "kl_divergence": (
        (TEACHER, LOGITS),
        (np.exp(log_softmax(TEACHER)) * (log_softmax(TEACHER) - log_softmax(LOGITS))).sum(-1),
    ),
    "softmax_losses": ((CLASSES, LABELS, 0.1), smoothed(CLASSES, LABELS, 0.1)),
    "binary_losses": ((CLASSES, SCORES), (np.logaddexp(0, CLASSES) - SCORES * CLASSES).sum(axis=1)),
    "hinge_losses": (
        (CLASSES, LABELS, 0.5),
        [
            max(0.0, 0.5 + np.delete(row, label).max() - row[label])
            for row, label in zip(CLASSES, LABELS, strict=True)
        ],
    ),
}


@pytest.mark.parametrize(
    "name", [name for name in losses.__all__ if inspect.isfunction(getattr(losses, name))]
)
def test_losses_are_those_of_numpy_in_float64(name):
    arguments, expected = IN_FLOAT64[name]
    arguments = jax.tree.map(
        lambda x: jax.numpy.asarray(x, np.float32) if np.asarray(x).dtype == np.float64 else x,
        arguments,
    )
    found = getattr(losses, name)(*arguments)
    found = (
        found[0]
        if isinstance(found, tuple)
        else found.value
        if isinstance(found, losses.Loss)
        else found
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_vit_by_its_preset_has_the_published_size():
    """86 million parameters (Dosovitskiy et al. 2021, table 1), and timm's count of
    vit_base_patch16_224 without its head."""
    vit = vlp_jax.models.ViT.from_preset("B/16")
    shapes = jax.eval_shape(
        lambda: vit.init(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 85_798_656
    assert vit.options.precision.compute == np.float32
    other = vlp_jax.models.ViT.from_preset(
        "B/16", compute="bfloat16", image_size=384, pooling="map"
    )
    assert (other.config.image_size, other.config.pooling, other.options.precision.compute) == (
        384,
        "map",
        jax.numpy.bfloat16,
    )


@pytest.mark.parametrize(
    ("preset", "overrides", "words"),
    [
        ("X/16", {}, "preset: unknown size 'X'"),
        (
            "B/16",
            dict(depht=3),
            r"depht: unknown key \(did "
            r"you "
            r"mean "
            r"'depth'\?\)",
        ),
        ("B/16", dict(image_size=30), "image_size 30 does not divide into patches of 16"),
    ],
)
def test_a_vit_that_cannot_be_is_an_error_in_one_line(preset, overrides, words):
    with pytest.raises(ConfigError, match=words):
        vlp_jax.models.ViT.from_preset(preset, **overrides)


def code_of(page, title):
    """The indented blocks of a section, one after another."""
    section = re.search(
        rf"^## {title}\n(.*?)(?=^## )", (ROOT / page).read_text(), flags=re.M | re.S
    ).group(1)
    return "\n".join(
        line[4:] for line in section.splitlines() if line.startswith("    ") or not line
    )


@pytest.mark.full
def test_the_section_from_python_runs_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(
        compile(code_of("docs/getting_started.md", "From Python"), "getting_started.md", "exec"),
        names,
    )
    assert names["outcome"].step == 20 and 0 <= names["metrics"]["text_to_image_recall@10"] <= 1
    assert np.isfinite(names["value"]) and names["pooled"].shape == (2, 192)


def test_the_section_of_the_readme_runs_with_a_tiny_recipe(
    tiny_config, by_command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 48)).save("cat.png")
    (tmp_path / "tiny.py").write_text(f"def get_config(): return {tiny_config('steps=3')!r}\n")
    code = code_of("README.md", "Embed an image")
    assert code.count('"clip_emoji"') == 2 and code.count('"runs/clip_emoji"') == 2
    names = {}
    exec(
        code.replace('"clip_emoji"', '"tiny.py"').replace(
            '"runs/clip_emoji"', repr(str(by_command))
        ),
        names,
    )
    assert "'clip_b16'" in capsys.readouterr().out and names["images"].shape == (
        1,
        names["model"].config.model.embedding_dim,
    )
