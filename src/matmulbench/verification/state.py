"""What a kernel must leave as it is in the process around it: clocks, threads, and the rules of arithmetic."""

from __future__ import annotations

import time

import torch

_noted: dict[str, object] = {}


def note_settings() -> None:
    """Note what :func:`changed_settings` compares with."""
    _noted.update(_settings())


def changed_settings() -> str | None:
    """Return what has changed in this process since it was noted, in words."""
    for name, now in _settings().items():
        if now != _noted[name]:
            return f"changes {name} for all that comes after it: {_noted[name]} before, {now} now"
    return None


def _settings() -> dict[str, object]:
    """Return, by name, what would change other kernels' results or times."""
    clocks = (time.perf_counter, time.perf_counter_ns, time.monotonic, time.process_time, time.time)
    event = torch.cuda.Event
    up, down = (1.0 + tiny != 1.0 for tiny in (1e-30, -1e-30))
    devices = (torch.cuda.synchronize, event, event.record, event.elapsed_time)
    return {
        "the clocks": [id(clock) for clock in (*clocks, *devices)],
        "torch.matmul": (id(torch.matmul), id(torch.Tensor.__matmul__)),
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's float32 precision": torch.get_float32_matmul_precision(),
        "gradient mode": torch.is_grad_enabled(),
        "the direction of rounding": "up" if up else "down" if down else "to nearest",
        "subnormal numbers": float(torch.tensor(1e-40) * 0.5),  # which the direction changes, too
    }
