"""How long a kernel takes, learnt call by call, and how much of the time for its examination has passed."""

from __future__ import annotations

import math
import time
from heapq import nlargest

from matmulbench.verification.case import Case

_BEYOND_CACHES = 1.2  # time grows a little faster than the work, as operands and temporaries outgrow the caches
_SLOW_FIRST_CALL_S = 0.02  # a first call longer than this has compiled something
_KEPT = 2  # of the largest cases of each kind of work, as any may have been held up


def _work(m: int, k: int, n: int) -> tuple[int, ...]:
    """Return what a kernel may spend its time on: multiplications, elements of the result, steps along each side."""
    return m * k * n, m * n, m, k, n


class Pace:
    """What the calls so far say about the next one."""

    def __init__(self) -> None:
        self._compiling_s = 0.0
        self._shortest_s = math.inf
        self._start = time.perf_counter(), time.process_time()
        self._seen_layouts: set[str] = set()
        self._largest = [(_work(1, 1, 1), 1e-5)]  # with their seconds

    def clock(self) -> float:
        """Return the seconds that this process has had, less what the kernel has spent on compiling itself.

        That is its processor time, at most the time of day (threads count once), so that a busy machine costs no
        coverage; and at least a third of the time of day, for kernels that wait.
        """
        wall_s, worked_s = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        return max(min(worked_s, wall_s), wall_s / 3) - self._compiling_s

    def predict(self, m: int, k: int, n: int) -> float:
        """Return the seconds that a product of this size should take, by the largest so far.

        No kind of work can have cost more than the whole of a call that had some of it: of each kind, the call that
        says least counts, and of all kinds the one that would take longest. What the shortest call took is taken for
        the cost of a call, of which a twentieth at most is work.
        """
        call_s = min(self._shortest_s, *(seconds for _, seconds in self._largest))

        def scaled(new: int, old: int, seconds: float) -> float:
            larger = new / max(1, old)
            return float(max(seconds - call_s, call_s / 20) * (larger**_BEYOND_CACHES if larger > 1 else larger))

        kinds = enumerate(_work(m, k, n))
        return call_s + max(
            min(scaled(work, seen[kind], seconds) for seen, seconds in self._largest) for kind, work in kinds
        )

    def learn(self, case: Case, seconds: float) -> None:
        """Take note of how long a case took."""
        if case.layout not in self._seen_layouts:
            self._seen_layouts.add(case.layout)
            if seconds > _SLOW_FIRST_CALL_S:
                self._compiling_s += seconds
                if len(self._largest) > 1:  # else no better is known
                    return
        self._shortest_s = min(self._shortest_s, seconds)
        seen = [*self._largest, (_work(case.m, case.k, case.n), seconds)]
        kinds = range(len(seen[0][0]))
        largest = (nlargest(_KEPT, seen, key=lambda one: (one[0][kind], -one[1])) for kind in kinds)
        self._largest = list(dict.fromkeys(one for some in largest for one in some))
