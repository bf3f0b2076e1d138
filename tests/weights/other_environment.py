"""The part of a comparison that runs by an interpreter with OpenCLIP and timm, without JAX:
`write NAME VARIANT FOLDER` makes a model and its outputs, `reload` checks what we wrote."""

import pathlib
import sys

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "weights" / "families")]

from weight_reference import check_written_again, write_reference  # noqa: E402

if __name__ == "__main__":
    phase, name, variant, folder = sys.argv[1:]
    if phase == "write":
        write_reference(name, int(variant), pathlib.Path(folder))
    else:
        check_written_again(name, pathlib.Path(folder))
