"""Training from Python: one call, one DataFrame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.results.schema import columns
from matmulbench.training.loop import train_kernels

if TYPE_CHECKING:
    import pandas as pd


def train(
    task: str,
    kernels: str | Iterable[str],
    *,
    threads: int | Iterable[int] = 1,
    baseline: str = BASELINE,
    budget_s: float = 30.0,
    seed: int = 0,
    data_dir: str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Train ``task`` with each of ``kernels``, step by step beside ``baseline``.

    Parameters
    ----------
    kernels
        a name or ``path/to/file.py:function``, or several.
    threads
        one thread count or several.
    budget_s
        seconds for all kernels together.
    options
        what the task would otherwise choose; see :func:`~matmulbench.training.tasks.find_task`.

    Returns
    -------
    pandas.DataFrame
        the columns of ``training.csv``.

    Raises
    ------
    UsageError
        if the task or an option is unknown, or the data cannot be read.
    """
    import pandas as pd

    specs = [kernels] if isinstance(kernels, str) else list(kernels)
    rows = []
    for count in [threads] if isinstance(threads, int) else threads:
        with Host(count) as host:
            found = train_kernels(host, task, specs, baseline, budget_s, seed, data_dir, **options)
            rows += [asdict(row) for row, _ in found]
    return pd.DataFrame(rows, columns=columns("training"))
