"""A tokenizer folder that brings Python of its own: none of it is run, and nobody is asked."""

import json
import pathlib
import subprocess
import sys

import pytest
from stderr_lines import own_lines

CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("run")
from transformers import PretrainedConfig, PreTrainedTokenizerFast
class Custom(PreTrainedTokenizerFast): pass
class CustomConfig(PretrainedConfig): model_type = "custom"
"""
LOADS = """
import sys
from vlp_jax.command_line import run_entry_point
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
run_entry_point(lambda arguments: load_tokenizer(TextConfig(tokenizer=arguments[0]), 6, 4096) and 0)
"""
AUTO_MAPS = {
    "tokenizer": {
        "tokenizer_config.json": {
            "tokenizer_class": "Custom",
            "auto_map": {"AutoTokenizer": [None, "custom.Custom"]},
        }
    },
    "old tokenizer": {
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["custom.Custom", "custom.Custom"]}}
    },
    "config": {
        "config.json": {
            "model_type": "custom",
            "auto_map": {
                "AutoConfig": "custom.CustomConfig",
                "AutoTokenizer": [None, "custom.Custom"],
            },
        }
    },
}


@pytest.mark.variants
@pytest.mark.parametrize("name", AUTO_MAPS)
def test_no_python_of_a_tokenizer_folder_is_run_whatever_is_answered(name, tmp_path):
    folder, marker = tmp_path / "tokenizer", tmp_path / "marker"
    folder.mkdir()
    (folder / "custom.py").write_text(CODE.format(marker=str(marker)))
    (folder / "vocab.json").write_text(json.dumps({"a": 0}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    for file, content in AUTO_MAPS[name].items():
        (folder / file).write_text(json.dumps(content))
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(folder)],
        input="y\n" * 20,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=pathlib.Path(__file__).parents[3],
    )
    assert not marker.exists()
    assert "y/N" not in done.stdout + done.stderr
    assert done.returncode == 2 and len(own_lines(done.stderr)) == 1, done.stderr
    expected = (
        f"config error: data.text.tokenizer: {folder} brings Python code of its own "
        "(auto_map), which is never run"
    )
    assert done.stderr.startswith(expected)
