"""The machine that figures were made on, and the versions of what made them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matmulbench.isolation.system import cores
from matmulbench.ladder.tiled.plan import current

_CPUS = Path("/sys/devices/system/cpu")
# The processor whose kernels OpenBLAS should use, by what the one at hand can do, and others whose kernels are as wide.
_WIDEST = {"avx512f": ("SkylakeX", "Cooperlake", "SapphireRapids"), "avx2": ("Haswell", "Zen", "SkylakeX")}
_TIME_NUMPY = """
import numpy, time
a = numpy.full((512, 512), 1.1, numpy.float32)
def seconds():
    start = time.perf_counter()
    a @ a
    return time.perf_counter() - start
print(min(seconds() for _ in range(100)))
"""
# What processors have for products of narrow numbers, as Linux calls it: x86's, then ARM's.
_NARROW = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16", "svebf16"),
    "float16": ("avx512_fp16", "amx_fp16", "fphp", "asimdhp"),
    "int8": ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"),
}
LIBRARIES = ("matmulbench", "numpy", "torch", "numba", "scipy", "scikit-learn", "pandas")


def describe_machine() -> dict[str, Any]:
    """Describe processor, caches (bytes), memory (bytes) and system; no names of hosts, users or folders."""
    import cpuinfo
    import psutil

    cpu = cpuinfo.get_cpu_info()
    return {
        "cpu": cpu.get("brand_raw", platform.processor()),
        "architecture": platform.machine(),
        "cores": len(cores()),
        "vector_extensions": [
            flag for flag in ("sse4_2", "avx2", "fma", "avx512f", "asimd", "sve") if flag in cpu.get("flags", [])
        ],
        **{f"l{level}_cache": caches().get(level) for level in (1, 2, 3)},
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
    }


def narrow_instructions() -> dict[str, list[str]]:
    """Return by dtype which of the instructions that multiply narrow numbers this processor has."""
    import cpuinfo

    flags = set(cpuinfo.get_cpu_info().get("flags", []))
    return {dtype: [name for name in names if name in flags] for dtype, names in _NARROW.items()}


def caches(threads: int = 1, cpus: Iterable[int] | None = None, root: Path = _CPUS) -> dict[int, int]:
    """Return how many bytes of data each level of cache holds for so many threads, by level, where the system says so.

    A cache that several cores share counts once. ``cpus`` are the cores to look at; those of this process, if not
    given. (py-cpuinfo takes one cache for another on AMD's processors.)
    """
    found: dict[int, dict[str, int]] = {}  # a level: the bytes of each cache by who shares it
    for cpu in cores() if cpus is None else cpus:
        for cache in (root / f"cpu{cpu}" / "cache").glob("index*"):
            with suppress(OSError, ValueError):
                level, kind, size, shared = (
                    (cache / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
                )
                if kind != "Instruction":
                    found.setdefault(int(level), {})[shared] = int(size.removesuffix("K")) * 1024
    if sys.platform == "darwin":
        # Of the fast cores, where there are two kinds.
        for number, name in enumerate(("l1d", "l2", "l3"), 1):
            for key in (f"hw.perflevel0.{name}cachesize", f"hw.{name}cachesize"):
                said = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False).stdout
                if said.strip().isdigit() and int(said):
                    found.setdefault(number, {"": int(said)})
    return {level: sum(sorted(sizes.values())[-threads:]) for level, sizes in sorted(found.items())}


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that take part, and the plans that ``numba-tiled`` uses.

    Of OpenBLAS also the processor it has in mind: one that it does not know it takes for an older one, whose vectors
    may be half as wide.
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
    with warnings.catch_warnings(action="ignore"):  # of plans that cannot be used, it warns where they would be
        plans = {threads: current(threads) for threads in range(1, len(cores()) + 1)}
    tuned = [
        f"{name} on threads {threads}: {', '.join(options)}"
        for threads, of_each in plans.items()
        for name, options in of_each.items()
    ]
    found["numba-tiled"] = "; ".join(tuned) or "plans by heuristics"
    return found


def older_kernels(machine: dict[str, Any], versions: dict[str, str]) -> str | None:
    """Say by how much numpy is slower than it could be, where its OpenBLAS uses kernels for an older processor.

    Both are described as :func:`describe_machine` and :func:`library_versions` do; a second, if there is anything to
    say.
    """
    flag = next((flag for flag in _WIDEST if flag in machine["vector_extensions"]), None)
    _, _, used = versions.get("openblas", "").partition("kernels for ")
    if not flag or not used or used in _WIDEST[flag]:
        return None
    better = _WIDEST[flag][0]
    seconds = []
    for kernels in (used, better):
        environment = os.environ | {"OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", _TIME_NUMPY], env=environment, capture_output=True, check=False)
        if done.returncode:
            return f"numpy's OpenBLAS uses kernels for {used}, an older processor: figures against numpy flatter"
        seconds.append(float(done.stdout))
    return (
        f"numpy's OpenBLAS uses kernels for {used}, an older processor; with OPENBLAS_CORETYPE={better} numpy does "
        f"512x512x512 in float32 on one thread {seconds[0] / seconds[1]:.2f} times as fast: figures against numpy may "
        "flatter by as much"
    )
