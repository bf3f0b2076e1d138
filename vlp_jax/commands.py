"""The console commands of the package: `vlp-jax-NAME` runs the entry point of the same name.

`vlp-jax-train` is `python -m vlp_jax.main`, `vlp-jax-evaluate` is `python -m vlp_jax.evaluate`, and
so on.
"""

import importlib
from typing import NoReturn

from vlp_jax.command_line import run_entry_point
from vlp_jax.interrupts import leave_on_ctrl_c


def train() -> NoReturn:
    """`python -m vlp_jax.main`."""
    _run("main")


def evaluate() -> NoReturn:
    """`python -m vlp_jax.evaluate`."""
    _run("evaluate")


def prepare() -> NoReturn:
    """`python -m vlp_jax.prepare`."""
    _run("prepare")


def inspect() -> NoReturn:
    """`python -m vlp_jax.inspect`."""
    _run("inspect")


def compile() -> NoReturn:
    """`python -m vlp_jax.compile`."""
    _run("compile")


def convert() -> NoReturn:
    """`python -m vlp_jax.convert`."""
    _run("convert")


def report() -> NoReturn:
    """`python -m vlp_jax.report`."""
    _run("report")


def explain() -> NoReturn:
    """`python -m vlp_jax.explain`."""
    _run("explain.__main__")


def _run(name: str) -> NoReturn:
    leave_on_ctrl_c()  # before the module is imported, which takes seconds
    run_entry_point(importlib.import_module(f"vlp_jax.{name}").main)
