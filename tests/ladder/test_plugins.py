"""Kernels are found by name, by module and by file; what cannot be found is named with what would be right."""

from pathlib import Path

import pytest
import torch

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import arity_advice, availability, find_kernel, kernels, load_kernel, with_operands


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
    with pytest.raises(UsageError, match="no function 'matmul'; there are multiply"):
        load_kernel(f"{mine}:matmul")


def test_a_module_of_ones_own() -> None:
    assert load_kernel("torch:matmul") is __import__("torch").matmul


def test_a_missing_module_is_answered_with_how_a_file_is_named() -> None:
    with pytest.raises(ImportError, match=r"'mine'; a file is named as path/to/file.py:function"):
        load_kernel("mine:matmul")


def test_a_kernel_of_arrays_takes_tensors_once_loaded(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import numpy as np\ndef matmul(a, b):\n    return np.dot(a.astype(a.dtype), b)\n")
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(load_kernel(f"{mine}:matmul@numpy")(a, b), a @ b)
    mine.write_text(mine.read_text() + "matmul.operands = 'numpy'\n")
    assert torch.equal(load_kernel(f"{mine}:matmul")(a, b), a @ b)


def test_what_stands_behind_the_name_outweighs_what_is_declared(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def matmul(a, b):\n    return type(a).__name__\nmatmul.operands = 'numpy'\n")
    assert load_kernel(f"{mine}:matmul@torch")(torch.ones(1, 1), torch.ones(1, 1)) == "Tensor"


def test_operands_are_said_of_kernels_of_ones_own_alone() -> None:
    assert with_operands("mine.py:matmul", "numpy") == "mine.py:matmul@numpy"
    assert with_operands("mine.py:matmul@torch", "numpy") == "mine.py:matmul@torch"
    assert with_operands("mine.py:matmul", None) == "mine.py:matmul"
    assert with_operands("numba", "numpy") == "numba"


def test_unknown_operands_are_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match="operands 'nunpy' is unknown: did you mean numpy"):
        find_kernel("torch:matmul@nunpy")


def test_an_at_sign_in_a_folder_is_part_of_its_name(tmp_path: Path) -> None:
    mine = tmp_path / "me@work" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("def matmul(a, b):\n    return a @ b\n")
    assert find_kernel(f"{mine}:matmul@numpy") == f"{mine}:matmul"


def test_a_function_that_does_not_take_two_operands_is_answered_with_those_that_it_takes() -> None:
    error = TypeError("function takes exactly 3 arguments (2 given)")
    assert "takes (a, b, c), expected (a, b)" in str(arity_advice(lambda a, b, c: None, error))
    assert arity_advice(lambda a, b, c=None: c, error) is None
    assert "expected (a, b), and c returned" in str(arity_advice(max, error))
    assert arity_advice(max, TypeError("unhashable type")) is None
