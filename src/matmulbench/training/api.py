"""Training from Python: one call, one DataFrame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.results.schema import Status, TrainingRow, columns
from matmulbench.training.loop import train_kernels
from matmulbench.training.tasks import TASKS, find_task
from matmulbench.verification import verify_kernel

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
    """Verify ``kernels``, then train ``task`` with each of them, step by step beside ``baseline``.

    Parameters
    ----------
    task
        a name, or ``package.module:factory`` for a model of one's own; see
        :func:`~matmulbench.training.own_model.load_model`.
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

    own_model = ":" in task
    if not own_model:
        find_task(task, **options)  # what is wrong is said before anything is verified
    specs = [kernels] if isinstance(kernels, str) else list(kernels)
    rows = []
    for count in [threads] if isinstance(threads, int) else threads:
        with Host(count) as host:
            dtype = options.get("dtype") or ("float32" if own_model else TASKS[task].dtype)
            verified = [verify_kernel(host, spec, dtype, "quick") for spec in dict.fromkeys([baseline, *specs])]
            sound = [row.kernel for row in verified if row.status == Status.OK]
            rows += [
                TrainingRow(task, row.kernel, count, row.status, reason=row.finding)
                for row in verified
                if row.kernel not in sound
            ]
            found = train_kernels(host, task, sound, baseline, budget_s, seed, data_dir, **options)
            rows += [row for row, _ in found]
    return pd.DataFrame([asdict(row) for row in rows], columns=columns("training"))
