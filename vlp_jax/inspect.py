"""Show the parameters of a checkpoint, the sharding of a config's parameters, or the keys of
configs.

python -m vlp_jax.inspect --workdir=DIR
  prints the parameter table of a run's checkpoint.
python -m vlp_jax.inspect --sharding --config=configs/clip_b16.py --config.mesh.fsdp=8 \
    [--devices=64]
  prints each parameter's shape, logical axes, mesh axes and bytes per device, and the total of a
  device. It reads no data and
  needs none of the devices; without --devices it takes as few as the mesh allows.
python -m vlp_jax.inspect --keys ['optimizer.*']
  prints the keys that a config may have, or those that match a pattern or contain a text, with
  type, default, range and meaning.
"""

import fnmatch
import inspect
import textwrap
from argparse import Namespace
from typing import TYPE_CHECKING

from vlp_jax.command_line import Flags, run_entry_point
from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError
from vlp_jax.printing import safe_print as print

if TYPE_CHECKING:  # modules that need JAX are imported where they are used, as in main.py
    from vlp_jax.config.describe import Key
    from vlp_jax.training.cost.sharding_table import StatePlaces


def main(arguments: list[str]) -> int:
    """Prints a table of the parameters, or of keys.

    It has path, shape, dtype, count, mean and standard deviation for a checkpoint, and path, shape,
    axes and bytes for a config with --sharding. With --keys it prints the keys of configs.

    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="inspect", description=__doc__)
    flags.add_argument("--workdir", help="a run's folder")
    flags.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    flags.add_argument(
        "--ema",
        choices=("auto", "yes", "no"),
        help="averaged parameters; auto (the default): if there are any",
    )
    flags.add_argument(
        "--components",
        default="",
        help="comma-separated modules of your own that "
        "may be imported, where the "
        "checkpoint's config names classes of them",
    )
    flags.add_argument(
        "--sharding", action="store_true", help="where the parameters of --config would lie"
    )
    flags.add_argument(
        "--config", help="with --sharding: a config file, with --config.KEY=VALUE as for training"
    )
    flags.add_argument("--devices", type=int, help="with --sharding: how many devices")
    flags.add_argument(
        "--keys",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help="the keys of a config, all or those that match",
    )
    given, overrides = flags.parse_with_overrides(arguments)
    if given.keys is not None:
        print(keys_table(given.keys))
        return 0
    check_flags(given, overrides)
    if given.sharding:
        config = load_config(given.config, overrides)
        from vlp_jax.training.cost.sharding_table import state_places

        print(sharding_table(state_places(config, given.devices)))
        return 0
    from vlp_jax.loading import load

    _, variables, _ = load(
        given.workdir,
        given.step,
        {"auto": None, None: None, "yes": True, "no": False}[given.ema],
        components=tuple(name for name in given.components.split(",") if name),
    )
    print(parameter_table(variables["params"]))
    return 0


def check_flags(given: Namespace, overrides: list[tuple[str, str]]) -> None:
    """Checks that the flags belong to the same table and that none is missing.

    Raises:
      ConfigError: they do not, or one is.
    """
    needed, others = (
        ("config", ("workdir", "step", "ema"))
        if given.sharding
        else ("workdir", ("config", "devices"))
    )
    stray = [f"--{name}" for name in others if getattr(given, name) is not None]
    stray += [f"--config.{overrides[0][0]}"] if overrides and not given.sharding else []
    if stray:
        raise ConfigError(
            f"{stray[0]}: {'goes without' if given.sharding else 'goes with'} "
            "--sharding; see python -m vlp_jax.inspect --help"
        )
    if getattr(given, needed) is None:
        raise ConfigError(f"--{needed} is missing; see python -m vlp_jax.inspect --help")
    if given.devices is not None and given.devices < 1:
        raise ConfigError(f"--devices: must be at least 1, got {given.devices}")


def keys_table(pattern: str) -> str:
    """The keys of a config that match a pattern, by section and kind.

    Args:
      pattern: as in a shell, of the whole dotted key; or a part of the key.
    Raises:
      ConfigError: no key matches.
    """
    from vlp_jax.config.describe import sections
    from vlp_jax.config.registry import root_section

    blocks = []
    for section in sections(root_section()):
        if section.same_as is not None:
            continue
        keys = [
            key for key in section.keys if fnmatch.fnmatch(key.path, pattern) or pattern in key.path
        ]
        if keys:
            title = (section.path or "the config itself") + (
                f", kind {section.kind}" if section.kind else ""
            )
            summary = (inspect.getdoc(section.declaration) or "").partition("\n")[0]
            blocks.append("\n".join([f"{title}: {summary}", *map(key_lines, keys)]))
    if not blocks:
        raise ConfigError(
            f"--keys: no key matches {pattern!r}; give a part of its name, or a "
            "pattern such as 'data.text.*'"
        )
    return "\n\n".join(blocks)


def key_lines(key: "Key") -> str:
    """One key: its type, default and range in a line, and its meaning below."""
    facts = "; ".join(
        [
            key.type,
            *([f"default {key.default}"] if key.default else []),
            *([key.range] if key.range else []),
        ]
    )
    meaning = textwrap.wrap(key.meaning, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([f"  {key.path}: {facts}", *meaning])


def parameter_table(params: dict) -> str:
    """An aligned table with a row per parameter and a row for the total."""
    import numpy as np

    from vlp_jax.training.checkpoints.format import flat

    rows: list[tuple[str, ...]] = [("path", "shape", "dtype", "count", "mean", "std")]
    total = 0
    for path, leaf in flat(params).items():
        values = np.asarray(leaf)
        total += values.size
        rows.append(
            (
                path,
                str(values.shape),
                str(values.dtype),
                f"{values.size:,}",
                f"{values.mean():.4g}",
                f"{values.std():.4g}",
            )
        )
    rows.append(("total", "", "", f"{total:,}", "", ""))
    return aligned(rows)


def sharding_table(places: "StatePlaces") -> str:
    """A table with a row per parameter, and below it the bytes that one device holds."""
    from vlp_jax.sharding.mesh import shown

    rows: list[tuple[str, ...]] = [("path", "shape", "logical axes", "mesh axes", "bytes a device")]
    rows += [
        (
            place.path,
            str(place.shape),
            axes_words(place.logical_axes),
            axes_words(place.mesh_axes),
            f"{place.device_bytes:,}",
        )
        for place in places.parameters
    ]
    totals = {
        "parameters": places.parameter_bytes,
        "optimizer state": places.optimizer_bytes,
        "ema": places.ema_bytes,
    }
    rows += [
        (f"{name}, bytes a device", "", "", "", f"{count:,}") for name, count in totals.items()
    ]
    rows += [("all of these, bytes a device", "", "", "", f"{sum(totals.values()):,}")]
    mesh = places.layout.mesh
    return (
        f"mesh {shown(mesh.shape.values())}: {mesh.size} "
        f"device{'s' * (mesh.size > 1)}\n{aligned(rows)}"
    )


def axes_words(axes: tuple) -> str:
    """(None, "fsdp", ("data", "tensor")) -> "- fsdp data+tensor"."""
    return " ".join(
        "-" if axis is None else "+".join(axis) if isinstance(axis, tuple) else axis
        for axis in axes
    )


def aligned(rows: list[tuple[str, ...]]) -> str:
    """The rows as lines, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    run_entry_point(main)
