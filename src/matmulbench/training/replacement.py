"""Matrix products of any torch code done by a kernel: ``with replaced(kernel): ...``.

For as long as the block runs, ATen's CPU implementations of ``mm``, ``addmm``, ``bmm`` and ``baddbmm`` are overridden
with ``torch.library``. That stands below autograd: back-propagation, and that of its results, asks for products of its
own, which are replaced in turn. All other operators are called as before. (A ``TorchDispatchMode`` would cost each of
them 2.5 µs, and an ``autograd.Function`` would have to be written wherever a product is asked for.)
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel
from matmulbench.workload import DTYPES

Record = Callable[[Tensor, Tensor, float], None]

_TAKEN = frozenset(getattr(torch, name) for name in DTYPES)


@dataclass(eq=False)
class _Block:
    """What a block asked for: its kernel, whether that takes batches, and what is called with each product's time."""

    kernel: Kernel
    batched: bool
    record: Record | None


_lock = threading.Lock()
_active: list[_Block] = []  # the innermost last
_library: torch.library.Library | None = None
_multiplying = False  # process-wide: a kernel may have torch's products done in threads of its own


def _product(rank: int, a: Tensor, b: Tensor) -> Tensor | None:
    """Return the kernel's product of two matrices (``rank`` 2) or batches of them (3), contiguous as ATen's are.

    None where torch is to do it: it has the words for operands that do not fit, and the result of empty ones.
    """
    global _multiplying
    dtype = a.dtype
    if _multiplying or dtype not in _TAKEN or b.dtype is not dtype or not a.dim() == b.dim() == rank:
        return None
    *batch, m, k = a.shape
    *others, inner, n = b.shape
    if k != inner or batch != others or not (n and a.numel()):
        return None
    block = _active[-1]
    # A kernel may go by way of numpy, which takes no tensor that asks for a gradient.
    a = a.detach() if a.requires_grad else a
    b = b.detach() if b.requires_grad else b
    _multiplying = True
    try:
        start = perf_counter()
        if rank == 2 or block.batched:
            c = block.kernel(a, b)
        else:
            c = torch.stack(list(map(block.kernel, a.unbind(), b.unbind())))
        seconds = perf_counter() - start
    finally:
        _multiplying = False
    if block.record:
        block.record(a, b, seconds)
    if not isinstance(c, Tensor):
        raise TypeError(f"the kernel returned {type(c).__name__}, expected a tensor")
    if c.shape != (*batch, m, n) or c.dtype is not dtype:
        raise ValueError(f"the kernel returned {tuple(c.shape)} {c.dtype}, expected {(*batch, m, n)} {dtype}")
    return c.contiguous()  # what comes next may take a view of it


# Torch's own products remain in reach as the overloads that write into a given tensor; those are not overridden.


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b, out=a.new_empty(0)) if (c := _product(2, a, b)) is None else c


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b, out=a.new_empty(0)) if (c := _product(3, a, b)) is None else c


def _adding(rank: int, torch_product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make the override of a product whose result, times alpha, is added to a tensor, times beta."""

    def add_product(addend: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        c = _product(rank, a, b) if addend.dtype is a.dtype else None
        if c is None:
            return torch_product(addend, a, b, beta=beta, alpha=alpha, out=a.new_empty(0))
        if alpha != 1:
            c.mul_(alpha)
        return c.add_(addend, alpha=beta) if beta else c  # with a beta of 0, NaN in the addend do not count

    return add_product


_OVERRIDES: dict[str, Callable[..., Tensor]] = {
    "mm": _mm,
    "bmm": _bmm,
    "addmm": _adding(2, torch.addmm),
    "baddbmm": _adding(3, torch.baddbmm),
}


@contextmanager
def replaced(kernel: str | Kernel, record: Record | None = None) -> Iterator[None]:
    """Have ``kernel`` do the matrix products of all torch code in this block, forward and backward.

    These are ``aten::mm``, ``addmm``, ``bmm`` and ``baddbmm`` on the CPU in float32 and float64, whatever asks for
    them: ``nn.Linear``, ``@``, ``einsum``, attention with its math backend. Torch still does other dtypes, empty
    operands, products into a given tensor (``out=``, ``addmm_``), those within one operator (convolution, fused
    attention, MKL-DNN's LSTM: ``matmulbench trace`` lists them), and what is asked for, by whichever thread, while the
    kernel runs. The block holds for all threads. Blocks may be nested: the innermost counts.

    Parameters
    ----------
    kernel
        a name, as :func:`load_kernel` takes it, or a function of ``a`` (m, k) and ``b`` (k, n), of any strides, that
        returns a fresh (m, n). It is called for each product of a batch; with an attribute ``batched = True``, once
        for all, with ``a`` (batch, m, k) and ``b`` (batch, k, n).
    record
        is called after each product with its operands and how many seconds the kernel took.

    Raises
    ------
    UsageError, ImportError
        if there is no such kernel, as :func:`load_kernel` says.
    TypeError, ValueError
        where a product is asked for, if the kernel returns no tensor, or one of another shape or dtype.

    Examples
    --------
    >>> a = torch.ones(2, 3, requires_grad=True)
    >>> with replaced("numpy"):
    ...     (a @ a.t()).sum().backward()
    >>> a.grad
    tensor([[4., 4., 4.],
            [4., 4., 4.]])
    """
    global _library
    function = load_kernel(kernel)
    block = _Block(function, getattr(function, "batched", False), record)
    with _lock:
        _active.append(block)
        if not _library:
            _library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "overriding a registered kernel": it is meant to be
                for name, override in _OVERRIDES.items():
                    _library.impl(name, override, "CPU")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        with _lock:
            _active.remove(block)
            if not _active and _library:
                _library._destroy()  # type: ignore[no-untyped-call]
                _library = None
