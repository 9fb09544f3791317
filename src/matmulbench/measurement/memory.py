"""How much memory this process has taken at most, asked of the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def forget_peak() -> int:
    """Let :func:`peak_since` count from now; return the bytes held now (Linux; elsewhere 0)."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not serve again unseen
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")  # the peak starts again from here: proc(5)
        return _status("VmRSS")
    return 0


def peak_since(before: int) -> int:
    """Return how many bytes beyond ``before``, which :func:`forget_peak` gave, were held at most (elsewhere 0)."""
    return max(0, _status("VmHWM") - before) if before else 0


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
