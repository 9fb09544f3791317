"""Imports run one way: from the command down to the ground, and never in a circle."""

import ast
import runpy
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "house.py"))
ROOMS = [  # each imports only from those after it
    "cli", "revision", "tuning", "fleet", "run", "comparison", "audit", "report", "api", "pipeline", "arguments",
    "training", "measurement", "verification", "results", "isolation", "data", "workload", "dtypes", "ladder",
    "status", "streams", "errors",
]  # fmt: skip


def test_every_room_has_its_place_and_imports_from_those_below():
    rooms, _ = HOUSE["read"]()
    assert rooms.keys() == set(ROOMS)
    upwards = {
        (room, below) for room, imports in rooms.items() for below in imports if ROOMS.index(room) > ROOMS.index(below)
    }
    assert not upwards


@pytest.mark.parametrize(
    ("modules", "absent"),
    [("comparison, matmulbench.report", "{'numba', 'torch'}"), ("audit.measurement, matmulbench.tuning", "{'numba'}")],
)
def test_what_multiplies_nothing_itself_compiles_nothing(modules, absent):
    code = f"import sys, matmulbench.{modules}; print({absent} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_no_files_import_each_other_in_a_circle():
    package = HOUSE["SOURCE"]
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for path in package.rglob("*.py")
        if path.name != "__init__.py"  # it offers what the package's other files hold
    }
    graph = {}
    for name, path in files.items():
        found = HOUSE["imported"](ast.parse(path.read_text("utf-8")))
        graph[name] = {each if each in files else each.rpartition(".")[0] for each in found} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None
