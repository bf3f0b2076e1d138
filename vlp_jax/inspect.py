"""Look at a checkpoint: `python -m vlp_jax.inspect --workdir=DIR` prints the parameter table."""

import numpy as np

from vlp_jax.command_line import Flags, run_door
from vlp_jax.loading import load
from vlp_jax.training.checkpoint import flat


def main(arguments: list[str]) -> int:
    """Prints path, shape, dtype, count, mean and standard deviation of every parameter, and the total. Raises: UserError."""
    flags = Flags(prog="inspect", description=__doc__)
    flags.add_argument("--workdir", required=True, help="a run's folder")
    flags.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    flags.add_argument("--ema", choices=("auto", "yes", "no"), default="auto", help="averaged parameters; auto: if there are any")
    given = flags.parse(arguments)
    _, variables, _ = load(given.workdir, given.step, {"auto": None, "yes": True, "no": False}[given.ema])
    print(parameter_table(variables["params"]))
    return 0


def parameter_table(params: dict) -> str:
    """A row a parameter, aligned, and a row for the total."""
    rows = [("path", "shape", "dtype", "count", "mean", "std")]
    total = 0
    for path, leaf in flat(params).items():
        values = np.asarray(leaf)
        total += values.size
        rows.append((path, str(values.shape), str(values.dtype), f"{values.size:,}", f"{values.mean():.4g}", f"{values.std():.4g}"))
    rows.append(("total", "", "", f"{total:,}", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


if __name__ == "__main__":
    run_door(main)
