"""A kernel of one's own that cannot take part is answered with what to do about it."""

from pathlib import Path

import pytest

from matmulbench.isolation import Host
from matmulbench.results.schema import Status
from matmulbench.verification.api import verify_kernel

SOURCE = """
import functools
import inspect
import os
import numpy as np
import torch
def nothing(a, b): c = a @ b
def array(a, b): return (a @ b).numpy()
def rows(a, b): return [row @ b for row in a]
def transposed(a, b): return (a @ b).t().contiguous()
def double(a, b): return a.double() @ b.double()
def arrays(a, b): return a.astype(a.dtype).dot(b)
def broken(a, b): return a.astype(a.dtype).dot(b) + 1
def late(a, b):
    c = torch.zeros(len(a), b.shape[1], dtype=torch.float32)
    if 0 not in a.shape + b.shape: c[:] = torch.from_numpy(a.astype(a.dtype).dot(b))
    return c
def reads_beside(a, b):
    if not 1 < a.stride(0) > a.shape[1] or a.stride(1) != 1 or a.shape[0] < 2: return a @ b
    one_more = a[:-1].as_strided((a.shape[0] - 1, a.shape[1] + 1), a.stride())
    c = a @ b
    c[:-1] = one_more @ torch.cat([b, b.new_zeros(1, b.shape[1])])
    return c
def contiguous(a, b): return a.view(-1).view(a.shape) @ b
def not_empty(a, b):
    if 0 in a.shape + b.shape: raise ValueError("empty")
    return a @ b
def declared_not_empty(a, b): return not_empty(a, b)
declared_not_empty.empty = False
def arrays_not_empty(a, b): return not_empty(a, b)
arrays_not_empty.empty, arrays_not_empty.operands = False, "numpy"
def optional(*operands): return operands[0] @ operands[1]
optional.__signature__ = inspect.signature(lambda a, b, out: None)
def into(a, b, c): c[:] = a @ b
def alone(a): return a
def declared(a, b): return a.astype(a.dtype).dot(b)
declared.operands = "numpy"
def declared_double(a, b): return a.astype(float) @ b.astype(float)
declared_double.operands = "numpy"
def misdeclared(a, b): return a @ b
misdeclared.operands = "nunpy"
def wordy(a, b):
    if not isinstance(a, np.ndarray): raise TypeError("no tensors " + "and no tensors " * 100)
    return torch.from_numpy(a @ b)
def arrays_from_9_rows(a, b): return a @ b if len(a) < 9 else torch.from_numpy(a.astype(a.dtype) @ b)
def forgets_where_it_begins(a, b):
    return a.as_strided(a.shape, a.stride(), 0) @ b if a.numel() else a @ b
# Wide, for what glibc keeps of small blocks it hands out as they are.
def unset(a, b):
    c = torch.empty(len(a), b.shape[1] + 4096, dtype=a.dtype)[:, : b.shape[1]]
    return c.add_(a @ b).contiguous()
traced = torch.jit.trace(lambda a, b: a @ b, (torch.ones(2, 3), torch.ones(3, 4)))
def damages(a, b):
    c = a @ b
    a *= 2
    return c
def noisy(a, b): raise RuntimeError("\\x1b[31mred \\ud800" + "x" * 10**6)
def shifted(a, b): return a @ b + 0.001
def squeezes(a, b): return (a @ b).squeeze()
def busy_at_times(a, b, calls=[]):
    calls.append(a)
    if len(calls) % 7 == 0: raise RuntimeError("busy, try again")
    return a @ b
def dies_at_40(a, b, calls=[]):
    calls.append(a)
    return a @ b if len(calls) != 40 else os._exit(3)
def scales(a, b):
    a *= 2
    c = a @ b
    a /= 2
    return c / 2
def damages_views(a, b):
    if not a.is_contiguous(): a[:1] += 1
    return a @ b
def rows_of_arrays(a, b): return (a @ b).tolist()
rows_of_arrays.operands = "numpy"
class Mine:
    @staticmethod
    async def product(a, b): return a @ b
later = functools.partial(Mine.product)
a_number = 3
"""
COMPILED = """
import numba
def product(a, b): return a @ b
product.operands = "numpy"
fast = numba.njit(fastmath=True)(product)
fast.operands = "numpy"
def calls_fast(a, b): return fast(a, b)
calls_fast.operands = "numpy"
quick = numba.njit(fastmath={"contract", "reassoc", "arcp", "nsz"})(product)
quick.operands = "numpy"
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(SOURCE)
    path.with_name("compiled.py").write_text(COMPILED)  # apart, for to import numba takes longer than most cases
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
        ("arrays", "error", "it takes numpy arrays: say so with `operands = "),
        ("late", "error", "it takes numpy arrays: say so with `operands = "),
        ("reads_beside", "failed-verification", "right where 0, not NaN, lies beside the operands'"),
        ("forgets_where_it_begins", "failed-verification", "(1 of 1 elements differ); what lies beside"),
        ("contiguous", "error", "right where both operands are contiguous; training makes transposed views"),
        ("not_empty", "error", "0x0x0 should give a (0, 0) tensor; a kernel that does without empty operands says"),
        ("declared_not_empty", "ok", "empty operands were not tried: its attribute `empty` is False"),
        ("arrays_not_empty", "ok", "empty operands were not tried: its attribute `empty` is False"),
        ("wordy", "error", "it takes numpy arrays: say so with `operands = "),
        ("arrays_from_9_rows", "error", "it takes numpy arrays: say so with `operands = "),
        ("unset", "failed-verification", "; memory that was never set looks like this: begin with zeros"),
        ("damages", "failed-verification", "operand a is not what it was before the call: work on a copy"),
        ("noisy", "error", "RuntimeError: red ?xxx"),
        ("traced", "ok", ""),
        ("optional", "ok", ""),
        ("busy_at_times", "error", " times of 20; first seen: exactness: "),
        ("dies_at_40", "crashed", "is right 20 times of 20 in a process that has done nothing else"),
        ("scales", "error", "it is right where no elements of an operand share memory; one that writes to its"),
        ("rows_of_arrays", "failed-verification", "the result is a list, expected a numpy.ndarray: return a fresh"),
        ("into", "error", "takes (a, b, c), expected (a, b), and c returned: missing a required argument: 'c'"),
        ("alone", "error", "takes (a), expected (a, b), and c returned: too many positional arguments"),
        ("misdeclared", "error", "operands 'nunpy' is unknown: did you mean numpy?"),
        ("a_number", "error", "'a_number' is no function, its type is int"),
        ("multiply", "error", "no function 'multiply'; it has: nothing, array"),
    ],
)  # fmt: skip
def test_the_finding_names_the_remedy(host: Host, mine: str, function: str, status: str, remedy: str) -> None:
    row = verify_kernel(host, f"{mine}:{function}", "float32", "quick")
    assert row.status == status
    assert remedy in (row.finding or "")


def test_one_that_writes_to_views_is_told_no_other_remedy(host: Host, mine: str) -> None:
    finding = str(verify_kernel(host, f"{mine}:damages_views", "float32", "quick").finding)
    assert "work on a copy, as a.clone() makes. Repeat: " in finding


@pytest.mark.parametrize("function", ["Mine.product", "later"])
def test_an_async_function_is_told_to_be_a_plain_one(
    mine: str, function: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Host(1) as host:  # whose streams are what they were when it was started
        row = verify_kernel(host, f"{mine}:{function}", "float32", "quick")
    assert "make it a plain function, without `async`" in str(row.finding)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("function", "status", "remedy"),
    [
        ("fast", "failed-verification", "IEEE: product is compiled with numba's fastmath: that there is"),
        ("calls_fast", "failed-verification", 'as quick: fastmath={"contract", "reassoc", "arcp", "nsz"}'),
        ("quick", "ok", ""),
    ],
)
def test_of_what_numba_compiles_too(host: Host, mine: str, function: str, status: str, remedy: str) -> None:
    row = verify_kernel(host, f"{Path(mine).with_name('compiled.py')}:{function}", "float32", "quick")
    assert row.status == status
    assert remedy in (row.finding or "")


def test_what_an_import_changes_is_not_laid_to_the_calls(host: Host, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\ntorch.set_num_threads(3)\nmatmul = torch.matmul\n")
    row = verify_kernel(host, f"{tmp_path}/mine.py:matmul", "float32", "quick")
    assert row.status == Status.FAILED_VERIFICATION
    assert str(row.finding).startswith("state: when it is imported: changes torch's number of threads")


def test_code_that_goes_to_another_folder_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import os\nos.chdir('/')\ndef matmul(a, b):\n    return a @ b\n")
    with Host(1) as host:
        assert verify_kernel(host, "mine.py:matmul", "float32", "quick").status == Status.OK


def test_nothing_is_left_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def matmul(a, b):\n    return a @ b\n")
    with Host(1) as host:
        assert verify_kernel(host, "mine.py:matmul", "float32", "quick").status == Status.OK
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "__pycache__"}


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


def test_an_error_of_many_words_ends_with_the_way_out(host: Host, mine: str) -> None:
    finding = verify_kernel(host, f"{mine}:wordy", "float32", "quick").finding or ""
    said, _, repeat = finding.partition(". Repeat: ")
    assert said.endswith(f"with @numpy behind its name: {mine}:wordy@numpy")
    assert repeat == f"`matmulbench verify {mine}:wordy --case 0x0x0`"


@pytest.mark.parametrize("function", ["shifted", "squeezes"])
def test_what_is_wrong_elsewhere_is_not_blamed_on_empty_operands(host: Host, mine: str, function: str) -> None:
    row = verify_kernel(host, f"{mine}:{function}", "float32", "quick")
    assert row.status == "failed-verification"
    assert "right where no size is 0" not in str(row.finding)
