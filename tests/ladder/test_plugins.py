"""Kernels are found by name, by module and by file; what cannot be found is named with what would be right."""

from pathlib import Path

import pytest

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import availability, find_kernel, kernels, load_kernel


def test_the_ladder_comes_first_and_in_order() -> None:
    assert kernels()[: len(LADDER)] == [rung.name for rung in LADDER]


def test_every_rung_is_available() -> None:
    ladder = {rung.name for rung in LADDER}
    assert {row["status"] for row in availability() if row["name"] in ladder} == {"available"}


def test_a_near_match_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"kernel 'tripel-loop' is unknown: did you mean triple-loop"):
        find_kernel("tripel-loop")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"no file 'nowhere/mine.py'"):
        find_kernel("nowhere/mine.py:matmul")


def test_a_function_name_is_needed() -> None:
    with pytest.raises(UsageError, match="'2x' is no function name"):
        find_kernel("mine.py:2x")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("def matmul(a, b):\n    return a @ b\n")
    mine = tmp_path / "mine.py"
    mine.write_text("from neighbour import matmul\n")
    assert load_kernel(f"{mine}:matmul").__module__ == "neighbour"


def test_a_missing_function_is_answered_with_those_there_are(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def multiply(a, b):\n    return a @ b\n")
    with pytest.raises(AttributeError, match="no function 'matmul'; there are multiply"):
        load_kernel(f"{mine}:matmul")


def test_a_module_of_ones_own() -> None:
    assert load_kernel("torch:matmul") is __import__("torch").matmul
