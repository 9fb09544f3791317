"""Measuring from Python: one call, one DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.measurement import cells
from matmulbench.results.schema import Status, frame
from matmulbench.verification import verify_kernel
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import pandas as pd


def measure(
    kernels: Iterable[str],
    workloads: Iterable[Workload | str],
    *,
    threads: int | Iterable[int] = 1,
    baseline: str = BASELINE,
    budget_s: float = 10.0,
    cold: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Verify ``kernels``, then time them on each of ``workloads``, paired with ``baseline``.

    Parameters
    ----------
    kernels
        names or ``path/to/file.py:function``.
    workloads
        workloads or their text forms.
    threads
        one thread count or several.
    budget_s
        seconds for each workload, shared by its kernels.
    cold
        evict the operands from the caches before each call.
    progress
        hears what is about to be done.

    Returns
    -------
    pandas.DataFrame
        a row per thread count, workload and kernel. What was timed: ``workload``, ``m``, ``k``, ``n``, ``layout``,
        ``dtype``, ``threads``, ``kernel``; what became of it: ``status``, ``extrapolated``, ``reason``; seconds a
        call: ``median_s``, ``ci_low_s``, ``ci_high_s``, ``min_s``, over so many rounds: ``samples``; the baseline's
        time over the kernel's: ``speedup``, ``speedup_ci_low``, ``speedup_ci_high``, ``verdict``; GFLOP/s:
        ``gflops``, ``roof_gflops``; percent: ``roof_percent``; seconds, with ``matmulbench run`` alone:
        ``compile_s``. See :class:`~matmulbench.results.schema.MeasurementRow`.

    Raises
    ------
    ValueError
        if a workload's text is malformed.
    """
    specs = list(dict.fromkeys([*kernels, baseline]))
    todo = [Workload.parse(item) if isinstance(item, str) else item for item in workloads]
    rows = []
    verified = {}
    for count in [threads] if isinstance(threads, int) else threads:
        with Host(count) as host:
            roofs = {}
            for workload in todo:
                dtype = workload.dtype
                for spec in specs:
                    if (spec, dtype) not in verified:
                        progress(f"verify {spec} {dtype}")
                        verified[spec, dtype] = verify_kernel(host, spec, dtype, "quick")
                if dtype not in roofs:
                    roofs[dtype] = cells.measure_roof(host, dtype)
                progress(f"measure {workload} {dtype}, {count} thread{'s' * (count > 1)}")
                sound = [spec for spec in specs if verified[spec, dtype].status == Status.OK]
                refused = [verified[spec, dtype] for spec in specs if spec not in sound]
                rows += [cells.failed_cell(workload, count, no.kernel, no.status, no.finding).row for no in refused]
                timed = cells.measure_cells(host, workload, sound, baseline, budget_s, roofs[dtype], cold=cold)
                cells_here = list(timed)
                rows += [cell.row for cell in cells_here]
                for warning in cells_here[0].extra.get("warnings", []) if cells_here else []:
                    progress(f"warning: {warning}")
    return frame("measurements", rows)
