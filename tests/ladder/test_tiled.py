"""``numba-tiled`` takes another path for another shape: each is met here, with every width of vectors."""

import contextlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numba
import psutil
import pytest
import torch

import matmulbench
from matmulbench.ladder.tiled import kernel
from matmulbench.ladder.tiled.kernel import matmul
from matmulbench.ladder.tiled.plan import OPTIONS, SHAPES
from matmulbench.tuning import CHECKED, TIMED
from matmulbench.workload import Workload

SIZES = [1, 2, 5, 7, 8, 13, 16, 17, 31, 33, 50, 64, 65, 100, 130, 257, 300, 513]
VIEWS = ["plain", "transposed", "strided", "window", "expanded"]


def operand(rows, columns, dtype, view, generator):
    def draw(rows, columns):
        return torch.randn(rows, columns, dtype=dtype, generator=generator)

    match view:
        case "transposed":
            return draw(columns, rows).t()
        case "strided":
            return draw(2 * rows, 3 * columns)[::2, 1::3]
        case "window":
            return draw(rows + 3, columns + 5)[2 : 2 + rows, 1 : 1 + columns]
        case "expanded":
            return draw(rows, 1).expand(rows, columns)
    return draw(rows, columns)


def judged(a, b):
    """Return the product in float64, and for each element k·u·(|A||B|), the classical bound (Higham, 2002, 3.5).

    Sums of bfloat16 are to be kept in float32.
    """
    exact = a.double() @ b.double()
    k, u = a.shape[1], torch.finfo(torch.float64 if a.dtype == torch.float64 else torch.float32).eps / 2
    bound = 1.01 * (k + 1) * u * (a.double().abs() @ b.double().abs())
    if a.dtype == torch.bfloat16:
        bound += 2**-8 * exact.abs()
    return exact, bound


def assert_within_bound(a, b, by=None):
    """Hold each element to its bound; return the product."""
    c, (exact, bound) = matmul(a, b), by or judged(a, b)
    assert c.dtype == a.dtype
    assert bool(((c.double() - exact).abs() <= bound).all()), (a.dtype, a.shape, b.shape)
    return c


@cache
def checked(text, dtype):
    """Return the operands of a workload, the same for each option of a plan, and what judges their product."""
    a, b = Workload.parse(text, dtype).operands()
    return a, b, judged(a, b)


def meet_random_shapes(seed, count):
    generator = torch.Generator().manual_seed(seed)

    def pick(values):
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    for _ in range(count):
        m, k, n = pick(SIZES), pick(SIZES), pick(SIZES)
        dtype = pick([torch.float32, torch.float64, torch.bfloat16])
        a, b = operand(m, k, dtype, pick(VIEWS), generator), operand(k, n, dtype, pick(VIEWS), generator)
        assert_within_bound(a, b)


@pytest.mark.parametrize("seed", range(2))
def test_random_shapes_and_strides(seed):
    meet_random_shapes(seed, 500)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("m", "k", "n", "left", "right"),
    [
        (5, 784, 10, "plain", "plain"),  # in place, lanes masked
        (300, 784, 50, "plain", "plain"),  # blocks, the last columns along k
        (784, 600, 50, "transposed", "plain"),  # blocks, the last columns along m
        (20, 784, 30, "plain", "transposed"),  # nothing but vectors along k
        (400, 30, 1, "transposed", "plain"),  # one column, along m
        (129, 16, 129, "transposed", "plain"),  # one column for the second thread
        (3000, 20, 50, "transposed", "plain"),  # C turned part by part
        (60, 3000, 70, "transposed", "plain"),  # the next panel of B fetched meanwhile
        (300, 40, 2500, "plain", "transposed"),  # more columns than are packed at a time
        (100, 5000, 5, "transposed", "plain"),  # C turned, few columns
        (700, 50, 10, "window", "transposed"),  # upright tiles, the last columns of A masked
        (260, 2100, 150, "plain", "transposed"),  # packed panels, several blocks along k and m
        (40, 300, 2000, "window", "window"),  # columns shared out
        (12, 6001, 40, "transposed", "window"),  # steps shared out
        (2200, 9, 1000, "plain", "plain"),  # a result with huge pages, if the system has them
    ],
)
def test_each_path(m, k, n, left, right, dtype, threads):
    generator = torch.Generator().manual_seed(0)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        a, b = operand(m, k, dtype, left, generator), operand(k, n, dtype, right, generator)
        assert torch.equal(assert_within_bound(a, b), matmul(a, b))
    finally:
        numba.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [bits for bits in (128, 256, 512) if bits != 8 * kernel.VECTOR])
def test_every_other_width_of_vectors(bits):
    # Narrower than the machine's is what another machine would have; LLVM makes a wider one of two.
    code = "from test_tiled import *; import sys; meet_random_shapes(1, 150); print(kernel.VECTOR)"
    environment = os.environ | {"MATMULBENCH_VECTOR_BITS": str(bits), "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=os.path.dirname(__file__), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(bits // 8)]


def workloads_of(shape):
    return [Workload.parse(text) for text in f"{TIMED[shape]} {CHECKED[shape]}".split()]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_timed_and_checked_for_a_class_of_shapes_is_of_that_class(shape):
    assert {SHAPES[kernel._shape(one.m, one.k, one.n)] for one in workloads_of(shape)} == {shape}


def test_bfloat16_is_rounded_once_to_nearest_and_nothing_is_lost():
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).reshape(-1, 1)
    others = torch.tensor([[1.0, 1.0078125, -0.6640625, 3e38, 1e-3, 0.0]], dtype=torch.bfloat16)
    product = every.float() * others.float()  # exact, but for the largest and the smallest
    assert torch.equal(matmul(every, others).nan_to_num(7.0, -8.0, 8.0), product.bfloat16().nan_to_num(7.0, -8.0, 8.0))


def test_sums_of_bfloat16_are_kept_in_float32_from_block_to_block():
    a, b = torch.full((70, 30_000), 0.01).bfloat16(), torch.ones(30_000, 40).bfloat16()
    assert torch.equal(matmul(a, b), (a.double() @ b.double()).bfloat16())


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_each_option_of_a_plan(dtype, option):
    matmul(torch.ones(1, 1), torch.ones(1, 1))
    planned = "float32" if dtype == "bfloat16" else dtype
    try:
        for shape in SHAPES:
            kernel.use(planned, shape, (option,))
            for text in CHECKED[shape].split():
                a, b, by = checked(text, dtype)
                assert torch.equal(assert_within_bound(a, b, by), matmul(a, b)), "one plan, one answer"
    finally:
        for shape in SHAPES:
            kernel.use(planned, shape, ())


def test_a_plan_changes_what_is_done():
    a, b = Workload.parse("1200x1100x317").operands()  # packed, however many threads share it out
    before = matmul(a, b)
    try:
        kernel.use("float32", "large", ("blocks 256x256",))
        assert not torch.equal(matmul(a, b), before), "other blocks, another order of summation"
        kernel.use("float32", "large", ())
        assert torch.equal(matmul(a, b), before)
    finally:
        kernel.use("float32", "large", ())


@pytest.mark.slow
def test_the_cache_on_disk_knows_what_is_emitted(tmp_path):
    # Intrinsics stand in other files than the functions that numba keeps: a change there must not go unseen.
    package, cache = tmp_path / "matmulbench", tmp_path / "cache"
    shutil.copytree(Path(matmulbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import torch; from matmulbench.ladder.tiled.kernel import matmul; print(matmul(*torch.ones(2, 64, 64))[0, 0])"
    )

    def product():
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        return done.stdout + done.stderr

    assert product() == "tensor(64.)\n"
    kept = len(list(cache.rglob("*.nbc")))
    assert product() == "tensor(64.)\n"
    assert len(list(cache.rglob("*.nbc"))) == kept > 0, "nothing is compiled twice"
    vectors = package / "ladder" / "tiled" / "vectors.py"
    vectors.write_text(vectors.read_text().replace("builder.call(function, (x, y, z))", "builder.fsub(z, y)"))
    assert product() == "tensor(-64.)\n"


def test_without_the_global_lock_it_is_unavailable():
    code = "import sys; sys._is_gil_enabled = lambda: False; import matmulbench.ladder.tiled.kernel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: numba-tiled needs Python's global lock" in done.stderr


def test_dtypes_that_are_not_its_own_are_refused_by_name():
    with pytest.raises(TypeError, match=r"dtypes differ: a is torch.float32, b is torch.float64"):
        matmul(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"dtype torch.int64; float32, float64 or bfloat16 is needed"):
        matmul(torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64))


def test_operands_that_are_no_tensors_here_are_refused():
    with pytest.raises(TypeError, match=r"b is a list; a torch tensor is needed"):
        matmul(torch.ones(2, 2), [[1.0, 1.0]])
    with pytest.raises(TypeError, match=r"operands on meta and cpu; the CPU's memory is needed"):
        matmul(torch.ones(2, 2, device="meta"), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"``k`` differs: a is \(2, 3\), b is \(2, 2\)"):
        matmul(torch.ones(2, 3), torch.ones(2, 2))


def test_nothing_is_kept_of_operands_and_results():
    a, b = torch.ones(300, 400), torch.ones(400, 300)
    held = sys.getrefcount(a), sys.getrefcount(b), sys.getrefcount(None)
    c = matmul(a, b)
    assert sys.getrefcount(c) == 2
    for _ in range(200):
        c = matmul(a, b)
        with contextlib.suppress(ValueError):
            matmul(a, a)
    assert (sys.getrefcount(a), sys.getrefcount(b)) == held[:2]
    for _ in range(5000):
        matmul(a[:2, :2], b[:2, :2])
    assert abs(sys.getrefcount(None) - held[2]) < 2000, "what else goes on has some hundreds"
    before = psutil.Process().memory_info().rss
    for _ in range(300):
        matmul(a, b)
    assert psutil.Process().memory_info().rss < before + 50e6, "a leak would take 108 MB"


def test_no_memory_for_the_result_is_said_so():
    column = torch.ones(2**24, 1)
    with pytest.raises(RuntimeError, match="allocate"):
        matmul(column, column.t())  # 1 PiB: more than any processor addresses


def test_no_rows_or_columns_give_an_empty_product():
    assert matmul(torch.ones(0, 3), torch.ones(3, 2)).shape == (0, 2)
    assert matmul(torch.ones(2, 3), torch.ones(3, 0)).shape == (2, 0)
    assert matmul(*(torch.ones(size, dtype=torch.bfloat16) for size in ((2, 3), (3, 0)))).shape == (2, 0)
    assert torch.equal(matmul(torch.ones(2, 0), torch.ones(0, 3)), torch.zeros(2, 3))
    assert kernel.VECTOR in (16, 32, 64)
