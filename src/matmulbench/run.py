"""The main job, end to end: what each preset verifies, measures and trains, journalled into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmulbench.arguments import kernel_specs, read_workloads, thread_counts
from matmulbench.isolation import IMPORT_S
from matmulbench.ladder import BASELINE, LADDER
from matmulbench.ladder.plugins import kernels
from matmulbench.pipeline import Job, Progress, Training, carry_out
from matmulbench.report import write_report
from matmulbench.results.folder import RunFolder
from matmulbench.workload import FIRST, Workload, workloads


@dataclass(frozen=True)
class Effort:
    """How long a preset takes its time, in seconds."""

    workload_s: float
    large_s: float  # for a workload of more than a GFLOP
    first_s: float  # for the first workload, where the slowest rung is timed in full
    task_s: float
    verification: str
    tasks: tuple[str, ...]

    def budget_s(self, workload: Workload) -> float:
        """Return how many seconds are spent on measuring ``workload``."""
        if (workload.m, workload.k, workload.n) == (FIRST.m, FIRST.k, FIRST.n):
            return self.first_s
        return self.large_s if workload.flop > 1e9 else self.workload_s


EFFORTS = {
    "quick": Effort(0.6, 0.6, 1.0, 3.0, "quick", ("breast-cancer",)),
    "standard": Effort(2.5, 7.0, 13.0, 13.0, "default", ("breast-cancer", "digits")),
    "full": Effort(12.0, 30.0, 40.0, 60.0, "default", ("breast-cancer", "digits")),
}
_REPORT_S = 10.0


@dataclass(frozen=True)
class Run:
    """A job, and the preset that it was made by."""

    preset: str
    job: Job

    @property
    def seconds(self) -> float:
        """About how many it takes."""
        return self.job.seconds() + _REPORT_S

    def options(self) -> dict[str, Any]:
        """Return what distinguishes this run from another, for ``run.json``."""
        return {
            "preset": self.preset,
            "kernels": self.job.specs,
            "baseline": self.job.baseline,
            "threads": list(self.job.threads),
            "workloads": [f"{workload} {workload.dtype}" for workload, _ in self.job.workloads],
            "tasks": [training.task for training in self.job.trainings],
            "seed": self.job.seed,
        }

    def execute(self, folder: Path, resume: bool = False, progress: Progress = lambda text, seconds: None) -> Path:
        """Carry it out, journalling into ``folder``; return the path of the report.

        ``progress`` is called with what comes next and about how many seconds that takes.

        Raises
        ------
        FolderError
            if the folder cannot be used; see :class:`RunFolder`.
        """
        with RunFolder(folder, self.options(), resume) as results:
            carry_out(self.job, results, progress)
            progress("report", _REPORT_S)
        return write_report(folder)


def plan(
    preset: str | None = None,
    named: Iterable[str] = (),
    *,
    products: Iterable[str] = (),
    threads: str | int | Iterable[int] = 1,
    baseline: str = BASELINE,
    data_dir: str | None = None,
    seed: int = 0,
    import_timeout_s: float = IMPORT_S,
    cores: int | None = None,
) -> Run:
    """Plan a run: what a preset does, with the kernels ``named`` and on ``products`` instead of its own workloads.

    The preset is ``quick`` where kernels are named, else ``standard``. A user's kernels are run beside the whole
    ladder, unless rungs of it are among them. MNIST is trained on, too, where ``data_dir`` is given. ``cores`` are
    those of the machine that it is for, if not this one's.

    Raises
    ------
    UsageError
        if an argument is unknown or out of its range.
    """
    named, rungs = list(named), [rung.name for rung in LADDER]
    if preset is None:
        preset = "quick" if named else "standard"
    own = workloads(preset)
    effort = EFFORTS[preset]
    if named and not set(rungs) & set(named):
        named = [*rungs, *named]
    tasks = (*effort.tasks, "mnist") if data_dir and preset != "quick" else effort.tasks
    job = Job(
        kernel_specs(named or kernels()),
        kernel_specs(baseline)[0],
        thread_counts(threads, cores),
        workloads=tuple((one, effort.budget_s(one)) for one in read_workloads([*products] or own)),
        trainings=tuple(Training(task, effort.task_s, data_dir) for task in tasks),
        effort=effort.verification,
        compilation=True,
        seed=seed,
        import_s=import_timeout_s,
    )
    return Run(preset, job)
