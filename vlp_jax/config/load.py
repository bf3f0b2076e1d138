"""Loads `configs/NAME.py:VARIANT` with overrides as a checked `Config`."""

import difflib
import fnmatch
import inspect
import os
import pathlib
import runpy
import traceback
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections

from vlp_jax.config.durations import DURATIONS, settle
from vlp_jax.config.overrides import apply_overrides
from vlp_jax.config.parse import to_config
from vlp_jax.config.problems import Problems
from vlp_jax.config.section import Section
from vlp_jax.config.tree import to_tree
from vlp_jax.errors import ConfigError

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

PACKAGE = pathlib.Path(__file__).parents[1]
# of this project's configs: in a wheel, and in the repository
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
AnyConfig = str | Section | Mapping[str, Any] | ml_collections.ConfigDict
# the only key of a config of training in stages: the stages' configs by name, in order
STAGES = "stages"


def list_models(pattern: str = "*") -> list[str]:
    """The names of the configs that come with the package, sorted.

    Each can be given to `vlp_jax.create_model`, `vlp_jax.train` and `--config`, also as
    NAME:VARIANT.

    Args:
      pattern: which ones, as in a shell: "clip_*".
    Returns: the names, such as "clip_b16".
    """
    names = {
        file.stem
        for place in FOLDERS
        if place.is_dir()
        for file in place.glob("*.py")
        if file.stem[0] != "_"
    }
    return sorted(fnmatch.filter(names, pattern))


def read_config(config: AnyConfig) -> "Experiment":
    """The checked config of one experiment, however it is given.

    Args:
      config: a name or file as in `load_config`, or a config that was built in Python: a
        ConfigDict, a nested dict, or an `Experiment`.
    Returns: the config.
    Raises:
      ConfigError: the config is invalid, of training in stages, or nothing of the above.
    """
    if isinstance(config, str):
        return load_config(config)
    tree = to_tree(config) if isinstance(config, Section) else _plain(config)
    if not isinstance(tree, Mapping):
        raise ConfigError(
            f"config: is {type(config).__name__}, expected a name, an "
            "ml_collections.ConfigDict, a dict or an Experiment"
        )
    if STAGES in tree:
        raise ConfigError(
            f"{STAGES}: are several configs; give one of them at a time, each with "
            "a workdir NAME in one folder"
        )
    return to_config(tree)


def load_config(spec: str, overrides: Sequence[tuple[str, str]] = ()) -> "Experiment":
    """The experiment of a config file.

    Args:
      spec: `PATH`, `PATH:VARIANT` or, for training in stages, `PATH:VARIANT:STAGE`. The file
        defines `get_config(variant="full") -> ConfigDict`, or it returns a dict {"stages": {NAME:
        ConfigDict, ...}}. A config of this project can be given by its name: `clip_b16:smoke` is
        `configs/clip_b16.py:smoke`, in any working directory.
      overrides: (dotted key, text) pairs, applied in order.
    Raises: ConfigError for a file that is missing, fails, or describes an invalid experiment.
    """
    stages = load_stages(spec, overrides)
    if None not in stages and spec.count(":") < 2:
        path, _, variant = spec.partition(":")
        raise ConfigError(
            f"{spec}: trains in stages, {', '.join(map(str, stages))}; only main "
            "takes them all, name one here: "
            f"{path}:{variant or 'full'}:{[*stages][0]}"
        )
    return next(iter(stages.values()))


def load_stages(
    spec: str, overrides: Sequence[tuple[str, str]] = ()
) -> "dict[str | None, Experiment]":
    """The experiments of a config file, in order: those of its stages by name, or one with the name
    None.

    Args:
      spec: as in `load_config`.
      overrides: as in `load_config`; an override of `stages.NAME.KEY` applies to that stage, any
        other to all.
    Raises: as `load_config`, and ConfigError for a stage with pretrained parameters of a stage that
      is not before it.
    """
    parts: list[str] = [*spec.split(":", 2), "", ""]
    path, variant, chosen = parts[:3]
    tree = _run(path, variant)
    if isinstance(tree, ml_collections.ConfigDict):
        if STAGES in tree:
            raise ConfigError(
                f"{path}: a ConfigDict forgets the order of its {STAGES}; return a dict of them"
            )
        tree = _plain(tree)
    if not isinstance(tree, dict):
        raise ConfigError(
            f"get_config returned {type(tree).__name__}, expected an "
            f"ml_collections.ConfigDict [{path}]"
        )
    if STAGES not in tree:
        if chosen:
            raise ConfigError(f"{spec}: trains in no stages, leave ':{chosen}' out")
        return {None: _checked(tree, overrides, spec)}
    trees = _stages_in(tree, path)
    if chosen and chosen not in trees:
        raise ConfigError(f"{spec}: has no stage {chosen!r}; stages: {', '.join(trees)}")
    for key, _ in overrides:
        section, _, rest = key.partition(".")
        if section == STAGES:
            _check_stage(rest.partition(".")[0], [chosen] if chosen else trees, f"--config.{key}")
            if "." not in rest:
                raise ConfigError(
                    f"--config.{key}: is a whole stage; set its keys, such as "
                    f"--config.{key}.steps=100"
                )
    stages, problems = {}, Problems()
    for name, stage in trees.items():
        with problems.noted():
            if chosen in ("", name):
                stages[name] = _checked(stage, _of_stage(name, overrides), f"{spec}: stage {name}")
    problems.report()
    for name, config in stages.items():
        earlier = [*trees][: [*trees].index(name)]
        for entry, origin in config.pretrained.items():
            if origin.stage is not None:
                _check_stage(origin.stage, earlier, f"{STAGES}.{name}.pretrained.{entry}.stage")
    return stages


def _plain(tree: Any) -> Any:
    """A ConfigDict as a dict; anything else unchanged."""
    return settle(tree).to_dict() if isinstance(tree, ml_collections.ConfigDict) else tree


def _checked(tree: dict, overrides: Sequence[tuple[str, str]], place: str) -> "Experiment":
    """The config of one experiment. Raises: ConfigError, or ConfigErrors with all its problems."""
    problems = Problems()
    return to_config(apply_overrides(tree, overrides, problems), place, problems)


def _stages_in(tree: dict, path: str) -> dict[str, dict]:
    """The configs of the stages. Raises: ConfigError for anything else in `tree`."""
    stages, others = tree[STAGES], sorted(tree.keys() - {STAGES})
    if others:
        raise ConfigError(
            f"{path}: {others[0]!r} is given next to {STAGES}; a key belongs to a stage"
        )
    if not isinstance(stages, dict) or not stages:
        raise ConfigError(
            f"{path}: {STAGES} is {stages!r}, expected a dict of at least one config by its name"
        )
    trees = {name: _plain(stage) for name, stage in stages.items()}
    for name, stage in trees.items():
        if not isinstance(stage, dict):
            raise ConfigError(
                f"{path}: stage {name} is {type(stage).__name__}, expected an "
                "ml_collections.ConfigDict"
            )
    return trees


def _check_stage(name: str, known: Collection[str], key: str) -> None:
    if name not in known:
        raise ConfigError(
            f"{key}: there is no stage {name!r} here; possible: {', '.join(known) or 'none'}"
        )


def _of_stage(name: str, overrides: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The overrides of a stage; its own duration precedes one for all stages."""
    prefix = f"{STAGES}.{name}."
    own = [key.removeprefix(prefix) for key, _ in overrides if key.startswith(prefix)]
    general = {*DURATIONS} if {*DURATIONS} & {*own} else set()
    return [
        (key.removeprefix(prefix), text)
        for key, text in overrides
        if key.startswith(prefix) or not (key.startswith(f"{STAGES}.") or key in general)
    ]


def _run(path: str, variant: str):
    path = config_file(path)
    try:
        module = runpy.run_path(path)
    except Exception as error:
        raise ConfigError(
            f"{path}: {_where(error, path)}{type(error).__name__}: {error}"
        ) from error
    get_config = module.get("get_config")
    if not callable(get_config):
        raise ConfigError(f"{path}: defines no function get_config(variant)")
    if variant and not inspect.signature(get_config).parameters:
        raise ConfigError(f"{path}: get_config takes no variant, remove ':{variant}'")
    try:
        return get_config(*([variant] if variant else []))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path}: {_where(error, path)}{type(error).__name__}: {error}"
        ) from error


def config_file(path: str) -> str:
    """The file of a config: `path` itself, or this project's config of that name.

    The name is such as `clip_b16` or `configs/clip_b16.py`.

    Raises: ConfigError where there is none, with the closest names.
    """
    if os.path.isfile(path):
        return path
    folder, name = os.path.split(path.removesuffix(".py"))
    known = list_models()
    if name in known and folder in ("", "configs"):
        return str(
            next(place / f"{name}.py" for place in FOLDERS if (place / f"{name}.py").is_file())
        )
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    advice = (
        f"did you mean {close[0]!r}?"
        if close
        else f"give a file's path, or a name: {', '.join(known)}"
    )
    raise ConfigError(f"--config: no such file: {path} ({advice})")


def _where(error: Exception, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.endswith(path)
    ]
    return f"line {lines[-1]}: " if lines else ""
