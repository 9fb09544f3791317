"""What is passed in Python: names, functions, texts and tuples, single or several; else one line says what is wrong."""

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

import matmulbench
from matmulbench.arguments import kernel_specs, read_workloads, renaming, spec_of, thread_counts
from matmulbench.errors import UsageError
from matmulbench.ladder.plugins import find_kernel, load_kernel
from matmulbench.workload import Workload


def product(a: Any, b: Any) -> Any:
    return a @ b


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matmulbench.verify("torhc"), "kernel 'torhc' is unknown: did you mean torch?"),
        (lambda: matmulbench.verify(3), "kernel 3: expected a name or a function"),
        (lambda: matmulbench.verify([]), "kernels: none is named"),
        (lambda: matmulbench.verify("torch", "float8"), "dtype 'float8' is unknown"),
        (lambda: matmulbench.verify("torch", case=3), "case 3: expected a text such as 2x2x1:TN"),
        (lambda: matmulbench.verify("torch", effort="fast"), "effort 'fast' is unknown: known are quick"),
        (lambda: matmulbench.measure(["torch", None]), "kernel None: expected a name or a function"),
        (lambda: matmulbench.measure("torch", "5x5"), "workload '5x5': expected MxKxN"),
        (lambda: matmulbench.measure("torch", (5, 5)), "workload '5x5': expected MxKxN"),
        (lambda: matmulbench.measure("torch", 5), "workload 5: expected a text such as 5x784x10"),
        (lambda: matmulbench.measure("torch", []), "workloads: none is named"),
        (lambda: matmulbench.measure("torch", dtype="float8"), "dtype 'float8' is unknown"),
        (lambda: matmulbench.measure("torch", dtype=bool), "dtype 'bool' is unknown"),
        (lambda: matmulbench.measure("torch", dtype=None), "dtype 'None' is unknown"),
        (lambda: matmulbench.measure("torch", dtype=[]), "dtypes: none is named"),
        (lambda: matmulbench.measure("torch", Workload(0, 1, 1)), "workload '0x1x1': expected sizes from 1"),
        (lambda: matmulbench.measure("torch", budget_s="10"), "budget '10': expected seconds above 0"),
        (lambda: matmulbench.measure("torch", threads=True), "threads 'True': expected counts from 1 to"),
        (lambda: matmulbench.measure("torch", threads=[]), "threads '[]': expected counts from 1 to"),
        (lambda: matmulbench.measure("torch", baseline="nmpy"), "kernel 'nmpy' is unknown: did you mean numpy"),
        (lambda: matmulbench.measure("torch", budget_s=0), "budget 0: expected seconds above 0"),
        (lambda: matmulbench.measure("torch", import_timeout_s=-1), "import-timeout -1: expected seconds above 0"),
        (lambda: matmulbench.train("digit", "torch"), "task 'digit' is unknown: did you mean digits?"),
        (lambda: matmulbench.train(3, "torch"), "model 3: expected a name or a function"),
        (lambda: matmulbench.train("digits", "torch", epochs=-1), "epochs -1: expected a whole number above 0"),
        (lambda: matmulbench.train("m:f", "torch", epochs=3), "epochs 3 does not go with model 'm:f'"),
        (lambda: matmulbench.train("digits", "torch", seed=-1), "seed -1: expected a number from 0"),
        (lambda: matmulbench.train("digits", "torch", seed="x"), "seed 'x': expected a number from 0"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any], message: str
) -> None:
    monkeypatch.setattr("matmulbench.api.carry_out", lambda *_: pytest.fail("it was carried out"))
    with pytest.raises(UsageError) as raised:
        call()
    assert message in str(raised.value)


def test_one_or_several() -> None:
    assert kernel_specs("numpy") == ("numpy",)
    assert kernel_specs(iter(["numpy", "torch", "numpy"])) == ("numpy", "torch")
    assert thread_counts(1) == thread_counts("1") == thread_counts([1]) == thread_counts((1, 1)) == (1,)
    one = Workload(5, 7, 3)
    assert (
        read_workloads("5x7x3") == read_workloads((5, 7, 3)) == read_workloads(one) == read_workloads([one]) == (one,)
    )
    assert [each.dtype for each in read_workloads([(5, 7, 3), one], "float64")] == ["float64", "float32"]


@pytest.mark.parametrize("function", [lambda a, b: a @ b, product, partial(product)])
def test_a_function_becomes_a_file_that_other_processes_import(function: Callable[..., Any]) -> None:
    spec = spec_of(function)
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(load_kernel(spec)(a, b), a @ b)


def test_what_a_function_takes_is_kept() -> None:
    @numba.njit
    def compiled(a: Any, b: Any) -> Any:
        return np.dot(a, b)

    compiled.operands = "numpy"
    a = torch.ones(2, 2)
    assert torch.equal(load_kernel(spec_of(compiled))(a, a), a @ a)


def test_functions_of_one_name_are_told_apart_and_none_takes_a_rungs_name() -> None:
    def named(name: str) -> str:
        def kernel(a: Any, b: Any) -> Any:
            return a @ b

        kernel.__name__ = name
        return spec_of(kernel)

    first, second, third = named("outer"), named("outer"), named("numpy")
    rename = renaming([first, second, third, "torch"])
    assert rename(f"{first} {second} {third} torch and {first!r}") == "outer outer (2) numpy (2) torch and outer"
    assert renaming([second])(second) == "outer"


@pytest.mark.usefixtures("shared_bench")
def test_what_is_found_of_a_function_is_repeated_in_python() -> None:
    spec = spec_of(product)
    rename = renaming([spec])
    assert (
        rename(f"`matmulbench verify {spec} --case 2x2x1:TN,7`") == "`matmulbench.verify(product, case='2x2x1:TN,7')`"
    )
    assert rename(f"`matmulbench verify {spec} --dtype float32`") == "`matmulbench.verify(product, 'float32')`"
    again = matmulbench.verify(product, case="2x2x1:TN,7")
    assert again[["kernel", "dtype", "status"]].to_numpy().tolist() == [["product", "float32", "ok"]]


def test_a_function_that_cannot_be_sent_is_told_what_to_do() -> None:
    lock = threading.Lock()

    def guarded(a: Any, b: Any) -> Any:
        with lock:
            return a @ b

    with pytest.raises(UsageError, match=r"kernel guarded: it cannot be sent .* name it as path/to/file.py:function"):
        spec_of(guarded)


@pytest.mark.usefixtures("shared_bench")
def test_functions_are_verified_measured_and_trained_under_their_names() -> None:
    def wrong(a: Any, b: Any) -> Any:
        return 1.001 * (a @ b)

    rows = matmulbench.verify([product, wrong], "float32", "quick").set_index("kernel")
    assert rows.loc["product", "status"] == "ok", rows.loc["product", "finding"]
    assert rows.loc["wrong", "status"] == "failed-verification"
    assert "verify(wrong, case='1x1x1')" in rows.loc["wrong", "finding"]
    measured = matmulbench.measure(product, (8, 8, 8), budget_s=0.1).set_index("kernel")
    assert measured.loc["product", "status"] == "ok"
    assert measured.loc["torch", "verdict"] == "baseline"


def test_the_api_is_listed() -> None:
    assert set(matmulbench.__all__) == set(dir(matmulbench))
    assert all(getattr(matmulbench, name) for name in matmulbench.__all__)


@pytest.mark.usefixtures("shared_bench")
def test_an_import_that_takes_too_long_is_told_of_the_option(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(0.5)\ndef matmul(a, b):\n    return a @ b\n")
    late = matmulbench.verify(f"{slow}:matmul", "float32", "quick", import_timeout_s=0.1)
    assert list(late["status"]) == ["timeout"]
    assert "its import takes longer than 0.1 s; --import-timeout gives it more" in late["finding"][0]
    assert list(matmulbench.verify(f"{slow}:matmul", "float32", "quick")["status"]) == ["ok"]


def test_a_mistyped_function_of_the_projects_module_is_said_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    os.makedirs("src/my_package")
    Path("src/my_package/__init__.py").touch()
    Path("src/my_package/fast.py").write_text("raise SystemExit\nfrom numpy import dot\ndef matmul(a, b): ...\n")
    assert find_kernel("my_package.fast:matmul") == "my_package.fast:matmul"
    assert find_kernel("my_package.fast:dot") == "my_package.fast:dot"
    with pytest.raises(UsageError, match=r"kernel 'my_package\.fast:matmull': no function 'matmull'; it has: matmul"):
        find_kernel("my_package.fast:matmull")
