import ml_dtypes
import numpy as np
import pytest
import torch

from matmulbench.dtypes import DTYPES, FLOATS, MissingDtypeError, as_array, as_tensor, check_taken, numpy_dtype
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.workload import Workload


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_table_is_what_torch_and_numpy_have(dtype):
    each = DTYPES[dtype]
    assert each.itemsize == getattr(torch, dtype).itemsize == numpy_dtype(dtype).itemsize
    assert each.result_itemsize == getattr(torch, each.result).itemsize
    if dtype in FLOATS:
        assert 2.0 ** (1 - each.digits) == float(ml_dtypes.finfo(numpy_dtype(dtype)).eps)
        assert int(np.array(each.exact).astype(numpy_dtype(dtype)).astype(int)) == each.exact
        assert int(np.array(each.exact + 1).astype(numpy_dtype(dtype)).astype(float)) != each.exact + 1
    else:
        assert each.exact == np.iinfo(dtype).max


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensor_and_array_share_their_memory_and_their_strides(dtype):
    tensor = torch.ones(4, 6).to(getattr(torch, dtype)).t()[::2]
    array = as_array(tensor)
    assert (array.dtype.name, array.shape) == (dtype, (3, 4))
    array[1, 2] = 3
    assert tensor[1, 2] == 3
    assert torch.equal(as_tensor(array), tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_has_the_dtype_and_the_bytes_of_the_table(dtype):
    workload = Workload(5, 7, 3, "TN", dtype)
    a, b = workload.operands()
    c = matmul(a, b)
    assert str(c.dtype) == f"torch.{DTYPES[dtype].result}"
    assert workload.bytes == a.nbytes + b.nbytes + c.nbytes
    assert a.abs().max() > 0


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("expand", [False, True])
def test_torchs_int8_is_right_where_torch_itself_is_not(columns, expand):
    generator = torch.Generator().manual_seed(1)
    a = torch.randint(-128, 128, (1 if expand else 4, columns), generator=generator).to(torch.int8).expand(4, columns)
    b = torch.randint(-128, 128, (3, columns), generator=generator).to(torch.int8).t()
    assert torch.equal(matmul(a, b), a.int() @ b.int())


def test_a_kernel_without_a_dtype_says_which_it_has():
    def kernel(a, b):
        return a @ b

    kernel.dtypes = ("float32", "float64")
    check_taken(kernel, "float64")
    with pytest.raises(MissingDtypeError, match="dtype int8: this kernel takes float32, float64"):
        check_taken(kernel, "int8")


def test_mixed_dtypes_are_named():
    with pytest.raises(TypeError, match=r"dtypes differ: a is torch.bfloat16, b is torch.float32; convert one"):
        matmul(torch.ones(2, 3).bfloat16(), torch.ones(3, 2))
