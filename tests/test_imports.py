"""The floors of the house, read off the imports, and what no import may bring in."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = {
    "errors": -1,
    "lazy": -1,
    "printing": -1,
    "reporting": -1,
    "interrupts": -1,
    "config": 0,
    "data": 0,
    "metrics": 0,
    "sharding": 0,
    "distributed": 0,
    "storage": 0,
    "hardware": 0,
    "models": 1,
    "objectives": 2,
    "evaluators": 3,
    "training": 4,
    "weights": 4,
    "experiment": 5,
}
DOORS = 6  # every other module at the top of the package
# Floors inside of a room, the lowest first: sub-packages and, between them, the modules of the room
# itself.
INNER = {
    "data": [
        ("samples", "notifications", "worker_processes"),
        ("sources",),
        ("images", "text"),
        ("layouts",),
        (),
        ("prepare",),
    ],
    "models": [
        ("options", "presets"),
        ("layers",),
        ("part", "shapes", "stack"),
        ("vision", "text"),
        ("fusion", "decoder"),
        (),
    ],
}
FILES = sorted((ROOT / "vlp_jax").rglob("*.py"))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path):
    """The modules of this package that a file imports when it runs, each as the parts of its
    name."""
    modules, tree = {module_name(file) for file in FILES}, ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [
                full if (full := f"{node.module}.{alias.name}") in modules else node.module
                for alias in node.names
            ]
        yield from (name.split(".") for name in names if name in modules and name != "vlp_jax")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_its_own_floor_or_below(path):
    room = path.relative_to(ROOT / "vlp_jax").parts[0].removesuffix(".py")
    above = [
        name
        for name in modules_imported(path)
        if FLOORS.get(name[1], DOORS) > FLOORS.get(room, DOORS)
    ]
    assert not above, f"{path} imports {above}"


def inner_floor(room, parts):
    """The floor inside of `room` of a module, given by the parts of its name behind it."""
    floors = INNER[room]
    return next(
        (number for number, names in enumerate(floors) if parts and parts[0] in names),
        floors.index(()),
    )


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(ROOT / "vlp_jax").parts[0] in INNER],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_part_of_a_room_imports_only_from_its_own_floor_or_below(path):
    room, *parts = path.relative_to(ROOT / "vlp_jax").with_suffix("").parts
    above = [
        name
        for name in modules_imported(path)
        if name[1] == room and inner_floor(room, name[2:]) > inner_floor(room, parts)
    ]
    assert not above, f"{path} imports {above}"


def test_no_module_imports_itself_by_way_of_others():
    """Kahn's algorithm takes away modules that import no other; what is left lies on a circle, or
    above one."""
    names = {module_name(path): path for path in FILES}
    imports = {
        name: {".".join(parts) for parts in modules_imported(path)} & names.keys() - {name}
        for name, path in names.items()
    }
    while free := [name for name, others in imports.items() if not others]:
        imports = {name: others - set(free) for name, others in imports.items() if others}
    assert not imports


@pytest.mark.full
@pytest.mark.parametrize(
    ("package", "banned"), [("vlp_jax", ("tensorflow", "torch")), ("vlp_jax.data", ("jax.numpy",))]
)
def test_importing_every_module_brings_in_nothing_banned(package, banned):
    folder = ROOT / package.replace(".", "/")
    modules = [module_name(path) for path in folder.rglob("*.py")]
    # Grain itself imports JAX; the modules that do not use Grain must not
    if package == "vlp_jax.data":
        modules = [name for name in modules if not name.endswith(("pipeline", "mixture"))]
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print([name for name in {banned} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_tensorboard_is_written_without_torch_even_where_it_is_installed(tmp_path):
    """A stand-in for torch that may be found, first on the path, and not imported."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = (
        "import sys; from vlp_jax.training.writers.tensorboard import TensorBoard\n"
        f"board = TensorBoard({str(tmp_path / 'tensorboard')!r}, 0); board.write({{'step': 1, "
        "'loss': 2.0}); board.close()\n"
        "print('torch' in sys.modules, len(list(__import__('pathlib').Path(sys.argv[1], "
        "'tensorboard').iterdir())))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.stdout == "False 1\n", result.stdout + result.stderr
