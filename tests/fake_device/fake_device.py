"""A device that works off queues, as a GPU does: time passes there by a count of what each work takes.

Its memory is that of the CPU. Its kernels are in ``fake_kernels.py``. As on a GPU, one that returns has only asked for
its work. There are no threads: what is asked for is done when the device is next waited for, which then takes as long
as the works would. So a busy machine changes nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep

KERNELS = Path(__file__).with_name("fake_kernels.py")
Work = Callable[[], object]
_SPIN_S = 1e-3  # sleep ends late by less


def _nothing() -> None: ...


class Fake:
    """The device; ``main`` is the stream that its marks are in."""

    place = "cpu"
    cache_bytes = 2**18

    def __init__(self) -> None:
        self.works: deque[Work] = deque()
        self.ends: defaultdict[str, float] = defaultdict(float)  # when each stream will have done all
        self.flushes = 0

    def enqueue(self, seconds: float, work: Work = _nothing, stream: str = "main") -> None:
        """Ask for ``work``, which takes ``seconds``."""
        self.ends[stream] = max(perf_counter(), self.ends[stream]) + seconds
        self.works.append(work)

    def join(self, stream: str) -> None:
        """Let the main stream go on no earlier than when ``stream`` will have done what it was asked for."""
        self.ends["main"] = max(self.ends["main"], self.ends[stream])

    def require(self) -> None:
        if os.environ.get("NO_FAKE_DEVICE"):
            raise ImportError("no fake device, as this test has it")

    def mark(self) -> float:
        return max(perf_counter(), self.ends["main"])

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def drain(self, *streams: str) -> None:
        """Wait for ``streams``, or all."""
        while self.works:
            self.works.popleft()()
        end = max(self.ends[stream] for stream in streams or ["main", *self.ends])
        sleep(max(0.0, end - perf_counter() - _SPIN_S))
        while perf_counter() < end:
            pass

    def flush(self) -> None:
        self.flushes += 1

    def clocks(self) -> list[int] | None:
        return [1000, 500]
