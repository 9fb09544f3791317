"""The clock: one timed block of calls, and what the loop around them costs."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from matmulbench.ladder import Kernel

BLOCK_S = 0.004  # well above the timer's resolution, short against the machine's drift


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector out of a block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def time_block(kernel: Kernel, a: torch.Tensor, b: torch.Tensor, calls: int) -> tuple[float, torch.Tensor]:
    """Time a block of ``calls`` calls in one go.

    Returns
    -------
    tuple
        seconds per call, and the result of one call of the block, picked at random so that a kernel cannot know
        which of its results will be checked.
    """
    before = random.randrange(calls)
    after = calls - before - 1
    with no_garbage_collection():
        start = perf_counter()
        for _ in repeat(None, before):
            kernel(a, b)
        kept = kernel(a, b)
        for _ in repeat(None, after):
            kernel(a, b)
        seconds = perf_counter() - start
    return seconds / calls, kept


def calls_per_block(call_s: float) -> int:
    """Return how many calls of ``call_s`` seconds fill a block."""
    return max(1, round(BLOCK_S / max(call_s, 1e-9)))
