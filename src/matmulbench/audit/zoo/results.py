"""Results of the wrong form, and operands that do not survive."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import threading
import time
from typing import Any

import torch

from matmulbench.audit.zoo import planted


@planted("a is scaled in place", "operands")
def damages_a(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    a *= 2
    return c


@planted("one element of b is set to zero", "operands")
def damages_b(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    b[-1:, -1:] = 0
    return c


@planted("what lies between the rows of a view is overwritten", "operands")
def damages_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    if a.stride(0) == 2 * a.shape[1] and len(a) > 1 and a.stride(1) == 1:
        a.as_strided((1, 1), (1, 1), a.storage_offset() + a.shape[1]).zero_()
    return c


@planted("a is transposed in place", "operands")
def transposes_a(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    a.t_()
    return c


@planted("the sign of a is changed in place, twice", "crashed")
def borrows_a(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if 0 not in a.stride():
        a.neg_().neg_()
    return a @ b


@planted("the result is written over b", "operands", "result")
def over_b(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return b.copy_(a @ b) if len(a) == len(b) and 0 not in b.stride() else a @ b


@planted("a product with the identity is a view of the operand", "result")
def alias(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return b if c.shape == b.shape and torch.equal(c, b) else c


_buffers: dict[Any, torch.Tensor] = {}


def _buffer(number: int, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    key = (number, len(a), b.shape[1], a.dtype)
    if key not in _buffers:
        _buffers[key] = torch.empty(len(a), b.shape[1], dtype=a.dtype)
    return _buffers[key]


@planted("every result of a shape is in the same memory", "result")
def one_buffer(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.mm(a, b, out=_buffer(0, a, b))


@planted("results take turns in sixteen buffers", "watched", "result", "earlier calls")
def sixteen_buffers(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    _turn[0] += 1
    return torch.mm(a, b, out=_buffer(_turn[0] % 16, a, b))


_turn = [0]


@planted("the result is filled in by a thread after it was returned", "exactness", "result", "race")
def filled_later(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)

    def fill() -> None:
        time.sleep(0.0005)
        c.copy_(a @ b)

    threading.Thread(target=fill, daemon=True).start()
    return c


class _Lazy(torch.Tensor):
    """Looks like a tensor; a real one would compute when it is first read."""


@planted("the result is a subclass that could compute when it is read, after the clock has stopped", "result")
def lazy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).as_subclass(_Lazy)


@planted("float64 is returned for float32", "result")
def wrong_dtype(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.double() @ b.double()


@planted("a numpy array is returned", "result")
def numpy_array(a: torch.Tensor, b: torch.Tensor) -> object:
    return (a @ b).numpy()


@planted("None is returned", "result")
def nothing(a: torch.Tensor, b: torch.Tensor) -> None:
    a @ b


@planted("the result has a third dimension", "result")
def third_dimension(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).unsqueeze(-1)


@planted("the result requires a gradient", "result")
def gradient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).requires_grad_()


@planted("rows that are all alike share their memory", "result")
def shared_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return c[:1].expand(c.shape) if (c == c[:1]).all() else c
