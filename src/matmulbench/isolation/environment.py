"""The variables, to be set before a process starts, that fix its threads and how it keeps memory."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from matmulbench.ladder.tiled.plan import VARIABLE, as_text, current

# torch, numpy's OpenBLAS, MKL and numba each keep a pool of their own; pinning one leaves the others.
_POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Threads that wait spin first: for milliseconds, by default, in which they take the cores from the next library's.
# These are some tenths of a millisecond: long enough from one call to the next, short against a block.
_SPIN_LIMITS = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1", "OPENBLAS_THREAD_TIMEOUT": "20"}
_NO_SPIN = {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
# glibc gives freed memory back to the system or keeps it, as the heap happens to lie; to get it anew takes longer than
# many a product. Kept, a result's memory serves again.
_KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
# What a cluster or a shell may have set would pin every child's threads to one core.
_UNPINNED = {"OMP_PROC_BIND": "false", "KMP_AFFINITY": "disabled"}
DROPPED = ("OMP_PLACES", "GOMP_CPU_AFFINITY", "OMP_THREAD_LIMIT", "OMP_DYNAMIC")


def thread_environment(threads: int, spin: bool = True) -> dict[str, str]:
    """Return the variables that fix every pool at ``threads`` threads, unpinned, and the plan of ``numba-tiled``.

    They also make the C library keep freed memory. Without ``spin``, threads that wait sleep at once: on a busy machine
    two that spin on one core may keep each other from a product of half a second for half a minute.
    """
    # torch.compile's worker processes would go on working while others are timed.
    pools = dict.fromkeys(_POOLS, str(threads)) | {"MKL_DYNAMIC": "FALSE", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    plan = {VARIABLE: as_text(current(threads))}  # which no one changes while the process works
    return pools | (_SPIN_LIMITS if spin else _NO_SPIN) | _KEEP_FREED_MEMORY | _UNPINNED | _numba_cache() | plan


@functools.cache
def _numba_cache() -> dict[str, str]:
    """Return where numba is to keep what it compiles if it may not do so in the home: in a folder that goes at the end.

    With no place to keep it, numba refuses to compile what asks to be kept.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return {}
    import pooch

    home = Path(pooch.os_cache("numba"))
    with suppress(OSError):
        if home.is_absolute():  # else there is no home
            home.mkdir(parents=True, exist_ok=True)
            if os.access(home, os.W_OK):
                return {}
    folder = tempfile.mkdtemp(prefix="matmulbench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"NUMBA_CACHE_DIR": folder}
