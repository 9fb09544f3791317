"""Make a Python on Linux lack what other systems do not have; found by way of ``PYTHONPATH``.

No ``resource``, no ``fcntl``, no fork, no files in memory, no cores to choose, no clocks of other processes, no
``prctl``, and no ``/proc`` or ``/sys`` for matmulbench's own code. Libraries that ask the system, by means of their own
on each, keep theirs.
"""

import ctypes
import os
import sys
import time

ASKERS = ("psutil", "cpuinfo", "numba", "torch", "joblib", "threadpoolctl")


def hide() -> None:
    from multiprocessing import reduction

    import filelock  # noqa: F401 -- on Linux, it needs what is hidden now
    import psutil  # noqa: F401 -- likewise

    for name in ("resource", "fcntl"):
        sys.modules[name] = None
    for name in ("fork", "forkpty", "memfd_create", "sched_getaffinity", "sched_setaffinity", "pread", "pwrite"):
        delattr(os, name)
    del time.clock_gettime
    reduction.ACKNOWLEDGE = True  # files that are sent, as on macOS
    plain = ctypes.CDLL.__getattr__

    def without_prctl(library, name):
        if name == "prctl":
            raise AttributeError(name)
        return plain(library, name)

    ctypes.CDLL.__getattr__ = without_prctl
    sys.addaudithook(refuse)


def refuse(event: str, arguments: tuple) -> None:
    if event != "open" or not str(arguments[0]).startswith(("/proc", "/sys/")):
        return
    frame = sys._getframe()
    while frame:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ASKERS:
            return
        if package == "matmulbench":
            raise FileNotFoundError(2, "this system has no such folder", arguments[0])
        frame = frame.f_back


# py-cpuinfo runs itself in a process of its own, and forks there.
if not any("cpuinfo" in argument for argument in sys.orig_argv):
    hide()
