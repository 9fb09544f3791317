"""Imports run one way: from the command down to the ground, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import matmulbench

PACKAGE = Path(matmulbench.__file__).parent
ROOMS = [  # each imports only from those after it
    "__main__", "cli", "revision", "tuning", "fleet", "run", "comparison", "audit", "report", "pipeline", "arguments",
    "training", "measurement", "verification", "results", "isolation", "data", "workload", "dtypes", "ladder",
    "status", "streams", "errors",
]  # fmt: skip
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path: Path) -> Iterator[str]:
    """Yield what a file imports of the package, also within functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("matmulbench."):
                yield name if name in MODULES else name.rpartition(".")[0]


def room(module: str) -> str:
    return module.split(".")[1]


GRAPH = {name: set(imports(path)) - {name} for name, path in MODULES.items() if name != "matmulbench"}


def test_every_room_has_its_place():
    assert {room(module) for module in GRAPH} == set(ROOMS)


def test_imports_run_downwards():
    upwards = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others - {"matmulbench"}
        if ROOMS.index(room(module)) > ROOMS.index(room(other))
    ]
    assert not upwards


def test_there_is_no_circle():
    # A package's first file offers what its other files hold.
    modules = {module: others for module, others in GRAPH.items() if MODULES[module].name != "__init__.py"}
    try:
        TopologicalSorter(modules).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None
