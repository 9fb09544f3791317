"""The command on machines as they are, with kernels that need more than a plain call: limits, pinned threads, pools."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matmulbench.errors import UsageError
from matmulbench.isolation.system import cores
from matmulbench.measurement.conditions import _CHANGE_SPEED, variables
from matmulbench.pipeline import Job
from matmulbench.workload import FIRST

POOLED = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

pool = None


def product(a, b):
    return a @ b


def matmul(a, b):
    global pool
    if pool is None:
        pool = ProcessPoolExecutor(1, get_context("forkserver"))
    return pool.submit(product, a, b).result()
"""
FREE = """
import os
import torch

torch.ones(1_000_000).sum()  # torch starts its threads
assert len(os.sched_getaffinity(0)) > 1, "kept to one core"


def matmul(a, b):
    return a @ b
"""
GENERALISED = """
from numba import float32, guvectorize, void


@guvectorize([void(float32[:, :], float32[:, :], float32[:, :])], "(m,k),(k,n)->(m,n)")
def matmul(a, b, c):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = 0
            for k in range(a.shape[1]):
                c[i, j] += a[i, k] * b[k, j]
"""


Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, brief_bin: Path) -> Shell:
    """Return a function that runs a line of a shell in a folder."""
    environment = os.environ | {"PATH": f"{brief_bin}{os.pathsep}{os.environ['PATH']}"}

    def in_shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return in_shell


@pytest.mark.posix
def test_a_hard_limit_of_memory_is_no_fault_of_a_kernel(run: Shell) -> None:
    done = run("ulimit -v 12000000; matmulbench verify numpy --dtype float32")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.posix
def test_a_limit_of_processor_time_is_told_before_it_kills(run: Shell) -> None:
    code = "import resource; from matmulbench.isolation.system import limit; limit(2**50); print(resource.getrlimit(0))"
    assert run(f"ulimit -t 77; {sys.executable} -c '{code}'").stdout == "(76, 77)\n"


@pytest.mark.posix
def test_a_folder_that_is_gone_is_said(run: Shell) -> None:
    done = run("mkdir gone; cd gone; rmdir ../gone; matmulbench list")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "matmulbench: the current folder no longer exists: change to another\n"


def test_variables_that_change_how_fast_libraries_are_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _CHANGE_SPEED:
        monkeypatch.delenv(name, raising=False)
    assert variables() == []
    monkeypatch.setenv("ONEDNN_VERBOSE", "0")
    monkeypatch.setenv("MKL_VERBOSE", "1")
    assert variables() == ["MKL_VERBOSE is set: libraries may be slower or faster for it"]


def test_without_a_compiler_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(UsageError, match="NUMBA_DISABLE_JIT is set"):
        Job(("torch",), workloads=((FIRST, 1.0),))
    Job(("torch",), dtypes=("float32",))  # to verify needs no clock


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(cores()) < 2, reason="needs two cores to choose from")
def test_variables_that_bind_threads_do_not_keep_children_to_one_core(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FREE)
    variables = "OMP_PROC_BIND=close GOMP_CPU_AFFINITY=0"
    alone = run(f"OMP_NUM_THREADS=2 {variables} {sys.executable} mine.py")
    assert "kept to one core" in alone.stderr  # elsewhere, they do
    done = run(f"{variables} matmulbench verify mine.py:matmul --dtype float32")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def verified(
    shared_bench: object, quick_verification: None, matmulbench: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """Return a function that verifies the kernel in a file of this content."""

    def verify(source: str, *options: str) -> Any:
        path = tmp_path / "mine.py"
        path.write_text(source)
        return matmulbench("verify", f"{path}:matmul", "--dtype", "float32", *options)

    return verify


@pytest.mark.parametrize("source", [POOLED, GENERALISED], ids=["a pool of processes", "a generalised ufunc"])
def test_a_kernel_works_as_it_does_when_it_is_imported(verified: Callable[..., Any], source: str) -> None:
    done = verified(source, "--operands", "numpy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_threads_that_an_import_sets_are_the_imports_doing(verified: Callable[..., Any]) -> None:
    done = verified("import torch\ntorch.set_num_threads(1)\n\n\ndef matmul(a, b):\n    return a @ b\n")
    assert "after its calls" not in done.stdout
    assert "when it is imported" in done.stdout
