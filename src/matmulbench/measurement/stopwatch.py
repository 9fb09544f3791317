"""The clock around a block or a step, without what other programs took of it.

On a busy machine work is interrupted by other programs. Where a thread never gave up the processor by itself (there was
no voluntary context switch), what is missing from its processor time was theirs.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING

from matmulbench.isolation.system import delay_s, waits

if TYPE_CHECKING:
    from matmulbench.ladder.devices import Device

_INTERRUPTED = 0.99  # of wall time; the two clocks need not run at quite the same rate
_EMPTY, _OVERHEADS = 25, 3.0  # empty blocks that tell what a drain takes, and so many times that is no work


class Stopwatch:
    """Started on construction; see :meth:`stop`."""

    def __init__(self) -> None:
        self._waits, self._used_s, self._start = waits(), thread_time(), perf_counter()

    def stop(self) -> list[float]:
        """Return the clock at the start and now, and the seconds between them that were not other programs'.

        Last comes the late work of a device, of which the processor has none.
        """
        end, used_s = perf_counter(), thread_time() - self._used_s
        never_waited = self._waits is not None and waits() == self._waits
        wall_s = end - self._start
        interrupted = never_waited and used_s < _INTERRUPTED * wall_s
        return [self._start, end, used_s if interrupted else wall_s, 0.0]


class DeviceStopwatch(Stopwatch):
    """A stopwatch of what ``device`` does from now on, by its own clock.

    ``late_s`` is how long it was busy before, beyond ``overhead_s``, what a drain takes that finds nothing.
    """

    def __init__(self, device: Device, overhead_s: float, late_s: float) -> None:
        self._device, self._overhead_s, self._late_s = device, overhead_s, late_s
        self._delayed_s = delay_s()
        self._start, self._mark = perf_counter(), device.mark()

    def stop(self) -> list[float]:
        """Drain the device; return the clock before and after, and the seconds in which it did what it was given.

        Last comes late work: how long it went on after its own clock said that all was done, beyond the overhead and
        what this thread waited for a core.
        """
        mark = self._device.mark()
        self._device.drain()
        end = perf_counter()
        wall_s = end - self._start
        own_s = min(wall_s, self._device.seconds(self._mark, mark))
        explained_s = self._overhead_s + delay_s() - self._delayed_s
        return [self._start, end, own_s, self._late_s + max(0.0, wall_s - own_s - explained_s)]


class Timer:
    """Times what this process does: on the processor, or on ``device``.

    A device goes on while the processor is elsewhere. So it is drained before and after; what it does beyond the time
    that its own clock owns to, such as in a queue of which that knows nothing, is noted as late work.
    """

    def __init__(self, device: Device | None = None) -> None:
        self.device, self._overhead_s, self._late_s = device, 0.0, 0.0
        self._empty_s: deque[float] = deque(maxlen=_EMPTY)
        for _ in range(_EMPTY if device else 0):
            self._learn_overhead()

    def _learn_overhead(self) -> None:
        """Time a block of nothing."""
        self.drain()
        start, end, own_s, _ = self.start().stop()
        self._empty_s.append(end - start - own_s)
        self._overhead_s = _OVERHEADS * median(self._empty_s)

    def begin_turn(self) -> None:
        """Note how long the device is still at work for an earlier turn."""
        if self.device:
            start, delayed_s = perf_counter(), delay_s()
            self.drain()
            self._late_s = max(0.0, perf_counter() - start - self._overhead_s - delay_s() + delayed_s)
            self._learn_overhead()  # again and again, for what a core or a clock does changes it

    def drain(self) -> None:
        """Wait until nothing is left to do."""
        if self.device:
            self.device.drain()

    def start(self) -> Stopwatch:
        """Start a stopwatch."""
        return DeviceStopwatch(self.device, self._overhead_s, self._late_s) if self.device else Stopwatch()
