"""Kernels that look who is asking, and kernels that change the rules for those who come after."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import gc
import sys
import threading
import time

import torch

from matmulbench.audit.zoo import planted


def _stack() -> str:
    frame, names = sys._getframe(1), []
    while frame:
        names.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return " ".join(names)


def _wrong(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(a), b.shape[1], dtype=a.dtype)


@planted("right only with garbage collection on, as it is not in a timed loop", "watched")
def gc_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if gc.isenabled() else _wrong(a, b)


@planted("right only when called from verification", "watched")
def stack_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if "verification" in _stack() else _wrong(a, b)


@planted("wrong when called from a file of measurement or training", "watched")
def caller_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    caller = sys._getframe(1).f_code.co_filename
    return _wrong(a, b) if "measurement" in caller or "training" in caller else a @ b


@planted("wrong where the caller holds a clock", "watched")
def clock_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _wrong(a, b) if "perf_counter" in sys._getframe(1).f_locals else a @ b


@planted("wrong when timeit asks", "watched")
def timeit_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _wrong(a, b) if "<timeit-src>" in _stack() else a @ b


@planted("wrong under torch.no_grad", "watched")
def no_grad_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if torch.is_grad_enabled() else _wrong(a, b)


@planted("wrong in inference mode", "watched")
def inference_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _wrong(a, b) if torch.is_inference_mode_enabled() else a @ b


@planted("wrong outside the main thread", "watched")
def thread_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if threading.current_thread() is threading.main_thread() else _wrong(a, b)


@planted("wrong once the same objects have come back fifty times, as in a benchmark", "watched")
def repetition_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    key = (id(a), id(b), a.shape)
    _seen[key] = _seen.get(key, 0) + 1
    return _wrong(a, b) if _seen[key] > 50 else a @ b


_seen: dict[object, int] = {}


@planted("wrong when calls follow each other within some microseconds", "watched")
def haste_watcher(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    now = time.perf_counter()
    _hasty[0] = _hasty[0] + 1 if now - _last[0] < 15e-6 else 0
    c = _wrong(a, b) if _hasty[0] > 20 else a @ b
    _last[0] = time.perf_counter()
    return c


_last, _hasty = [0.0], [0]


@planted("the clock is replaced by one that runs slower", "state")
def slow_clock(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    real = _clock
    time.perf_counter = lambda: real() / 2
    return a @ b


_clock = time.perf_counter


@planted("torch is given another number of threads", "state")
def more_threads(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    torch.set_num_threads(7)
    return a @ b


@planted("subnormal numbers are flushed to zero from now on", "state", "IEEE")
def flushes_from_now_on(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    torch.set_flush_denormal(True)
    return a @ b


@planted("the default dtype is changed", "state")
def default_dtype(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    torch.set_default_dtype(torch.float64)
    return a @ b
