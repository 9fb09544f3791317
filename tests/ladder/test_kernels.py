"""Every rung of the ladder keeps the kernel contract."""

import pytest
import torch

from matmulbench.dtypes import USUAL as DTYPES
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import load_kernel
from matmulbench.workload import LAYOUTS, Workload

NAMES = [rung.name for rung in LADDER]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_product_agrees_with_float64(name: str, layout: str, dtype: str) -> None:
    a, b = Workload(3, 7, 5, layout, dtype).operands()
    c = load_kernel(name)(a, b)
    assert c.shape == (3, 5)
    assert c.dtype == a.dtype
    torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_inner_sizes_that_differ_are_refused_with_both_shapes(name: str) -> None:
    with pytest.raises(ValueError, match=r"``k`` differs: a is \(5, 784\), b is \(700, 10\)"):
        load_kernel(name)(torch.ones(5, 784), torch.ones(700, 10))


@pytest.mark.parametrize("name", NAMES)
def test_an_inner_size_of_one_is_not_broadcast(name: str) -> None:
    with pytest.raises(ValueError, match="``k`` differs"):
        load_kernel(name)(torch.ones(2, 1), torch.ones(3, 2))


@pytest.mark.parametrize("name", NAMES)
def test_no_inner_size_gives_zeros(name: str) -> None:
    assert torch.equal(load_kernel(name)(torch.ones(2, 0), torch.ones(0, 3)), torch.zeros(2, 3))
