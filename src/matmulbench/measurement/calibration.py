"""Fixed work, timed in each round: what changes in it is the machine's doing.

Two kinds, because a busy machine does not slow all work alike: a neighbour on the other half of a core takes a few
percent from multiply-adds on registers, and up to half the speed from short calls into a library.
"""

from __future__ import annotations

from itertools import repeat
from time import perf_counter

import numpy as np

from matmulbench.measurement.fma import run_alone

_ITERATIONS = 75_000
_CALLS = 200
_ROW = np.ones(784, np.float32)


def calibrate() -> tuple[float, float]:
    """Return the seconds of a fixed amount of work of each kind (``FIXED_WORK``), a quarter of a millisecond or so."""
    start = perf_counter()
    run_alone(_ITERATIONS, np.float32(1e-9))
    middle = perf_counter()
    for _ in repeat(None, _CALLS):
        np.add(_ROW, _ROW)
    return middle - start, perf_counter() - middle
