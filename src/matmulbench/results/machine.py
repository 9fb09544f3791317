"""The machine that figures were made on, and the versions of what made them."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("matmulbench", "numpy", "torch", "numba", "scipy", "scikit-learn", "pandas")


def describe_machine() -> dict[str, Any]:
    """Describe processor, caches (bytes), memory (bytes) and system; no names of hosts, users or folders."""
    import cpuinfo
    import psutil

    cpu = cpuinfo.get_cpu_info()
    return {
        "cpu": cpu.get("brand_raw", platform.processor()),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "vector_extensions": [
            flag for flag in ("sse4_2", "avx2", "fma", "avx512f", "asimd", "sve") if flag in cpu.get("flags", [])
        ],
        "l2_cache": cache_bytes(2),
        "l3_cache": cache_bytes(3),
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
    }


def cache_bytes(level: int) -> int | None:
    """Return the size of a core's cache as Linux has it; py-cpuinfo takes one for another on AMD's processors."""
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with suppress(OSError, ValueError):
            if int((cache / "level").read_text()) == level:
                return int((cache / "size").read_text().strip().removesuffix("K")) * 1024
    return None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that take part; of OpenBLAS also the processor it has in mind.

    OpenBLAS takes a processor that it does not know for an older one, whose vectors may be half as wide.
    """
    import numpy  # noqa: F401 -- its BLAS has to be loaded, to be found below
    from threadpoolctl import threadpool_info

    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    for pool in threadpool_info():
        if pool["internal_api"] == "openblas" and "numpy" in pool["filepath"]:  # scipy brings its own
            found["openblas"] = f"{pool['version']}, kernels for {pool['architecture']}"
    return found
