import math

import pytest
import torch

from matmulbench.dtypes import as_array
from matmulbench.verification.result import check_result, judge_product

SIZES = [(5, 7, 3), (64, 784, 50), (2000, 300, 50), (300, 5000, 40)]


def _operands(m, k, n, dtype=torch.float32, transposed=False):
    generator = torch.Generator().manual_seed(3)
    a = torch.randn((k, m) if transposed else (m, k), generator=generator, dtype=dtype)
    return a.t() if transposed else a, torch.randn(k, n, generator=generator, dtype=dtype)


def found_in(*tensors):
    return check_result(*map(as_array, tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_right_result_passes(sizes, dtype, transposed):
    a, b = _operands(*sizes, dtype, transposed)
    assert found_in(a, b, a @ b) is None


@pytest.mark.parametrize("sizes", SIZES)
def test_one_wrong_row_is_found(sizes):
    a, b = _operands(*sizes)
    c = a @ b
    c[len(c) // 2] = 0
    assert found_in(a, b, c)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_element_that_is_not_finite_is_found(sizes, value):
    a, b = _operands(*sizes)
    c = a @ b
    c[len(c) // 2, c.shape[1] // 2] = value
    assert found_in(a, b, c)


@pytest.mark.parametrize("sizes", SIZES)
def test_a_stale_result_is_found(sizes):
    a, b = _operands(*sizes)
    assert found_in(a, b, torch.randn(sizes[0], sizes[2]) * math.sqrt(sizes[1]))


@pytest.mark.parametrize("sizes", [(3, 4, 5), (600, 700, 50)])
def test_nan_belongs_where_the_operand_has_it_and_only_there(sizes):
    a, b = _operands(*sizes)
    a[1, 2] = math.nan
    c = a @ b
    assert found_in(a, b, c) is None
    assert found_in(a, b, torch.nan_to_num(c))
    assert found_in(a, b, torch.full_like(c, math.nan))


def test_a_large_exact_product_is_checked_exactly():
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randint(-3, 4, shape, generator=generator).float() for shape in ((400, 300), (300, 200)))
    c = a @ b
    assert judge_product(*map(as_array, (a, b, c)), exact=True).verdict == "pass"
    c[123, 45] += 1e-3
    assert judge_product(*map(as_array, (a, b, c)), exact=True).verdict == "normwise"
    c[123, 45] += 1000
    judgement = judge_product(*map(as_array, (a, b, c)), exact=True)
    assert judgement.verdict == "fail"
    assert judgement.residual > 1e4, "not that of the elements that are right"


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 23), (torch.float64, 52)])
def test_the_lowest_bit_of_any_element_counts_in_a_large_exact_product(dtype, bits):
    a, b = torch.zeros(700, 400, dtype=dtype), torch.zeros(400, 300, dtype=dtype)
    a[:, 7] = torch.arange(1, 701) + 2**bits
    b[7] = 1
    c = a @ b
    assert judge_product(*map(as_array, (a, b, c)), exact=True).verdict == "pass"
    c[345, 123] -= 1
    judgement = judge_product(*map(as_array, (a, b, c)), exact=True)
    assert judgement.verdict == "normwise"
    assert judgement.detail.startswith(f"c[345, 123] is {2**bits + 345}, expected exactly {2**bits + 346}")
