"""What a kernel costs before its first result: just-in-time compilation, measured with an empty cache."""

from __future__ import annotations

import tempfile
from time import perf_counter

import numba

from matmulbench.ladder.plugins import load_kernel
from matmulbench.workload import Workload


def compile_seconds(spec: str, dtype: str) -> float:
    """Return by how many seconds the first call of ``spec`` exceeds the second, in a process that never saw it."""
    with tempfile.TemporaryDirectory() as empty:
        numba.config.CACHE_DIR = empty  # type: ignore[attr-defined]  # set by numba at run time
        kernel = load_kernel(spec)
        a, b = Workload(8, 8, 8, dtype=dtype).operands()

        def call_s() -> float:
            start = perf_counter()
            kernel(a, b)
            return perf_counter() - start

        first = call_s()
        return max(0.0, first - min(call_s() for _ in range(3)))
