"""What a process and its descendants use, asked from outside; and their end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CPU_CLOCK = 2  # CPUCLOCK_SCHED: the processor time of all threads of a process, in nanoseconds


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, and to hand it the orphans of its descendants."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that all threads of ``pid`` have used; NaN where that cannot be asked."""
    try:
        return time.clock_gettime((~pid << 3) | _CPU_CLOCK)  # as clock_getcpuclockid(3) makes it
    except OSError:
        return float("nan")


def delay_s(pid: int | str = "thread-self") -> float:
    """Return the seconds that the first thread of ``pid`` has waited for a core; 0 where Linux does not count them."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/schedstat") as schedstat:
        return int(schedstat.read().split()[1]) / 1e9
    return 0.0


def descendants_s(pid: int) -> float:
    """Return the seconds of processor time of all descendants of ``pid``, living or waited for."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        times = process.cpu_times()
        living = process.children(recursive=True)
        waited: float = times.children_user + times.children_system
        return waited + sum(used for child in living if (used := processor_s(child.pid)) == used)
    return 0.0


def end_descendants(pid: int) -> None:
    """Kill all descendants of ``pid``, in whatever session they are."""
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                process.kill()


def end_children(pid: int, spare: set[int]) -> list[int]:
    """Kill all children of ``pid`` but those of ``spare``, with their descendants; return which."""
    ended = [child for child in _children(pid) if child not in spare]
    for child in ended:
        end_descendants(child)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    return ended


def _children(pid: int) -> list[int]:
    # A hundred times faster than psutil, where Linux was built with it.
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []
