"""What a kernel must leave as it is in the process around it: clocks, threads, and the rules of arithmetic."""

from __future__ import annotations

import gc
import sys
import time

import numpy as np
import torch


def process_state() -> dict[str, object]:
    """Return, by name, what would change other kernels' results or times."""
    clocks = (time.perf_counter, time.perf_counter_ns, time.monotonic, time.process_time, time.time)
    return {
        "the clocks": [id(clock) for clock in clocks],
        "torch.matmul": (id(torch.matmul), id(torch.Tensor.__matmul__)),
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's float32 precision": torch.get_float32_matmul_precision(),
        "gradient mode": torch.is_grad_enabled(),
        "subnormal numbers": float(torch.tensor(1e-40) * 0.5),
        "numpy's error handling": tuple(np.geterr().items()),
        "garbage collection": gc.isenabled(),
        "the trace and profile functions": (sys.gettrace(), sys.getprofile()),
    }


def difference(before: dict[str, object], after: dict[str, object]) -> str | None:
    """Return what differs between two states, in words."""
    for name, value in before.items():
        if after[name] != value:
            return f"changes {name} for all that comes after it: {value} before, {after[name]} now"
    return None
