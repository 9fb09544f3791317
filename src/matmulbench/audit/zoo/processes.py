"""Kernels that take their process with them, or never come back."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import ctypes
import os
import signal
import sys
import time

import numpy as np
import torch

from matmulbench.audit.zoo import planted


@planted("an endless loop", "timeout")
def endless(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    while True:
        pass


@planted("an endless sleep, for 17 columns only", "timeout")
def endless_at_17(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if b.shape[1] == 17:
        time.sleep(1e6)
    return a @ b


@planted("a segmentation fault", "crashed")
def segmentation_fault(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    ctypes.string_at(0)
    return a @ b


@planted("os._exit", "crashed")
def exits(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    os._exit(0)


@planted("sys.exit", "error")
def exits_politely(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    sys.exit(0)


@planted("abort", "crashed")
def aborts(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    os.abort()


@planted("killed", "crashed")
def killed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return a @ b


@planted("memory without end", "out-of-memory")
def memory_hog(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    hoard = []
    while True:
        hoard.append(np.empty(1 << 30, np.uint8))


@planted("an exception", "error")
def raises(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("not today")


@planted("an exception from 100 columns on", "error")
def raises_at_100(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if b.shape[1] >= 100:
        raise RuntimeError("too wide")
    return a @ b


@planted("a recursion without end", "error", "crashed")
def recursion(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return recursion(a, b)


@planted("a library that is not there", "unavailable")
def unavailable(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    raise ModuleNotFoundError("No module named 'blas_of_my_dreams'")
