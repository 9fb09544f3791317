"""Training from Python: one call, one DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.results.schema import Status, TrainingRow, frame
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
    progress: Callable[[str], None] = lambda text: None,
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
    progress
        hears what is about to be done.
    options
        what the task would otherwise choose; see :func:`~matmulbench.training.tasks.find_task`.

    Returns
    -------
    pandas.DataFrame
        a row per thread count and kernel. What was trained: ``task``, ``kernel``, ``threads``; what became of it:
        ``status``, ``extrapolated``, ``steps``, ``reason``; seconds a step: ``step_s``, ``step_ci_low_s``,
        ``step_ci_high_s``; from 0 to 1: ``matmul_share``, ``train_accuracy``, ``test_accuracy``; the baseline's step
        over the kernel's: ``predicted_speedup``, ``measured_speedup``, ``measured_ci_low``, ``measured_ci_high``; no
        unit: ``final_loss``, ``loss_deviation``. See :class:`~matmulbench.results.schema.TrainingRow`.

    Raises
    ------
    UsageError
        if the task or an option is unknown, or the data cannot be read.
    """
    own_model = ":" in task
    if not own_model:
        find_task(task, **options)  # what is wrong is said before anything is verified
    specs = [kernels] if isinstance(kernels, str) else list(kernels)
    rows = []
    for count in [threads] if isinstance(threads, int) else threads:
        with Host(count) as host:
            dtype = options.get("dtype") or ("float32" if own_model else TASKS[task].dtype)
            verified = []
            for spec in dict.fromkeys([baseline, *specs]):
                progress(f"verify {spec} {dtype}")
                verified.append(verify_kernel(host, spec, dtype, "quick"))
            sound = [row.kernel for row in verified if row.status == Status.OK]
            rows += [
                TrainingRow(task, row.kernel, count, row.status, reason=row.finding)
                for row in verified
                if row.kernel not in sound
            ]
            progress(f"train {task}, {count} thread{'s' * (count > 1)}")
            found = train_kernels(host, task, sound, baseline, budget_s, seed, data_dir, **options)
            rows += [row for row, _ in found]
    return frame("training", rows)
