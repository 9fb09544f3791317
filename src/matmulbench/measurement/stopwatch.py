"""The clock around a block or a step, without what other programs took of it.

On a busy machine work is interrupted by other programs. Where a thread never gave up the processor by itself (there was
no voluntary context switch), what is missing from its processor time was theirs.
"""

from __future__ import annotations

from time import perf_counter, thread_time

from matmulbench.isolation.system import waits

_INTERRUPTED = 0.99  # of wall time; the two clocks need not run at quite the same rate


class Stopwatch:
    """Started on construction; see :meth:`stop`."""

    def __init__(self) -> None:
        self._waits, self._used_s, self._start = waits(), thread_time(), perf_counter()

    def stop(self) -> list[float]:
        """Return the clock at the start and now, and the seconds between them that were not other programs'."""
        end, used_s = perf_counter(), thread_time() - self._used_s
        never_waited = self._waits is not None and waits() == self._waits
        wall_s = end - self._start
        interrupted = never_waited and used_s < _INTERRUPTED * wall_s
        return [self._start, end, used_s if interrupted else wall_s]
