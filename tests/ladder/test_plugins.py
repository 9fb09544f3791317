"""Kernels are found by name, by module and by file; what cannot be found is named with what would be right."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from matmulbench.api import availability
from matmulbench.dtypes import declared_accumulation
from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.ladder.devices import on_device
from matmulbench.ladder.plugins import arity_advice, find_kernel, kernels, load_kernel, parts, with_operands


def test_the_ladder_comes_first_and_in_order() -> None:
    assert kernels()[: len(LADDER)] == [rung.name for rung in LADDER]


def test_a_near_match_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"kernel 'tripel-loop' is unknown: did you mean triple-loop"):
        find_kernel("tripel-loop")


def test_a_functions_place_written_with_dots_is_shown_with_a_colon() -> None:
    with pytest.raises(UsageError, match=r"Your own is named as numpy:matmul\."):
        find_kernel("numpy.matmul")


def test_a_file_that_is_none_of_pythons_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.pyx").touch()
    with pytest.raises(UsageError, match=r"expected path/to/file\.py:function or package"):
        find_kernel(f"{tmp_path}/mine.pyx:matmul")


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
    with pytest.raises(UsageError, match="no function 'matmul'; it has: multiply"):
        load_kernel(f"{mine}:matmul")


def test_a_function_of_a_class_or_an_object(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "class Mine:\n    @staticmethod\n    def dot(a, b):\n        return a @ b\n"
        "    def times(self, a, b):\n        return a @ b\nmine = Mine()\n"
    )
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    for name in ("Mine.dot", "mine.times"):
        assert torch.equal(load_kernel(f"{mine}:{name}")(a, b), a @ b)
    with pytest.raises(UsageError, match=r"no function 'Mine\.dott'; it has: Mine"):
        load_kernel(f"{mine}:Mine.dott")
    with pytest.raises(UsageError, match="no function 'Yours'"):
        find_kernel(f"{mine}:Yours.dot")


def test_a_module_of_ones_own() -> None:
    assert load_kernel("torch:matmul") is __import__("torch").matmul


def test_a_missing_module_is_answered_with_how_a_file_is_named() -> None:
    with pytest.raises(ImportError, match=r"'no_such_mine'; a file is named as path/to/file.py:function"):
        load_kernel("no_such_mine:matmul")


def test_a_kernel_of_arrays_takes_tensors_once_loaded(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import numpy as np\ndef matmul(a, b):\n    return np.dot(a.astype(a.dtype), b)\n")
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(load_kernel(f"{mine}:matmul@numpy")(a, b), a @ b)
    mine.write_text(mine.read_text() + "matmul.operands = 'numpy'\n")
    kernel = load_kernel(f"{mine}:matmul")
    assert torch.equal(kernel(a, b), a @ b)
    assert torch.equal(load_kernel(kernel)(a, b), a @ b)


def test_arrays_may_lie_in_memory_as_no_tensor_can(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.py", "def matmul(a, b): return (a[::-1] @ b)[::-1]\n")
    a, b = torch.arange(6.0).view(2, 3), torch.ones(3, 4)
    assert torch.equal(load_kernel(f"{mine}:matmul@numpy")(a, b), a @ b)


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
    assert "takes (a, b, *, block), expected" in str(arity_advice(lambda a, b, *, block: None, error))
    assert "as by `multiply = Tiled()`" in str(arity_advice(type("Tiled", (), {}), error))
    assert arity_advice(lambda a, b, c=None: c, error) is None
    assert "expected (a, b), and c returned" in str(arity_advice(max, error))
    assert arity_advice(max, TypeError("unhashable type")) is None


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_files_of_one_name_have_each_their_own_neighbours(tmp_path: Path) -> None:
    for number, folder in enumerate(("before", "after")):
        write(tmp_path / folder / "helper_of_two.py", f"NUMBER = {number}\n")
        write(
            tmp_path / folder / "same_name.py", "import helper_of_two\ndef matmul(a, b): return helper_of_two.NUMBER\n"
        )
    first, second = (load_kernel(f"{tmp_path / folder}/same_name.py:matmul") for folder in ("before", "after"))
    assert (first(1, 1), second(1, 1)) == (0, 1)


def test_a_file_has_its_real_name_so_that_pickling_works(tmp_path: Path) -> None:
    kernel = load_kernel(write(tmp_path / "a_real_name.py", "def matmul(a, b): return a\n") + ":matmul")
    assert kernel.__module__ == "a_real_name"
    assert pickle.loads(pickle.dumps(kernel)) is kernel


@pytest.mark.parametrize("name", ["v1.2.py", "été v1.2.py", "my-kernel.py", "package/v1.2.py"])
def test_a_file_may_have_a_name_that_python_cannot_import(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(tmp_path / "package" / "__init__.py", "") if "/" in name else None
    kernel = load_kernel(write(path, "def matmul(a, b): return a\n") + ":matmul")
    assert pickle.loads(pickle.dumps(kernel)) is kernel
    assert load_kernel(f"{path}:matmul") is kernel


def test_what_is_no_function_is_no_kernel() -> None:
    with pytest.raises(UsageError, match="kernel 5: expected a name or a function"):
        load_kernel(5)  # type: ignore[arg-type]


def test_a_file_that_has_a_librarys_name_takes_it_from_nobody(tmp_path: Path) -> None:
    kernel = load_kernel(write(tmp_path / "numba.py", "def matmul(a, b): return 'mine'\n") + ":matmul")
    write(tmp_path / "random.py", "raise SystemExit('not meant')\n")
    assert kernel(1, 1) == "mine"
    import numba

    assert str(tmp_path) not in numba.__file__


def test_a_file_beside_the_kernel_hides_no_library_that_the_suite_needs(tmp_path: Path) -> None:
    for name in ("numba", "scipy", "psutil", "sklearn", "cpuinfo", "build"):
        write(tmp_path / f"{name}.py", "def njit(function): return 'mine'\n")
    path = write(
        tmp_path / "beside_numba.py", "from numba import njit\n@njit\ndef matmul(a, b): return a\nimport build\n"
    )
    child = f"""
from matmulbench.ladder.plugins import load_kernel
kernel = load_kernel({path + ":matmul"!r})
import cpuinfo.cpuinfo, scipy.linalg, sklearn.datasets, sys
print(type(kernel).__name__, sys.modules["build"].njit(0))
"""
    done = subprocess.run([sys.executable, "-P", "-c", child], capture_output=True, text=True, check=False)
    assert done.stdout == "CPUDispatcher mine\n", done.stderr


def test_a_file_of_a_package_is_imported_as_part_of_it(tmp_path: Path) -> None:
    write(tmp_path / "a_package" / "__init__.py", "")
    write(tmp_path / "a_package" / "core.py", "def product(a, b): return 'core'\n")
    path = write(
        tmp_path / "a_package" / "kernels.py", "from .core import product\ndef matmul(a, b): return product(a, b)\n"
    )
    assert load_kernel(f"{path}:matmul")(1, 1) == "core"


@pytest.mark.parametrize(("folder", "needs"), [("", ".core"), ("inner", "..core")])
def test_a_file_that_python_takes_for_no_part_of_its_package_is_told_how_to_name_it(
    tmp_path: Path, folder: str, needs: str
) -> None:
    write(tmp_path / "a_bare_package" / "core.py", "def product(a, b): return a @ b\n")
    write(tmp_path / "a_bare_package" / folder / ("__init__.py" if folder else "core.py"), "")
    path = write(tmp_path / "a_bare_package" / folder / f"kernels{folder}.py", f"from {needs} import product\n")
    with pytest.raises(
        ImportError, match=r"relative import.*; name it as package.module:product from the folder above"
    ):
        load_kernel(f"{path}:product")


def test_a_module_is_found_from_any_folder_of_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pyproject.toml", "")
    write(tmp_path / "a_project_package" / "__init__.py", "def matmul(a, b): return 'found'\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert load_kernel("a_project_package:matmul")(1, 1) == "found"


def test_every_rung_is_available_and_an_import_that_prints_or_ends_spoils_no_list(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = write(tmp_path / "loud.py", "print('noise')\ndef matmul(a, b): return a\n")
    leaves = write(tmp_path / "leaves.py", "import sys\nsys.exit(3)\ndef matmul(a, b): return a\n")
    broken = write(tmp_path / "broken.py", "def matmul(a, b):\n    return a @\n")
    specs = [f"{each}:matmul" for each in (loud, leaves, broken)]
    found = {row["name"]: row["status"] for row in availability(specs)}
    assert {found[f"{loud}:matmul"], *(found[rung.name] for rung in LADDER)} == {"available"}
    assert found[f"{leaves}:matmul"].startswith("unavailable: SystemExit: 3 (leaves.py:2); sys.exit ends a program; ")
    assert found[f"{broken}:matmul"] == "unavailable: SyntaxError: invalid syntax (broken.py, line 2)"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("operands", ["torch", "numpy"])
def test_a_kernel_that_prepares_b_is_whole_once_loaded(tmp_path: Path, operands: str) -> None:
    path = write(
        tmp_path / f"prepares_{operands}.py",
        "def setup(b): return b * 2\n"
        "def matmul(a, prepared): return a @ prepared / 2\n"
        f"matmul.setup, matmul.operands, matmul.accumulation = setup, {operands!r}, 'float16'\n",
    )
    kernel = load_kernel(load_kernel(f"{path}:matmul"))  # once is enough
    multiply, prepare = parts(kernel)
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(kernel(a, b), a @ b)
    assert prepare
    assert torch.equal(multiply(a, prepare(b)), a @ b)
    assert declared_accumulation(multiply, "bfloat16") == "float16"  # which is of the part that is timed, too


def test_no_attribute_says_what_is_timed_in_a_kernels_place() -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b

    kernel.on_device = kernel.prepared = lambda a, b: a  # type: ignore[attr-defined]
    assert on_device(load_kernel(kernel), "cpu") is kernel
    assert parts(load_kernel(kernel)) == (kernel, None)
    kernel.setup = lambda b: b  # type: ignore[attr-defined]
    assert parts(load_kernel(kernel))[0] is kernel
