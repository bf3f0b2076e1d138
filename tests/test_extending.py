"""docs/extending.md: its files, written to a folder as they are, train, resume, load and
evaluate."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE, flags=re.M | re.S))
COMMAND = re.search(r"^```bash\n(python -m vlp_jax.main .*?)\n```", PAGE, flags=re.M | re.S)[1]
MODULES = [
    name.removesuffix(".py").replace("/", ".") for name in FILES if not name.endswith("config.py")
]


def call(folder, *arguments):
    """A process in the folder of the user's project, which does not hold this package."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    result = call(folder, *COMMAND.split()[1:])
    assert result.returncode == 0, result.stderr
    return folder


def test_the_page_has_one_part_of_each_sort():
    bases = {
        "ImageTowerConfig",
        "FusionConfig",
        "ObjectiveConfig",
        "TaskConfig",
        "ImageTransformConfig",
        "OptimizerConfig",
        "WriterConfig",
    }
    assert {base for base in bases if any(f"({base})" in text for text in FILES.values())} == bases
    assert "def open_squares" in FILES["my_project/squares.py"]


@pytest.mark.full
def test_three_steps_are_trained_measured_and_written(project):
    lines = (project / "run/losses.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    rows = (project / "run/metrics.jsonl").read_text()
    assert (
        '"squares/alignment"' in rows
        and '"train/spread/image"' in rows
        and '"train/matching/loss"' in rows
    )
    assert not (project / "run/tensorboard").exists()


@pytest.mark.full
def test_a_checkpoint_is_loaded_where_its_modules_are_named(project):
    code = (
        "import vlp_jax; print(vlp_jax.load('run', components={names})[0].config.model.image.kind)"
    )
    refused = call(project, "-c", code.format(names=()))
    assert "if you trust it, import my_project" in refused.stderr and refused.returncode != 0
    taken = call(project, "-c", code.format(names=MODULES))
    assert taken.stdout == "my_project.mixer:MixerConfig\n", taken.stderr


@pytest.mark.full
def test_it_is_evaluated_from_the_command_line(project):
    flags = [
        "--workdir=run",
        "--source=my_project.squares:open_squares:8",
        "--evaluators=retrieval",
    ]
    refused = call(project, "-m", "vlp_jax.evaluate", *flags)
    # but the source's
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == len(MODULES) - 1, (
        refused.stderr
    )
    assert all(
        "if you trust it, import my_project." in line for line in refused.stderr.splitlines()
    )
    result = call(project, "-m", "vlp_jax.evaluate", *flags, f"--components={','.join(MODULES)}")
    assert '"text_to_image_recall@1"' in result.stdout, result.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objectives.spread.t=-1", "objectives.spread.t: must be at least 0.0, got -1.0"),
        ("objectives.spread.tau=2", "objectives.spread.tau: unknown key"),
        ("model.image.kind=my_project.mixer:Mixer", "does not derive from"),
        ("model.image.kind=my_project.nothing:Mixer", "importing my_project.nothing failed"),
        (
            "data.train.source=my_project.squares:close_squares:3",
            "my_project.squares has no function 'close_squares'",
        ),
    ],
)
def test_a_mistake_is_one_line(project, override, message):
    result = call(
        project,
        "-m",
        "vlp_jax.main",
        "--config=my_project/config.py:smoke",
        "--workdir=other",
        f"--config.{override}",
    )
    assert (
        result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    ), result.stderr
    assert not (project / "other/checkpoints").exists()
