"""Every family of public checkpoints next to the library itself: random models of several shapes
are read, compared, written again and loaded there.

Families of OpenCLIP and timm need another version of PyTorch: OPEN_CLIP_PYTHON names an interpreter
that has it (see tests/golden/make_weights.py). WEIGHT_ERRORS names a file to which the errors are
appended, of which docs/make_weights.py makes its table.
"""

import importlib.util
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file
from weight_reference import (
    NAMES,
    VARIANTS,
    check_written_again,
    errors,
    family,
    place_of,
    read_golden,
    write_reference,
)

from vlp_jax.inference import Model
from vlp_jax.weights.export import as_exported
from vlp_jax.weights.files import write_json, write_tensors
from vlp_jax.weights.formats.format import format_named
from vlp_jax.weights.public import read_public

pytestmark = pytest.mark.parity
BOUND = 1e-5
SCRIPT = pathlib.Path(__file__).parent / "other_environment.py"


@pytest.mark.parametrize("variant", range(VARIANTS))
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_theirs_and_what_is_written_again_loads_there(name, variant, tmp_path):
    written = runner(name)
    written("write", name, variant, tmp_path)
    exports = compare(name, variant, tmp_path)
    if exports:
        written("reload", name, variant, tmp_path)


def runner(name):
    """What makes a reference and checks what was written: this process, or another interpreter."""
    library = getattr(family(name), "NEEDS", "torch")
    if importlib.util.find_spec(library) is not None:
        return lambda phase, name, variant, folder: (
            write_reference(name, variant, folder)
            if phase == "write"
            else check_written_again(name, folder)
        )
    python = os.environ.get("OPEN_CLIP_PYTHON")
    if library == "torch" or python is None:
        pytest.skip(f"{library} is not installed")
    return lambda *arguments: subprocess.run(
        [python, str(SCRIPT), *map(str, arguments)], check=True
    )


def compare(name, variant, folder):
    """Reads a reference, compares its outputs, and writes it again; whether it is written."""
    inputs, expected = read_golden(folder)
    place = place_of(name, folder)
    public = read_public(place)
    variables = public.variables()
    reference = family(name)
    found = errors(
        reference.ours(Model(public.module, public.config, None), variables, inputs), expected
    )
    record(name, variant, found, hasattr(reference, "load"))
    assert max(found.values()) < BOUND, found
    if not hasattr(reference, "load"):
        return False
    exported = as_exported(format_named(place), "again", public.config, None, variables, "")
    written = dict(exported.tensors())
    (path,) = folder.glob("*.safetensors")
    original = load_file(path)
    files = {exported.family.written_name(name): file for name, file in public.names.items()}
    unread = exported.family.unread(exported.theirs).keys()
    assert written.keys() - unread == files.keys() and original.keys() >= unread
    for key, file in files.items():
        np.testing.assert_array_equal(written[key], original[file], key, strict=True)
    write_again(reference, exported, folder)
    return True


def write_again(reference, exported, folder):
    """Writes config and weights to `FOLDER/again` as their library loads them, with the token ids
    of the original config, as there is no tokenizer."""
    again = folder / "again"
    again.mkdir()
    kind, theirs = exported.family, exported.theirs
    if reference.FORMAT == "huggingface":
        original = json.loads((folder / "config.json").read_text())
        names = {
            "architectures": theirs.get("architectures") or [kind.title],
            "model_type": kind.model_type,
        }
        write_json(again, "config.json", {**with_ids(theirs, original), **names})
        write_tensors(again, "model", exported.tensors())
    else:
        write_json(again, "open_clip_config.json", {"model_cfg": theirs, "preprocess_cfg": {}})
        write_tensors(again, "open_clip_model", exported.tensors())


def with_ids(theirs, original):
    """A config with the ids of special tokens of another one."""
    found = {key: value for key, value in original.items() if key.endswith("_token_id")}
    for key, value in theirs.items():
        inner = original.get(key, {})
        found.setdefault(key, with_ids(value, inner) if isinstance(value, dict) else value)
    return found


def record(name, variant, found, exports):
    """Appends the errors to the file that WEIGHT_ERRORS names."""
    if path := os.environ.get("WEIGHT_ERRORS"):
        row = {"family": name, "variant": variant, "exports": exports, "errors": found}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
