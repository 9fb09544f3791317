import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everyone's name for it
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from matmulbench import replaced
from matmulbench.errors import UsageError
from matmulbench.ladder.numpy_matmul import matmul as numpy_matmul
from matmulbench.ladder.row_slice import matmul as row_slice


class Counting:
    """A kernel that counts; it multiplies with torch, as many do."""

    def __init__(self):
        self.calls = []

    def __call__(self, a, b):
        assert not a.requires_grad
        assert not b.requires_grad
        self.calls.append((tuple(a.shape), tuple(b.shape)))
        return a @ b


class Attention(nn.Module):
    def forward(self, x):
        q, k, v = x.chunk(3, -1)
        return torch.softmax(q @ k.mT, -1) @ v


def drawn(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def gradients(function, *inputs):
    inputs = [one.clone().requires_grad_() for one in inputs]
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


SQUARE, BATCH = drawn(5, 5), drawn(3, 5, 5)
CELL = nn.LSTMCell(5, 5).double()
PRODUCTS = {
    "mm": (torch.mm, SQUARE, SQUARE),
    "transposed": (lambda a, b: a.t() @ b.t(), SQUARE, SQUARE),
    "bmm": (torch.bmm, BATCH, BATCH),
    "addmm": (torch.addmm, SQUARE[0], SQUARE, SQUARE),
    "addmm with factors": (lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=-3), SQUARE, SQUARE, SQUARE),
    "baddbmm": (lambda c, a, b: torch.baddbmm(c, a, b, beta=0.5, alpha=0.25), BATCH, BATCH, BATCH),
    "linear": (F.linear, BATCH, SQUARE, SQUARE[0]),
    "linear of 4 dimensions": (F.linear, BATCH[None], SQUARE, SQUARE[0]),
    "einsum": (lambda a, b: torch.einsum("bij,kj->bik", a, b), BATCH, SQUARE),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=2), BATCH, SQUARE),
    "attention": (F.scaled_dot_product_attention, BATCH, BATCH, BATCH),
    "lstm cell": (lambda x, h: CELL(x, (h, h))[0], SQUARE, SQUARE),
}


@pytest.mark.parametrize("kernel", [numpy_matmul, row_slice, torch.mm, "torch"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_results_and_gradients_are_torchs(name, kernel):
    function, *inputs = PRODUCTS[name]
    want = gradients(function, *inputs)
    with replaced(kernel):
        got = gradients(function, *inputs)
    for one, other in zip(got, want, strict=True):
        assert one.stride() == other.stride()
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "inputs", "calls"),
    [
        (torch.mm, (SQUARE, SQUARE), 3),
        (torch.bmm, (BATCH, BATCH), 9),
        (torch.addmm, (SQUARE, SQUARE, SQUARE), 3),
        (torch.baddbmm, (BATCH, BATCH, BATCH), 9),
        (F.linear, (BATCH, SQUARE, SQUARE[0]), 3),
        (Attention(), (drawn(2, 5, 15),), 12),
    ],
)
def test_every_product_is_the_kernels_forward_and_backward(function, inputs, calls):
    kernel = Counting()
    with replaced(kernel):
        gradients(function, *inputs)
    assert len(kernel.calls) == calls


def test_a_kernel_may_take_batches():
    kernel = Counting()
    kernel.batched = True
    with replaced(kernel):
        torch.bmm(BATCH, BATCH)
    assert kernel.calls == [((3, 5, 5), (3, 5, 5))]


@pytest.mark.parametrize("name", ["mm", "bmm", "addmm with factors", "baddbmm"])
def test_gradcheck_once_and_twice(name):
    function, *inputs = PRODUCTS[name]
    inputs = [one.clone().requires_grad_() for one in inputs]
    with replaced(numpy_matmul):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_a_second_derivative_asks_the_kernel_too():
    kernel = Counting()
    a, b = (drawn(3, 3).requires_grad_() for _ in range(2))
    with replaced(kernel):
        (gradient,) = torch.autograd.grad((a @ b).square().sum(), a, create_graph=True)
        before = len(kernel.calls)
        torch.autograd.grad(gradient.sum(), b)
    assert before == 2
    assert len(kernel.calls) > before


def test_nan_in_what_beta_leaves_out_does_not_count():
    with replaced(numpy_matmul):
        out = torch.addmm(torch.full((5, 5), torch.nan, dtype=torch.float64), SQUARE, SQUARE, beta=0)
    assert torch.equal(out, SQUARE @ SQUARE)


@pytest.mark.parametrize(
    "product",
    [
        lambda: torch.ones(2, 2, dtype=torch.int64) @ torch.ones(2, 2, dtype=torch.int64),
        lambda: torch.ones(2, 2, dtype=torch.bfloat16) @ torch.ones(2, 2, dtype=torch.bfloat16),
        lambda: torch.ones(2, 2, dtype=torch.complex64) @ torch.ones(2, 2, dtype=torch.complex64),
        lambda: torch.ones(2, 0) @ torch.ones(0, 3),
        lambda: torch.ones(0, 2, 2) @ torch.ones(0, 2, 2),
        lambda: torch.addmm(torch.ones(3), torch.ones(0, 2), torch.ones(2, 3)),
        lambda: torch.baddbmm(torch.ones(2, 2, 3), torch.ones(2, 2, 0), torch.ones(2, 0, 3)),
        lambda: torch.mm(torch.ones(2, 2), torch.ones(2, 2), out=torch.ones(2, 2)),
        lambda: torch.ones(2, 2).addmm_(torch.ones(2, 2), torch.ones(2, 2)),
        lambda: torch.mm(torch.ones(2, 2).to_sparse(), torch.ones(2, 2)),
    ],
)
def test_torch_does_what_a_kernel_does_not_take(product):
    want, kernel = product(), Counting()
    with replaced(kernel):
        got = product()
    assert torch.equal(got, want)
    assert got.dtype == want.dtype
    assert not kernel.calls


@pytest.mark.parametrize(
    "product",
    [
        lambda: torch.mm(torch.ones(2, 3), torch.ones(2, 3)),
        lambda: torch.mm(torch.ones(2, 3), torch.ones(3)),
        lambda: torch.mm(torch.ones(1, 2, 3), torch.ones(1, 3, 2)),
        lambda: torch.mm(torch.ones(2, 3), torch.ones(3, 2).double()),
        lambda: torch.bmm(torch.ones(2, 3, 3), torch.ones(3, 3, 3)),
        lambda: torch.bmm(torch.ones(3, 3), torch.ones(3, 3)),
        lambda: torch.addmm(torch.ones(3).double(), torch.ones(3, 3), torch.ones(3, 3)),
    ],
)
def test_what_does_not_fit_is_refused_in_torchs_words(product):
    with pytest.raises(RuntimeError) as of_torch:
        product()
    with replaced(Counting()), pytest.raises(RuntimeError) as of_the_block:
        product()
    assert str(of_the_block.value) == str(of_torch.value)


def test_no_other_operator_takes_another_way():
    gc.collect()  # of plugged models
    before = set(torch.library._impls)
    with replaced("numpy"):
        now = set(torch.library._impls)
    assert set(torch.library._impls) == before
    assert now - before == {"aten/mm/CPU", "aten/addmm/CPU", "aten/bmm/CPU", "aten/baddbmm/CPU"}


def test_a_block_ends_with_torch_again_also_by_an_exception():
    kernel = Counting()
    with pytest.raises(KeyError), replaced(kernel):
        raise KeyError
    torch.mm(SQUARE, SQUARE)
    assert not kernel.calls


def test_a_kernel_that_raises_leaves_the_block_intact():
    def kernel(a, b):
        if len(a) == 1:
            raise KeyError("no")
        return a @ b

    with replaced(kernel):
        with pytest.raises(KeyError):
            torch.mm(SQUARE[:1], SQUARE)
        a = SQUARE[:1].clone().requires_grad_()
        with pytest.raises(KeyError):
            (SQUARE @ a.t()).sum().backward()
    counting = Counting()
    with replaced(counting):
        torch.mm(SQUARE, SQUARE)
    assert len(counting.calls) == 1


def test_the_innermost_block_counts():
    outer, inner = Counting(), Counting()
    with replaced(outer):
        with replaced(inner):
            torch.mm(SQUARE, SQUARE)
        assert (len(outer.calls), len(inner.calls)) == (0, 1)
        torch.mm(SQUARE, SQUARE)
    assert (len(outer.calls), len(inner.calls)) == (1, 1)


def test_the_same_block_within_itself():
    kernel = Counting()
    with replaced(kernel), replaced(kernel):
        torch.mm(SQUARE, SQUARE)
    torch.mm(SQUARE, SQUARE)
    assert len(kernel.calls) == 1


def test_a_block_holds_for_all_threads():
    kernel = Counting()
    with replaced(kernel):
        thread = threading.Thread(target=torch.mm, args=(SQUARE, SQUARE))
        thread.start()
        thread.join()
    assert len(kernel.calls) == 1


def test_a_kernel_may_use_torchs_product_in_threads_of_its_own():
    def halves(a, b):
        with ThreadPoolExecutor(2) as pool:
            return torch.cat(list(pool.map(lambda rows: rows @ b, a.chunk(2))))

    with replaced(halves):
        out = torch.mm(SQUARE, SQUARE)
    assert torch.allclose(out, SQUARE @ SQUARE)


def test_kernels_are_named_or_declared_as_everywhere():
    def arrays(a, b):
        assert isinstance(a, np.ndarray)
        return a @ b

    arrays.operands = "numpy"
    for kernel in ("numpy", arrays):
        with replaced(kernel):
            assert torch.allclose(torch.bmm(BATCH, BATCH), BATCH @ BATCH)
    with pytest.raises(UsageError, match="kernel 'nunpy' is unknown: did you mean numpy"), replaced("nunpy"):
        pass


@pytest.mark.parametrize(
    ("kernel", "error"),
    [
        (lambda a, b: None, "returned NoneType, expected a tensor"),
        (lambda a, b: (a @ b)[0], r"returned \(5,\) torch.float64, expected \(5, 5\) torch.float64"),
        (lambda a, b: (a @ b).float(), r"returned \(5, 5\) torch.float32, expected \(5, 5\) torch.float64"),
    ],
)
def test_what_is_no_product_is_refused(kernel, error):
    with replaced(kernel), pytest.raises((TypeError, ValueError), match=f"the kernel {error}"):
        torch.mm(SQUARE, SQUARE)


def test_a_result_that_is_a_transposed_view_can_be_reshaped():
    with replaced(lambda a, b: (b.t() @ a.t()).t()):
        out = F.linear(BATCH, SQUARE)
    assert torch.allclose(out, F.linear(BATCH, SQUARE))


@pytest.mark.parametrize("kernel", ["numpy", "torch"])
def test_products_are_recorded_with_their_operands_and_seconds(kernel):
    seen = []
    with replaced(kernel, lambda a, b, seconds: seen.append((tuple(a.shape), tuple(b.shape), seconds))):
        torch.bmm(BATCH, BATCH)
        torch.addmm(SQUARE[0], SQUARE, SQUARE)
    assert [shapes for *shapes, _ in seen] == [[(3, 5, 5), (3, 5, 5)], [(5, 5), (5, 5)]]
    assert all(0 < seconds < 1 for *_, seconds in seen)


def test_a_dispatch_mode_sees_what_it_saw():
    def flop():
        with FlopCounterMode(display=False) as counter:
            gradients(F.linear, BATCH, SQUARE, SQUARE[0])
        return counter.get_total_flops()

    want = flop()
    with replaced("numpy"):
        assert flop() == want


def test_training_is_that_of_torch():
    def trained():
        torch.manual_seed(0)
        model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
        optimizer = torch.optim.Adam(model.parameters(), foreach=False)
        x = drawn(4, 6, 8)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return model

    want = trained()
    with replaced("numpy"):
        got = trained()
    for one, other in zip(got.parameters(), want.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-9)
