"""The notebooks run from top to bottom without a network, and are committed with their outputs."""

import importlib.util
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = {"inspect_parameters": 4, "train_in_a_notebook": 2, "finetune_public_weights": 1}
notebooks = pytest.mark.skipif(
    importlib.util.find_spec("nbclient") is None, reason="needs pip install 'vlp-jax[notebook]'"
)


def read(name):
    import nbformat

    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


@notebooks
@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_is_committed_as_it_ran_from_top_to_bottom(name):
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert pictures(notebook) == PICTURES[name]


@notebooks
@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    import nbclient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # eight devices are not a laptop's
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = read(name)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
    client = nbclient.NotebookClient(
        notebook,
        timeout=400,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert pictures(notebook) == PICTURES[name]
