import numpy as np
import pytest
import torch

import matmulbench
from matmulbench.dtypes import as_tensor, numpy_dtype
from matmulbench.verification.bounds import judge, judge_exact
from matmulbench.verification.ieee import find_accumulation
from matmulbench.verification.kernel import KernelUnderTest
from matmulbench.verification.worker import examine


def _summed_in(dtype):
    def kernel(a, b):
        total = torch.zeros(len(a), b.shape[1], dtype=torch.float64)
        for p in range(len(b)):
            total = (total + a[:, p : p + 1].double() * b[p].double()).to(dtype).double()
        return total.to(a.dtype)

    return kernel


@pytest.mark.parametrize(
    ("dtype", "sums"),
    [
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float16"),
        ("bfloat16", "float32"),
        ("bfloat16", "float64"),
        ("float16", "float16"),
        ("float16", "float32"),
        ("float16", "float64"),
        ("float32", "bfloat16"),
        ("float32", "float32"),
        ("float32", "float64"),
    ],
)
def test_the_dtype_of_the_sums_is_found(dtype, sums):
    kernel = KernelUnderTest("mine", _summed_in(getattr(torch, sums)), dtype)
    assert find_accumulation(kernel) == sums


def test_a_bfloat16_result_is_rounded_once_and_to_even():
    dtype = numpy_dtype("bfloat16")
    a, b = np.array([[256, 1, 0], [256, 3, 0]]).astype(dtype), np.ones((3, 1)).astype(dtype)
    assert judge_exact(a, b, np.array([[256], [260]]).astype(dtype)).verdict == "pass"
    assert judge_exact(a, b, np.array([[258], [260]]).astype(dtype)).verdict != "pass"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_bound_allows_float32_sums_and_not_the_operands_own(dtype):
    rng = np.random.default_rng(2)
    a, b = (rng.random(shape).astype(numpy_dtype(dtype)) for shape in ((3, 500), (500, 2)))
    right, narrow = (
        _summed_in(sums)(as_tensor(a), as_tensor(b)).double().numpy().astype(a.dtype)
        for sums in (torch.float32, getattr(torch, dtype))
    )
    assert judge(a, b, right).verdict == "pass"
    assert judge(a, b, narrow).verdict == "fail"
    assert judge(a, b, narrow, accumulation=dtype).verdict == "pass"


def test_a_norm_bound_that_would_allow_zeros_is_none():
    ones = np.ones((64, 64)).astype(numpy_dtype("bfloat16"))
    assert judge(ones, ones, 0 * ones, accumulation="bfloat16").verdict == "fail"


KERNELS = """
import torch
def summed(a, b):
    assert a.shape[1] == len(b)
    total = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
    for p in range(len(b)):
        total = total + a[:, p : p + 1] * b[p]
    return total
def declared(a, b):
    return summed(a, b)
declared.accumulation = "bfloat16"
def cut(a, b):
    k = len(b) if len(b) < 48 else len(b) - len(b) % 3
    return a[:, :k] @ b[:k]
def arrays(a, b):
    return torch.from_numpy(a.numpy() @ b.numpy())
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_no_dtype_is_blamed_for_what_it_does_not_explain(tmp_path, dtype):
    (tmp_path / "kernels.py").write_text(KERNELS)
    finding = str(examine(f"{tmp_path}/kernels.py:cut", dtype, effort="quick")["row"]["finding"])
    assert "differ" in finding
    assert "accumulates in" not in finding


@pytest.mark.usefixtures("shared_bench")
def test_what_a_kernel_adds_in_is_said_and_may_be_declared(tmp_path):
    file = tmp_path / "kernels.py"
    file.write_text(KERNELS)
    specs = [f"{file}:{name}" for name in ("summed", "declared", "arrays")] + ["torch", "triple-loop"]
    rows = matmulbench.verify(specs, "bfloat16", effort="quick").set_index("kernel")
    summed, declared, arrays, torchs, loop = (rows.loc[spec] for spec in specs)
    assert summed.status == "failed-verification"
    assert (
        'accumulates in bfloat16; a kernel that is to do so says it with an attribute `accumulation = "bfl'
        in summed.finding
    )
    assert (declared.status, declared.finding) == ("ok", "accumulates in bfloat16")
    assert arrays.status == "unavailable"
    assert arrays.finding.startswith("dtype bfloat16: this kernel does not take it: TypeError: ")
    assert (torchs.status, torchs.finding) == ("ok", "accumulates in float32")
    assert (loop.status, loop.finding) == ("unavailable", "dtype bfloat16: this kernel takes float32, float64")
