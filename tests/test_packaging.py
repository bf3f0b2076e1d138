"""What is in the package: configs by name, console commands, data files."""

import ast
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from vlp_jax.config import load_config, load_stages
from vlp_jax.config.load import config_file
from vlp_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = {
    "train": "main",
    "evaluate": "evaluate",
    "prepare": "prepare",
    "inspect": "inspect",
    "compile": "compile",
    "convert": "convert",
    "report": "report",
    "explain": "explain.__main__",
}


def setup_arguments(monkeypatch):
    """What setup.py gives to setuptools."""
    given = {}
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {"__name__": "setup"})
    return given


def test_a_config_is_found_by_its_name_from_anywhere(tmp_path, monkeypatch):
    expected = load_config(f"{ROOT}/configs/clip_b16.py:smoke")
    monkeypatch.chdir(tmp_path)
    assert (
        load_config("clip_b16:smoke")
        == load_config("configs/clip_b16.py:smoke")
        == load_config("clip_b16.py:smoke")
        == expected
    )
    assert list(load_stages("staged:smoke")) == ["image", "text", "joint", "finetuned"]
    assert load_config("staged:smoke:joint") == load_config(f"{ROOT}/configs/staged.py:smoke:joint")
    shutil.copy(ROOT / "configs/clip_b32.py", tmp_path / "clip_b16.py")  # a file here goes first
    assert (
        config_file("clip_b16.py") == "clip_b16.py"
        and config_file("clip_b16") == f"{ROOT}/configs/clip_b16.py"
    )
    for spec, words in (
        ("clip_b17", r"no such file: clip_b17 \(did you mean 'clip_b16'\?\)"),
        ("other/clip_b16.py", "no such file"),
        ("zzz.py", r"give a file's path, or a name: albef, bert_mlm, .*clip_b16"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_config(spec)
    with pytest.raises(ConfigError, match=r"lr: unknown key .*\[--config.lr=1, clip_b32\]"):
        load_config("clip_b32", [("lr", "1")])


def test_what_setup_names_is_there(monkeypatch):
    given = setup_arguments(monkeypatch)
    assert (
        given["package_dir"]["vlp_jax.configs"] == "configs"
        and "vlp_jax.configs" in given["packages"]
    )
    scripts = dict(line.split(" = ") for line in given["entry_points"]["console_scripts"])
    assert {*scripts} == {f"vlp-jax-{name}" for name in COMMANDS}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    for package, patterns in given["package_data"].items():
        for pattern in patterns:
            assert list((ROOT / package.replace(".", "/")).glob(pattern)), pattern
    manifest = (ROOT / "MANIFEST.in").read_text()
    assert (
        all(
            f"recursive-include vlp_jax/data/{pattern.partition('/')[0]} *" in manifest
            for pattern in given["package_data"]["vlp_jax.data"]
        )
        and "graft configs" in manifest
    )


def test_every_entry_point_has_a_command():
    package = ROOT / "vlp_jax"
    entry_points = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in (*package.glob("*.py"), *package.glob("*/__main__.py"))
        if "__main__" in path.read_text()
        and "run_entry_point(main)" in path.read_text().split("__main__")[-1]
    }
    assert entry_points == {*COMMANDS.values()}
    commands = {
        node.name: node
        for node in ast.parse((ROOT / "vlp_jax/commands.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert {name: node.body[-1].value.args[0].value for name, node in commands.items()} == COMMANDS


@pytest.mark.slow
def test_the_wheel_holds_configs_commands_and_data(tmp_path):
    """Built from a copy, without the network, and used from an empty folder."""
    source = tmp_path / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".git", "tests", "build", "*.egg-info", "__pycache__"),
    )
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(tmp_path / "dist")],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {*archive.namelist()}
        archive.extractall(tmp_path / "site")
    assert {f"vlp_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")} <= names
    assert "vlp_jax/py.typed" in names
    assert {
        f"vlp_jax/data/imagenet/{name}" for name in ("class_names.txt", "templates.txt", "LICENSE")
    } <= names
    (tmp_path / "empty").mkdir()
    code = (
        "import vlp_jax, vlp_jax.config.load as load; print(vlp_jax.__file__); "
        "print(load.config_file('clip_emoji')); "
        "print(load.load_config('clip_emoji:smoke').steps)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"{tmp_path}/site/vlp_jax/__init__.py",
        f"{tmp_path}/site/vlp_jax/configs/clip_emoji.py",
        "42",
    ]
