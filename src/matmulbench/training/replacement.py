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
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import perf_counter, thread_time

import torch
from torch import Tensor

from matmulbench.dtypes import USUAL
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel, over_batches
from matmulbench.ladder.torch_matmul import matmul as torch_matmul

Record = Callable[[Tensor, Tensor, float], None]
RecordBoth = Callable[[Tensor, Tensor, float, float], None]  # with this thread's processor time

_TAKEN = frozenset(getattr(torch, name) for name in USUAL)
_RANKS = {"mm": 2, "addmm": 2, "bmm": 3, "baddbmm": 3}  # of the operands of what is overridden
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


@dataclass(eq=False, slots=True)
class _Block:
    """What a block asked for: its kernel, what does batches, and what is called after each product."""

    kernel: Kernel | None  # None is torch's own: called by its name, it would come back here
    on_batches: Kernel
    record: RecordBoth | None


_lock = threading.Lock()
_active: list[_Block] = []  # the innermost last
_library: torch.library.Library | None = None
_multiplying = False  # process-wide: a kernel may have torch's products done in threads of its own


def _fit(rank: int, *operands: Tensor) -> bool:
    """Say whether operands are a kernel's; torch has the words for wrong ones, and the result of empty ones."""
    a, b = operands[-2:]
    if a.dtype not in _TAKEN or any(each.dtype is not a.dtype for each in operands) or not a.dim() == b.dim() == rank:
        return False
    *batch, _, k = a.shape
    *others, inner, n = b.shape
    return k == inner and batch == others and n * a.numel() > 0


def _multiply(block: _Block, a: Tensor, b: Tensor) -> Tensor:
    """Have the block's kernel multiply (..., m, k) by (..., k, n); return the product, contiguous as ATen's are."""
    global _multiplying
    assert block.kernel
    # A kernel may go by way of numpy, which takes no tensor that asks for a gradient.
    a = a.detach() if a.requires_grad else a
    b = b.detach() if b.requires_grad else b
    _multiplying = True
    try:
        c = block.kernel(a, b) if a.dim() == 2 else block.on_batches(a, b)
    finally:
        _multiplying = False
    if not isinstance(c, Tensor):
        raise TypeError(f"the kernel returned {type(c).__name__}, expected a tensor")
    expected = (*a.shape[:-1], b.shape[-1])
    if c.shape != expected or c.dtype is not a.dtype:
        raise ValueError(f"the kernel returned {tuple(c.shape)} {c.dtype}, expected {expected} {a.dtype}")
    return c.contiguous()  # what comes next may take a view of it


def _override(rank: int, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make what replaces ``original``, ATen's product of two matrices (``rank`` 2) or of batches of them (3).

    A third operand, that comes first, is multiplied by ``beta`` and added to the product, times ``alpha``.
    """

    def override(*operands: Tensor, **factors: float) -> Tensor:
        block = _active[-1]
        kernel, record = block.kernel, block.record
        if _multiplying or not (kernel or record) or not _fit(rank, *operands):
            return original(_CPU, *operands, **factors)
        *addends, a, b = operands
        if record:
            processor_s, started = thread_time(), perf_counter()
        if kernel:
            c = _multiply(block, a, b)
            if factors.get("alpha", 1) != 1:
                c.mul_(factors["alpha"])
            if addends and (beta := factors.get("beta", 1)):  # with a beta of 0, NaN do not count
                c.add_(addends[0], alpha=beta)
        else:
            c = original(_CPU, *operands, **factors)
        if record:
            record(a, b, perf_counter() - started, thread_time() - processor_s)
        return c

    return override


def replaced(kernel: str | Kernel, record: Record | None = None) -> AbstractContextManager[None]:
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
        is called after each product with its two operands and how many seconds it took, with what is added to it.

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
    return products_by(load_kernel(kernel), record and (lambda a, b, seconds, _: record(a, b, seconds)))


@contextmanager
def products_by(kernel: Kernel, record: RecordBoth | None = None) -> Iterator[None]:
    """Do what :func:`replaced` says with a kernel that is loaded."""
    global _library
    of_torch = kernel in (torch.mm, torch.matmul, torch_matmul)
    block = _Block(None if of_torch else kernel, over_batches(kernel), record)
    with _lock:
        _active.append(block)
        if not _library:
            _library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "overriding a registered kernel": it is meant to be
                for name, rank in _RANKS.items():
                    original = torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
                    _library.impl(name, _override(rank, original), "CPU")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        with _lock:
            _active.remove(block)
            if not _active and _library:
                _library._destroy()  # type: ignore[no-untyped-call]
                _library = None
