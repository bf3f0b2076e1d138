"""Prints the step of the newest checkpoint, or -1: `python -m vlp_jax.storage.newest WORKDIR`.

The scripts in launch/ count their restarts by it where the workdir is in a bucket.
"""

import sys

from vlp_jax.errors import UserError
from vlp_jax.printing import safe_print as print
from vlp_jax.storage.files import committed_steps
from vlp_jax.storage.paths import absolute


def main(arguments: list[str]) -> int:
    """Prints the step.

    Returns: the exit status: 0, or that of the error that is printed on stderr.
    """
    try:
        steps = committed_steps(f"{absolute(arguments[0])}/checkpoints")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    print(steps[-1] if steps else -1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
