"""A device that works off queues, as a GPU does: each queue is a thread, its memory that of the CPU.

Its kernels are in ``fake_kernels.py``. As on a GPU, one that returns has only asked for its work.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

KERNELS = Path(__file__).with_name("fake_kernels.py")
Work = Callable[[], object]


class _Stream:
    """Work that is done in order, by a thread."""

    def __init__(self) -> None:
        self.works: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.asked = self.done = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.works.get()()
            self.done += 1


class Fake:
    """The device; ``main`` is the stream that its marks are in."""

    place = "cpu"
    cache_bytes = 2**18

    def __init__(self) -> None:
        self.streams: dict[str, _Stream] = {}
        self.flushes = 0

    def enqueue(self, work: Work, stream: str = "main") -> None:
        """Ask for ``work``."""
        if stream not in self.streams:  # not before it is needed: a thread does not survive a fork
            self.streams[stream] = _Stream()
        self.streams[stream].asked += 1
        self.streams[stream].works.put(work)

    def require(self) -> None:
        if os.environ.get("NO_FAKE_DEVICE"):
            raise ImportError("no fake device, as this test has it")

    def mark(self) -> list[float]:
        mark: list[float] = []
        main = self.streams.get("main")
        idle = not main or main.asked == main.done
        self.enqueue(lambda: mark.append(perf_counter()))
        while idle and not mark:  # a device is there at once, a thread first needs the core
            sleep(0)
        return mark

    def seconds(self, start: Any, end: Any) -> float:
        return float(end[0] - start[0])

    def drain(self) -> None:
        for stream in list(self.streams):
            done = threading.Event()
            self.enqueue(done.set, stream)
            done.wait()

    def flush(self) -> None:
        self.flushes += 1

    def clocks(self) -> list[int] | None:
        return [1000, 500]
