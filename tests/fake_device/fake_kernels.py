"""Kernels of the fake device: right ones, and those that it must be found out on."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import torch

from matmulbench.ladder.devices import DEVICES
from matmulbench.ladder.operands import sizes

DEVICE: Any = DEVICES["fake"]
CALL_S = 1e-4


def _multiply(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, inference: bool) -> None:
    with torch.inference_mode(inference):
        torch.mm(a, b, out=c)


def _ask(a: torch.Tensor, b: torch.Tensor, stream: str = "main") -> torch.Tensor:
    m, _, n = sizes(a, b)
    c = torch.full((m, n), torch.nan, dtype=a.dtype)
    DEVICE.enqueue(CALL_S, partial(_multiply, c, a, b, torch.is_inference_mode_enabled()), stream)
    return c


def honest(a, b):
    """Return before the product is there, as kernels on a device do."""
    return _ask(a, b)


def waits(a, b):
    """Return when it is there."""
    c = _ask(a, b)
    DEVICE.drain()
    return c


def beside(a, b):
    """Multiply in a stream of which the marks know nothing."""
    return _ask(a, b, "side")


def beside_and_joined(a, b):
    """Multiply there, and have the main stream wait for it, which is right."""
    c = _ask(a, b, "side")
    DEVICE.join("side")
    return c


def _later(seconds: float, work: Any) -> None:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


def defers(a, b):
    """Return early, and begin with the work when the turn is over."""
    m, _, n = sizes(a, b)
    c = torch.full((m, n), torch.nan, dtype=a.dtype)
    work = partial(_multiply, c, a, b, torch.is_inference_mode_enabled())
    _later(0.1, partial(DEVICE.enqueue, CALL_S, work))
    return c


_last = [0.0]


def spills(a, b):
    """Multiply rightly, and be at work in the turns of all others, too."""
    if time.perf_counter() - _last[0] > 0.002:  # a new block: the last one is over
        _later(0.008, partial(DEVICE.enqueue, 0.05, stream="side"))
    c = _ask(a, b)
    _last[0] = time.perf_counter()
    return c


def declared(a, b):
    """Say itself where it works."""
    return _ask(a, b)


declared.device = "fake"


def spills_steps(a, b):
    """Multiply rightly, wait for that alone, and leave more work than a step takes for the time after it."""
    if a.shape[0] > 200:  # a whole batch, not what is tried first
        DEVICE.enqueue(0.03, stream="side")
    c = _ask(a, b)
    DEVICE.drain("main")
    return c
