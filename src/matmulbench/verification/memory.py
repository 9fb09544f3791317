"""How much temporary memory a kernel takes, predicted for a large product from what a small one took."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil
import torch

if TYPE_CHECKING:
    from matmulbench.ladder import Kernel
    from matmulbench.verification.subject import Subject

_SIZES = (160, 48)
_PATIENCE = 0.2  # seconds that the product which is watched may take


@dataclass(frozen=True)
class Appetite:
    """Temporary memory of a kernel: bytes per m·k·n, and per m·k + k·n + m·n where that is all that it takes."""

    cubic: float
    quadratic: float

    def bytes(self, m: int, k: int, n: int) -> int:
        """Return the temporary bytes, result included, that a product of this size is predicted to need."""
        return int(self.cubic * m * k * n + self.quadratic * (m * k + k * n + m * n))

    @classmethod
    def measure(cls, subject: Subject) -> Self | None:
        """Watch the largest product that takes no longer than a fraction of a second; None if none does."""
        for size in _SIZES:
            if subject.predict(size, size, size) < _PATIENCE:
                return cls.of(subject.kernel, subject.dtype, size)
        return None

    @classmethod
    def of(cls, kernel: Kernel, dtype: str, size: int = _SIZES[0]) -> Self:
        """Watch the memory of one product of ``size`` x ``size`` matrices."""
        a, b = (torch.ones(size, size, dtype=getattr(torch, dtype)) for _ in "ab")
        kernel(a, b)  # what is taken once and kept (threads, compiled code) does not grow with the size
        peak = max(_peak_of(kernel, a, b) for _ in range(2))
        cube = a.element_size() * size**3
        if peak > cube / 4:
            return cls(peak / size**3, 0.0)
        return cls(0.0, peak / (3 * size**2))


def refusal(kernel: Kernel, dtype: str, m: int, k: int, n: int) -> str | None:
    """Return why a product of this size must not be tried with ``kernel``: too little free memory; None if it may."""
    needed, free = Appetite.of(kernel, dtype).bytes(m, k, n), free_bytes()
    if needed <= free:
        return None
    return f"predicted to need {needed:,} bytes of temporary memory, of which {free:,} are free"


def free_bytes() -> int:
    """Return how many bytes can be taken without swapping."""
    return int(psutil.virtual_memory().available)


def forget_peak() -> int:
    """Let :func:`peak_since` count from now; return the bytes held now (Linux; elsewhere 0)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not serve again unseen
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")  # the peak starts again from here: proc(5)
        return _status("VmRSS")
    return 0


def peak_since(before: int) -> int:
    """Return how many bytes beyond ``before``, which :func:`forget_peak` gave, were held at most (elsewhere 0)."""
    return max(0, _status("VmHWM") - before) if before else 0


def _peak_of(kernel: Kernel, a: torch.Tensor, b: torch.Tensor) -> int:
    before = forget_peak()
    result = kernel(a, b)
    peak = peak_since(before)
    del result
    return peak


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
