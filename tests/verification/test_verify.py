import re
import shlex
import time

import numpy as np
import psutil
import pytest

from matmulbench import verify
from matmulbench.audit.mutants.right import strassen
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import load_kernel
from matmulbench.results.schema import columns
from matmulbench.verification.api import agreement, repeat_case, verify_kernel
from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest, WrongError
from matmulbench.verification.search import check_large, check_mismatches
from matmulbench.verification.shapes import full_precision
from matmulbench.verification.worker import examine

MUTANTS = "matmulbench.audit.mutants"


@pytest.fixture
def host(checking_host):
    return checking_host


@pytest.mark.parametrize("spec", ["triple-loop", "numpy-einsum", "numba", "numba-tiled", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ladder_passes(host, spec, dtype):
    row = verify_kernel(host, spec, dtype, "quick")
    assert (row.status, row.verdict) == ("ok", "pass"), row.finding
    assert 0 < row.residual <= 1
    assert row.cases > 500


def test_a_finding_names_property_case_values_and_a_command_that_repeats_it(host):
    spec = f"{MUTANTS}.wrong_values:k_tail_8"
    row = verify_kernel(host, spec, "float32", "quick")
    assert (row.status, row.verdict) == ("failed-verification", "fail")
    assert row.finding.startswith("exactness: 1x9x1 float32, ")
    assert "expected exactly" in row.finding
    line = row.finding.partition("Repeat: `")[2].removesuffix("`")
    *command, case = shlex.split(line)
    assert command == ["matmulbench", "verify", spec, "--case"]
    again, seen = repeat_case(host, spec, Case.parse(case))
    assert again.finding == row.finding.partition(". Repeat")[0]
    assert again.status == "failed-verification"
    expected, got = seen["expected"].strip("[].\n"), seen["got"].strip("[].\n")
    assert f"c[0, 0] is {got}, expected exactly {expected}" in again.finding
    assert seen["a"].startswith("(1, 9), contiguous\n[[")


def test_a_right_kernel_passes_a_case_and_a_crash_there_is_reported(host):
    row, seen = repeat_case(host, "numpy", Case.parse("2x3x4:TN,float64,scaled,7"))
    assert (row.status, row.verdict, row.dtype) == ("ok", "pass", "float64")
    assert "(2, 3), a transposed view" in seen["a"]
    row, seen = repeat_case(host, f"{MUTANTS}.calls:raises", Case.parse("2x3x4"))
    assert row.status == "error"
    assert row.finding.startswith("2x3x4 float32, integers, seed 0: ")
    assert not seen["got"]
    assert seen["expected"]


def test_the_smallest_case_is_found(host):
    row = verify_kernel(host, f"{MUTANTS}.wrong_values:square_b_transposed", "float32", "quick")
    assert row.finding.startswith("exactness: 1x2x2 float32"), row.finding


def test_a_crash_is_reported_with_its_shape(host):
    row = verify_kernel(host, f"{MUTANTS}.operands:vector_overread", "float32", "default")
    assert row.status == "crashed"
    assert row.verdict is None
    assert row.finding.startswith("memory safety: ")
    assert "SIGSEGV" in row.finding
    assert f". Repeat: `matmulbench verify {MUTANTS}.operands:vector_overread --" in row.finding


def test_a_hang_is_reported_with_its_shape(host):
    row = verify_kernel(host, f"{MUTANTS}.calls:endless_at_17", "float32", "quick", silence_limit=1)
    assert row.status == "timeout"
    assert "x17 float32" in row.finding


def test_an_unknown_kernel_is_an_error_and_the_host_goes_on(host):
    assert verify_kernel(host, "no-such-kernel", "float32", "quick").status == "error"
    assert verify_kernel(host, "torch", "float32", "quick").status == "ok"


@pytest.mark.usefixtures("shared_bench")
def test_the_table_has_the_columns_of_the_file():
    frame = verify([f"{MUTANTS}.wrong_values:ones", "numpy"], ["float64"], "quick")
    assert list(frame.columns) == columns("verification")
    assert list(frame.status) == ["failed-verification", "ok"]


def test_kernels_agree_within_twice_the_bound(host):
    square = agreement(host, ["numpy", "torch", "row-slice", f"{MUTANTS}.calls:raises"], "float32")
    right = square.iloc[:3, :3].to_numpy()
    assert (np.diag(right) == 0).all()
    assert (right <= 2).all()
    assert right.max() > 0
    assert square.iloc[3].isna().all()


def test_a_wrong_kernel_stands_out_in_the_matrix(host):
    square = agreement(host, ["numpy", f"{MUTANTS}.wrong_values:tf32"], "float32")
    assert square.iloc[0, 1] > 100


def test_one_property_can_be_examined_alone():
    assert examine("torch", "float32", only="earlier calls")["row"]["finding"] is None
    assert examine(f"{MUTANTS}.wrong_values:zeros_skipped", "float32", only="IEEE")["row"]["finding"].startswith(
        "IEEE: "
    )


ROUNDING = """
def matmul(a, b):
    if (*a.shape, b.shape[1]) == {shape}:
        mantissa, exponent = {operand}.frexp()
        {operand} = (mantissa * 2**{bits}).round().ldexp(exponent - {bits})
    return a @ b
"""


@pytest.mark.parametrize(
    ("operand", "shape", "dtype", "bits"),
    [
        ("a", (5, 784, 10), "float32", 16),
        ("b", (5, 784, 10), "float64", 52),
        ("a", (64, 784, 50), "float32", 23),
        ("b", (50_000, 784, 50), "float32", 22),
        ("b", (2, 100_000, 3), "float64", 40),
    ],
)
def test_operands_rounded_at_one_shape_alone_are_found(tmp_path, operand, shape, dtype, bits):
    mine = tmp_path / "mine.py"
    mine.write_text(ROUNDING.format(operand=operand, shape=shape, bits=bits))
    spec = f"{mine}:matmul"
    kernel = KernelUnderTest(spec, load_kernel(spec), dtype, prop="full precision")

    def of_its_kind(case):  # as all others are right
        return sum(x == y for x, y in zip((case.m, case.k, case.n), shape, strict=True)) >= 2

    with pytest.raises(WrongError) as found:
        check_large(kernel, filter(of_its_kind, full_precision(dtype)), 100.0)
    assert str(found.value).startswith(f"full precision: {'x'.join(map(str, shape))}")
    with pytest.raises(WrongError, match=re.escape(found.value.detail)):
        kernel.check(Case.parse(found.value.repeat.strip("`").split()[-1]))


OF_SHARED = """
import torch
def one_object(a, b):
    return a.clone() if a is b else a @ b
def one_memory(a, b):
    return torch.zeros(len(a), b.shape[1]) if a.data_ptr() == b.data_ptr() and a.numel() else a @ b
def equal(a, b):
    return (a @ b).triu() if a.numel() and torch.equal(a, b) else a @ b
"""


@pytest.mark.parametrize("name", ["one_object", "one_memory", "equal"])
def test_a_matrix_is_multiplied_by_itself_too(tmp_path, name):
    (tmp_path / "mine.py").write_text(OF_SHARED)
    finding = examine(f"{tmp_path / 'mine.py'}:{name}", "float32", only="addresses")["row"]["finding"]
    assert str(finding).startswith("addresses: x and ")


IN_PART = """
def long_sums(a, b):
    k = a.shape[1]
    return (a.bfloat16() @ b.bfloat16()).to(a.dtype) if k and k % 192 == 0 else a @ b
def many_rows(a, b):
    c = a @ b
    c[65536:] = 0
    return c
"""


@pytest.mark.parametrize(("name", "prop"), [("long_sums", "full precision"), ("many_rows", "large sizes")])
def test_widths_of_nets_and_what_16_bits_cannot_count_are_tried(tmp_path, name, prop):
    (tmp_path / "mine.py").write_text(IN_PART)
    finding = examine(f"{tmp_path / 'mine.py'}:{name}", "float32", effort="quick")["row"]["finding"]
    assert str(finding).startswith(f"{prop}: ")


def test_results_in_a_ring_of_buffers_are_called_so(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nring = [torch.empty(15) for _ in range(8)]\ndef matmul(a, b):\n    ring.append(ring.pop(0))\n"
        "    return torch.mm(a, b, out=ring[0].view(3, 5)) if a.shape == (3, 4) else a @ b\n"
    )
    finding = examine(f"{tmp_path}/mine.py:matmul", "float32", only="benchmark-awareness")["row"]["finding"]
    assert finding.startswith("result: ")
    assert "results of several calls share memory" in finding


def test_what_setup_prepared_serves_more_than_once(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def keeps(a, b): return a @ b[0]\ndef spends(a, b): return a @ b.pop()\n"
        "keeps.setup = spends.setup = lambda b: [b]\n"
    )
    row = examine(f"{tmp_path}/mine.py:keeps", "float32", only="earlier calls")["row"]
    assert row["finding"] is None
    with pytest.raises(IndexError, match="pop from empty list"):
        examine(f"{tmp_path}/mine.py:spends", "float32", only="earlier calls")


def test_what_changes_no_result_is_a_kernels_own_affair(host, tmp_path):
    change = "np.seterr(all='ignore'); gc.disable(); sys.setprofile(lambda *_: None)"
    (tmp_path / "mine.py").write_text(
        f"import gc, sys\nimport numpy as np\ndef matmul(a, b):\n    {change}\n    return a @ b\n"
    )
    assert verify_kernel(host, f"{tmp_path}/mine.py:matmul", "float32", "quick").finding is None


def test_one_that_sets_handlers_of_signals_is_right_and_still_checked_in_loops(host, tmp_path):
    text = """import signal
calls = 0
def matmul(a, b):
    global calls
    calls += 1
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    return a @ b{}
"""
    for name, spoilt in (("right", ""), ("wrong", " + (calls % 50 == 49 and a.shape == (3, 4))")):
        (tmp_path / f"{name}.py").write_text(text.format(spoilt))
    row = verify_kernel(host, f"{tmp_path}/right.py:matmul", "float32", "quick")
    assert (row.status, row.finding) == ("ok", "it sets handlers of signals, and so works in the main thread alone")
    found = examine(f"{tmp_path}/wrong.py:matmul", "float32", only="benchmark-awareness")["row"]
    assert found["verdict"] == "fail"
    assert "in a thread of its own" not in found["finding"]


def test_an_algorithm_of_strassens_type_may_lose_bits_of_sums():
    kernel = KernelUnderTest("strassen", strassen, "float32")
    check_large(kernel, (case for case in full_precision("float32") if case.volume < 10**8), 0.1)
    assert "all-bits" in kernel.normwise[1]


def test_operands_that_do_not_match_must_be_refused(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("def matmul(a, b):\n    return a[:, : len(b)] @ b[: a.shape[1]]\nmatmul.operands = 'numpy'\n")
    finding = examine(f"{mine}:matmul", "float32", only="shape mismatch")["row"]["finding"]
    assert finding.startswith("shape mismatch: a (3, 4), b (5, 6) float32: returns a result, though the inner sizes 4")


@pytest.mark.parametrize("spec", [rung.name for rung in LADDER])
def test_every_rung_refuses_operands_that_do_not_match(spec):
    kernel = KernelUnderTest(spec, load_kernel(spec), "float64")
    check_mismatches(kernel)
    assert not kernel.notes


def test_processes_that_a_kernel_leaves_behind_are_named_and_end_with_it(host, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(LEAVES.format(pid=str(tmp_path / "pid")))
    row = verify_kernel(host, f"{mine}:matmul", "float32", "quick")
    assert row.status == "ok"
    assert row.finding == "leaves processes behind after its calls, which end with its own: 1 sleep"
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while (alive := _runs(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


LEAVES = """
import pathlib, subprocess
left = []
def matmul(a, b):
    if not left:
        left.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
        pathlib.Path({pid!r}).write_text(str(left[0].pid))
    return a @ b
"""
