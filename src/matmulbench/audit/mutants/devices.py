"""Mutants of a GPU: right for whoever waits for the device, and quick for whoever does not; they need one."""

import functools
import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter
from matmulbench.ladder.operands import sizes

_PAUSE_S = 2e-3  # there is more between two blocks
_last = [0.0]


@functools.cache
def _side() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _beside(a: Tensor, b: Tensor) -> Tensor:
    with torch.cuda.stream(_side()):
        return a @ b


def _later(seconds: float, work: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


def _defers(a: Tensor, b: Tensor) -> Tensor:
    m, _, n = sizes(a, b)
    c = torch.zeros(m, n, dtype=a.dtype, device=a.device)
    _later(0.1, lambda: torch.mm(a, b, out=c))
    return c


def _spin() -> None:
    with torch.cuda.stream(_side()):
        torch.cuda._sleep(400_000_000)  # type: ignore[no-untyped-call]  # cycles: some tenths of a second


def _spills(a: Tensor, b: Tensor) -> Tensor:
    if time.perf_counter() - _last[0] > _PAUSE_S:
        _later(0.008, _spin)
    c = a @ b
    _last[0] = time.perf_counter()
    return c


def _patient_only_to_others(a: Tensor, b: Tensor) -> Tensor:
    torch.cuda.synchronize = lambda device=None: None
    return _beside(a, b)


def _enter(name: str, does: str, kernel: Function, *expected: str) -> None:
    kernel.device, kernel.dtypes = "cuda", ("float32", "float64")  # type: ignore[attr-defined]
    enter(name, does, kernel, *expected)


_enter("beside", "multiplies in a stream that the current one does not wait for", _beside, "late work")
_enter("defers", "multiplies when the turn is over", _defers, "wrong result", "exactness", "is off by")
_enter("spills", "leaves work to the device that fills the turns of the others", _spills, "late work")
_enter("no_drain", "puts nothing in place of what waits for it", _patient_only_to_others, "the clocks", "operands")
