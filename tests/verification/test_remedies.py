"""A kernel of one's own that cannot take part is answered with what to do about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matmulbench.isolation import Host
from matmulbench.results.schema import Status
from matmulbench.verification import verify_kernel

SOURCE = """
import numpy as np
def nothing(a, b): c = a @ b
def array(a, b): return (a @ b).numpy()
def rows(a, b): return [row @ b for row in a]
def transposed(a, b): return (a @ b).t().contiguous()
def double(a, b): return a.double() @ b.double()
def arrays(a, b): return a.astype(a.dtype).dot(b)
def broken(a, b): return a.astype(a.dtype).dot(b) + 1
def into(a, b, c): c[:] = a @ b
def alone(a): return a
def declared(a, b): return a.astype(a.dtype).dot(b)
declared.operands = "numpy"
def declared_double(a, b): return a.astype(float) @ b.astype(float)
declared_double.operands = "numpy"
def misdeclared(a, b): return a @ b
misdeclared.operands = "nunpy"
a_number = 3
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(1) as host:
        yield host


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.mark.parametrize(
    ("function", "status", "remedy"),
    [
        ("nothing", "failed-verification", "the result is None, expected a torch.Tensor: end the function"),
        ("array", "failed-verification", "is a numpy.ndarray, expected a torch.Tensor: return torch.from_numpy(c)"),
        ("rows", "failed-verification", "the result is a list, expected a torch.Tensor: return a fresh one of"),
        ("transposed", "failed-verification", "a row for each of a's, a column for each of b's"),
        ("double", "failed-verification", "is torch.float64, expected torch.float32: make it with dtype=a.dtype"),
        ("declared_double", "failed-verification", "make it with dtype=a.dtype"),
        ("arrays", "error", "it takes numpy arrays: say so with --operands numpy"),
        ("into", "error", "takes (a, b, c), expected (a, b), and c returned: missing a required argument: 'c'"),
        ("alone", "error", "takes (a), expected (a, b), and c returned: too many positional arguments"),
        ("misdeclared", "error", "operands 'nunpy' is unknown: did you mean numpy?"),
        ("a_number", "error", "'a_number' is no function, its type is int"),
        ("multiply", "error", "no function 'multiply'; there are nothing, array"),
    ],
)  # fmt: skip
def test_the_finding_names_the_remedy(host: Host, mine: str, function: str, status: str, remedy: str) -> None:
    row = verify_kernel(host, f"{mine}:{function}", "float32", "quick")
    assert row.status == status
    assert remedy in (row.finding or "")


def test_a_kernel_that_is_wrong_on_arrays_too_is_not_said_to_take_them(host: Host, mine: str) -> None:
    row = verify_kernel(host, f"{mine}:broken", "float32", "quick")
    assert row.status == Status.ERROR
    assert "numpy" not in (row.finding or "")


@pytest.mark.parametrize("spec", ["arrays@numpy", "declared"])
def test_a_kernel_of_arrays_is_right_where_that_is_said(host: Host, mine: str, spec: str) -> None:
    assert verify_kernel(host, f"{mine}:{spec}", "float32", "quick").status == Status.OK


def test_what_a_module_needs_is_named(host: Host, tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import no_such_library\n\ndef matmul(a, b):\n    return a @ b\n")
    row = verify_kernel(host, f"{tmp_path}/needy.py:matmul", "float32", "quick")
    assert row.status == Status.UNAVAILABLE
    assert row.finding == "import: No module named 'no_such_library'; install no_such_library beside matmulbench"
