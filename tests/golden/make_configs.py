"""Writes tests/golden/configs/NAME.txt for every config: `python tests/golden/make_configs.py`."""

import pathlib
import sys

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "config"), str(TESTS.parent)]

from test_config import GOLDEN, NAMES, flat_text  # noqa: E402

for name in NAMES:
    (GOLDEN / f"{name}.txt").write_text(flat_text(name))
