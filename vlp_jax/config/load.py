"""Reads `configs/NAME.py:VARIANT` with overrides into a checked `Config`."""

import inspect
import os
import runpy
import traceback
from collections.abc import Sequence

import ml_collections

from vlp_jax.config.parse import apply_overrides, to_config
from vlp_jax.config.schema import Config
from vlp_jax.errors import ConfigError


def load_config(spec: str, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """The experiment that a config file describes.

    Args:
      spec: `PATH` or `PATH:VARIANT`; the file defines `get_config(variant="full") -> ConfigDict`.
      overrides: (dotted key, text) pairs, applied in order.
    Raises: ConfigError for a file that is missing, fails, or describes something impossible.
    """
    path, _, variant = spec.partition(":")
    tree = _run(path, variant)
    if isinstance(tree, ml_collections.ConfigDict):
        tree = tree.to_dict()
    if not isinstance(tree, dict):
        raise ConfigError(f"get_config returned {type(tree).__name__}, expected an ml_collections.ConfigDict [{path}]")
    return to_config(apply_overrides(tree, overrides), place=spec)


def _run(path: str, variant: str):
    if not os.path.isfile(path):
        raise ConfigError(f"--config: no such file: {path} (run from the repository root, or give its full path)")
    try:
        module = runpy.run_path(path)
    except Exception as error:
        raise ConfigError(f"{path}: {_where(error, path)}{type(error).__name__}: {error}") from error
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
        raise ConfigError(f"{path}: {_where(error, path)}{type(error).__name__}: {error}") from error


def _where(error: Exception, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path)]
    return f"line {lines[-1]}: " if lines else ""
