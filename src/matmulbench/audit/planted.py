"""Kernels whose speed is known: the same twice, the same with a delay of a known share, spins of a known length.

They are named to the instrument as ``matmulbench.audit.planted:FUNCTION``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from statistics import median
from time import perf_counter, thread_time

import torch

from matmulbench.audit import DURATIONS
from matmulbench.measurement.cells import BLOCK_S
from matmulbench.measurement.worker import time_calls

_SHORT_S = 1e-5
_SAME_BLOCK = 50  # smallest products, in which time the next call of a block comes, unless interrupted


def _spin(iterations: int) -> None:
    for _ in repeat(None, iterations):
        pass


def _spin_s(iterations: int) -> float:
    """Return the seconds of one spin, timed as spins are used: a short one costs more than its share of a long one."""
    calls = max(1, 20_000 // max(iterations, 10))

    def once() -> float:
        start = perf_counter()
        for _ in repeat(None, calls):
            _spin(iterations)
        return (perf_counter() - start) / calls

    return median(once() for _ in range(9))


def _iterations(seconds: float) -> int:
    """Return how many iterations make a spin longer by ``seconds`` than one of none."""
    idle_s, iterations = _spin_s(0), 1_000
    for _ in range(3):
        iterations = max(1, round(iterations * seconds / (_spin_s(iterations) - idle_s)))
    return iterations


def _with_delay(share: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Make torch's product, delayed by ``share`` of its own time, which the first call of each shape finds out."""
    spins: dict[torch.Size, int] = {}

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        iterations = spins.get(a.shape)
        if iterations is None:
            spins[a.shape] = 0
            calls = max(1, round(BLOCK_S / time_calls(kernel, a, b, 1)))
            own_s = median(time_calls(kernel, a, b, calls) for _ in range(9))
            iterations = spins[a.shape] = _iterations(share * own_s) if share else 0
        _spin(iterations)
        return a @ b

    return kernel


plain = _with_delay(0.0)
twin = _with_delay(0.0)
delayed_3 = _with_delay(0.03)
delayed_5 = _with_delay(0.05)
delayed_400 = _with_delay(4.0)


def _lasting(seconds: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Make a 1x1x1 product that ends on a beat of ``seconds``: a block of n calls lasts n beats, overhead included.

    Long ones are beats of the thread's processor time, of which other programs take none.
    """
    clock = thread_time if seconds > _SHORT_S else perf_counter  # the former takes half a microsecond to read
    one = torch.ones(1, 1)
    same_block_s = _SAME_BLOCK * min(time_calls(torch.mul, one, one, 100) for _ in range(5))
    beat = 0.0

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nonlocal beat
        now = clock()
        if now - beat > same_block_s:
            beat = now
        c = a * b
        beat += seconds
        while clock() < beat:
            pass
        return c

    return kernel


globals().update((name, _lasting(seconds)) for name, seconds in DURATIONS.items())
