"""The floors of the house, read off the imports, and what no import may bring in."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = {"config": 0, "data": 0, "metrics": 0, "sharding": 0, "errors": -1, "printing": -1, "interrupts": -1, "models": 1,
          "objectives": 2, "evaluators": 2, "training": 3}
DOORS = 4  # every module at the top of the package
FILES = sorted((ROOT / "vlp_jax").rglob("*.py"))


def rooms_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
        for name in names:
            parts = name.split(".")
            if parts[0] == "vlp_jax" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_its_own_floor_or_below(path):
    room = path.relative_to(ROOT / "vlp_jax").parts[0].removesuffix(".py")
    above = [name for name in rooms_imported(path) if FLOORS.get(name, DOORS) > FLOORS.get(room, DOORS)]
    assert not above, f"{path} imports {above}"


@pytest.mark.parametrize(("package", "banned"), [("vlp_jax", ("tensorflow", "torch")), ("vlp_jax.data", ("jax.numpy",))])
def test_importing_every_module_brings_in_nothing_banned(package, banned):
    folder = ROOT / package.replace(".", "/")
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in folder.rglob("*.py")]
    if package == "vlp_jax.data":  # Grain itself imports JAX; the modules that do not use Grain must not
        modules = [name for name in modules if not name.endswith(("pipeline", "mixture"))]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n" \
           f"print([name for name in {banned} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
