"""The console commands that come with the package: `vlp-jax-train` is `python -m vlp_jax.main`, `vlp-jax-evaluate` is
`python -m vlp_jax.evaluate`, and so on."""

from typing import NoReturn

from vlp_jax.command_line import run_door
from vlp_jax.interrupts import leave_on_ctrl_c


def train() -> NoReturn:
    """`python -m vlp_jax.main`."""
    leave_on_ctrl_c()
    from vlp_jax.main import main

    run_door(main)


def evaluate() -> NoReturn:
    """`python -m vlp_jax.evaluate`."""
    leave_on_ctrl_c()
    from vlp_jax.evaluate import main

    run_door(main)


def prepare() -> NoReturn:
    """`python -m vlp_jax.prepare`."""
    leave_on_ctrl_c()
    from vlp_jax.prepare import main

    run_door(main)


def inspect() -> NoReturn:
    """`python -m vlp_jax.inspect`."""
    leave_on_ctrl_c()
    from vlp_jax.inspect import main

    run_door(main)


def compile() -> NoReturn:
    """`python -m vlp_jax.compile`."""
    leave_on_ctrl_c()
    from vlp_jax.compile import main

    run_door(main)
