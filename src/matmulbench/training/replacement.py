"""Matrix products of any torch code done by a kernel: in a block, ``with replaced(kernel): ...``, or in a module.

While that is wanted, ATen's CPU implementations of ``mm``, ``addmm``, ``bmm`` and ``baddbmm`` are overridden with
``torch.library``. That stands below autograd: back-propagation in the block, and that of its results, asks for products
of its own, which are replaced in turn. The back-propagation of a plugged module may come at any time: there, what
autograd does for these operators is overridden, too, so that the graph keeps the kernel. All other operators are called
as before. (A ``TorchDispatchMode`` would cost each of them 2.5 µs.)
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch._C._dynamo.eval_frame import _FrameAction as FrameAction
from torch._C._dynamo.eval_frame import _FrameExecStrategy as FrameExecStrategy
from torch._C._dynamo.eval_frame import set_code_exec_strategy, set_eval_frame

from matmulbench.dtypes import USUAL
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel, over_batches
from matmulbench.ladder.torch_matmul import matmul as torch_matmul

T = TypeVar("T")
Record = Callable[[Tensor, Tensor, float], None]
RecordBoth = Callable[[Tensor, Tensor, float, float], None]  # with this thread's processor time

TAKEN = frozenset(getattr(torch, name) for name in USUAL)  # dtypes
_RANKS = {"mm": 2, "addmm": 2, "bmm": 3, "baddbmm": 3}  # of the operands of what is overridden
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Block:
    """What a block asked for: its kernel, what does batches, and what is called after each product."""

    kernel: Kernel | None  # None is torch's own: called by its name, it would come back here
    on_batches: Kernel
    record: RecordBoth | None


class _Thread(threading.local):
    """What one thread does."""

    def __init__(self) -> None:
        self.modules: list[_Block] = []  # the blocks of plugged ones that run now
        self.compilers: list[Any] = []  # what torch.compile would do there


_active = [_Block(None, torch.bmm, None)]  # torch's own, and the blocks in it, the innermost last
_thread = _Thread()
_multiplying = False  # process-wide: a kernel may have torch's products done in threads of its own


def _uncompiled(function: T, what_it_calls: FrameAction = FrameAction.SKIP) -> T:
    """Have ``torch.compile`` call it as it is; its own decorator for that takes two seconds to import."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    strategy = FrameExecStrategy(FrameAction.SKIP, what_it_calls)
    set_code_exec_strategy(function.__code__, strategy)  # type: ignore[attr-defined]
    return function


def _fit(rank: int, *operands: Tensor) -> bool:
    """Say whether operands are a kernel's; torch has the words for wrong ones, and the result of empty ones."""
    a, b = operands[-2:]
    if a.dtype not in TAKEN or any(each.dtype is not a.dtype for each in operands) or not a.dim() == b.dim() == rank:
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

    @_uncompiled
    def override(*operands: Tensor, **factors: float) -> Tensor:
        block = (_thread.modules or _active)[-1]
        kernel, record = block.kernel, block.record
        if _multiplying or not (kernel or record) or not _fit(rank, *operands):
            return original(_CPU, *operands, **factors)
        *addends, a, b = operands
        if record:
            processor_s, started = thread_time(), perf_counter()
        c = _add(_multiply(block, a, b), addends, **factors) if kernel else original(_CPU, *operands, **factors)
        if record:
            record(a, b, perf_counter() - started, thread_time() - processor_s)
        return c

    return override


def _product(block: _Block, a: Tensor, b: Tensor) -> Tensor:
    """Ask torch for a product in a block: the kernel gets it once torch has peeled off what it wraps tensors in."""
    _thread.modules.append(block)
    try:
        return torch.mm(a, b) if a.dim() == 2 else torch.bmm(a, b)
    finally:
        _thread.modules.pop()


class _Product(torch.autograd.Function):
    """The product of two matrices, or of batches of them, with derivatives by the same kernel, as often as wanted."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, block: _Block) -> Tensor:
        ctx.block = block
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        return _product(block, a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (a, b), (needs_a, needs_b, _) = ctx.saved_tensors, ctx.needs_input_grad
        of_b = None
        if needs_b and b.stride(-2) == 1 != b.stride(-1):  # as torch does it: the weight of a layer is transposed
            of_b = _product(ctx.block, gradient.mT, a).mT
        elif needs_b:
            of_b = _product(ctx.block, a.mT, gradient)
        return _product(ctx.block, gradient, b.mT) if needs_a else None, of_b, None

    @staticmethod
    def jvp(ctx: Any, of_a: Tensor | None, of_b: Tensor | None, _: None) -> Tensor:
        (a, b), block = ctx.saved_tensors, ctx.block
        parts = [] if of_a is None else [_product(block, of_a, b)]
        parts += [] if of_b is None else [_product(block, a, of_b)]
        return sum(parts[1:], parts[0])


def _override_in_graph(rank: int, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make what replaces ``original``, what autograd does for a product, as :func:`_override` does for the product."""

    @_uncompiled
    def override(keys: Any, *operands: Tensor, **factors: float) -> Tensor:
        modules = _thread.modules
        recorded = modules and modules[-1].kernel and not _multiplying and torch.is_grad_enabled()
        # torch.func has graphs of its own.
        if not recorded or torch._C._are_functorch_transforms_active() or not _fit(rank, *operands):
            return original(keys, *operands, **factors)
        *addends, a, b = operands
        c: Tensor = _Product.apply(a, b, modules[-1])  # type: ignore[no-untyped-call]
        return _add(c, addends, **factors)

    return override


def _add(c: Tensor, addends: list[Tensor], alpha: float = 1, beta: float = 1) -> Tensor:
    """Return ``alpha`` c plus ``beta`` times what is to be added, in the place of ``c``."""
    if alpha != 1:
        c.mul_(alpha)
    return c.add_(addends[0], alpha=beta) if addends and beta else c  # with a beta of 0, NaN do not count


class _Overrides:
    """Overrides of all products under one dispatch key, for as long as anyone wants them."""

    def __init__(self, key: str, make: Callable[[int, Callable[..., Tensor]], Callable[..., Tensor]]) -> None:
        self.key, self.make = key, make
        self.lock, self.wanted = threading.Lock(), 0

    def want(self) -> None:
        """Override, until :meth:`release`."""
        with self.lock:
            self.wanted += 1
            if self.wanted > 1:
                return
            self.library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "overriding a registered kernel": it is meant to be
                for name, rank in _RANKS.items():
                    override = self.make(rank, torch.library.get_kernel(f"aten::{name}", self.key).call_boxed)
                    self.library.impl(name, override, self.key, with_keyset=self is _IN_GRAPH)  # type: ignore[no-untyped-call]

    def release(self) -> None:
        """Let torch's own be again, if no one else wants them."""
        with self.lock:
            self.wanted -= 1
            if not self.wanted:
                self.library._destroy()  # type: ignore[no-untyped-call]


_ON_CPU, _IN_GRAPH = _Overrides("CPU", _override), _Overrides("AutogradCPU", _override_in_graph)


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
    block = _block(kernel, record)
    _ON_CPU.want()
    _active.append(block)
    try:
        yield
    finally:
        _active.remove(block)
        _ON_CPU.release()


def _block(kernel: Kernel, record: RecordBoth | None = None) -> _Block:
    of_torch = kernel in (torch.mm, torch.matmul, torch_matmul)
    return _Block(None if of_torch else kernel, over_batches(kernel), record)


class Hooks:
    """Hooks of modules: while one of them runs in a thread, a kernel does its products, and the graph's."""

    def __init__(self, kernel: str | Kernel) -> None:
        self.kernel = kernel
        self._block = _block(load_kernel(kernel))
        for overrides in (_ON_CPU, _IN_GRAPH):
            overrides.want()
            weakref.finalize(self._block, overrides.release).atexit = False  # which graphs keep, too

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Share the kernel: compiled and foreign functions cannot be copied."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Of a kernel that has a name, the name is pickled."""
        return type(self), (self.kernel,)

    @property
    def name(self) -> str:
        """The kernel's, as it was given or as it calls itself."""
        names = (getattr(self.kernel, name, None) for name in ("name", "__name__"))
        return self.kernel if isinstance(self.kernel, str) else next(filter(None, names), type(self.kernel).__name__)

    # Not with what they call: that is what these two change.
    @partial(_uncompiled, what_it_calls=FrameAction.DEFAULT)
    def enter(self, module: nn.Module, _: Any) -> None:
        """Begin, before a module's ``forward``, which ``torch.compile`` then leaves as it is."""
        _thread.modules.append(self._block)
        _thread.compilers.append(set_eval_frame(None))

    @partial(_uncompiled, what_it_calls=FrameAction.DEFAULT)
    def leave(self, module: nn.Module, *_: Any) -> None:
        """End, after it, also where it raises."""
        set_eval_frame(_thread.compilers.pop())
        _thread.modules.pop()
