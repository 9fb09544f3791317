"""The main job, end to end: what each preset verifies, measures and trains, journalled into a folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matmulbench.ladder import BASELINE
from matmulbench.pipeline import Job, Progress, Training, carry_out
from matmulbench.report import write_report
from matmulbench.results.folder import RunFolder
from matmulbench.workload import FIRST, PRESETS, Workload


@dataclass(frozen=True)
class Effort:
    """How long a preset takes its time, in seconds."""

    workload_s: float
    large_s: float  # for a workload of more than a GFLOP
    first_s: float  # for the first workload, where the slowest rung is timed in full
    task_s: float
    verification: str
    tasks: tuple[str, ...]


EFFORTS = {
    "quick": Effort(0.6, 0.6, 1.0, 3.0, "quick", ("breast-cancer",)),
    "standard": Effort(2.5, 7.0, 13.0, 13.0, "default", ("breast-cancer", "digits")),
    "full": Effort(12.0, 30.0, 40.0, 60.0, "default", ("breast-cancer", "digits")),
}
_REPORT_S = 10.0


@dataclass(frozen=True)
class Plan:
    """Everything that one run does, in order."""

    preset: str
    kernels: tuple[str, ...]
    baseline: str = BASELINE
    threads: tuple[int, ...] = (1,)
    workloads: tuple[Workload, ...] = ()
    data_dir: str | None = None
    seed: int = 0
    effort: Effort = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "workloads", self.workloads or tuple(PRESETS[self.preset]))
        effort = EFFORTS[self.preset]
        if self.data_dir and self.preset != "quick":
            effort = Effort(**{**asdict(effort), "tasks": (*effort.tasks, "mnist")})
        object.__setattr__(self, "effort", effort)

    def budget_s(self, workload: Workload) -> float:
        """Return how many seconds are spent on measuring ``workload``."""
        is_first = (workload.m, workload.k, workload.n) == (FIRST.m, FIRST.k, FIRST.n)
        if is_first:
            return self.effort.first_s
        return self.effort.large_s if workload.flop > 1e9 else self.effort.workload_s

    @property
    def job(self) -> Job:
        """The plan as a job."""
        return Job(
            self.kernels,
            self.baseline,
            self.threads,
            workloads=tuple((one, self.budget_s(one)) for one in self.workloads),
            trainings=tuple(Training(task, self.effort.task_s, self.data_dir) for task in self.effort.tasks),
            effort=self.effort.verification,
            compilation=True,
            seed=self.seed,
        )

    def seconds(self) -> float:
        """Return about how many seconds the run takes."""
        return self.job.seconds() + _REPORT_S

    def options(self) -> dict[str, Any]:
        """Return what distinguishes this run from another, for ``run.json``."""
        return {
            "preset": self.preset,
            "kernels": list(self.kernels),
            "baseline": self.baseline,
            "threads": list(self.threads),
            "workloads": [f"{workload} {workload.dtype}" for workload in self.workloads],
            "tasks": list(self.effort.tasks),
            "seed": self.seed,
        }


def execute(plan: Plan, folder: Path, resume: bool = False, progress: Progress = lambda text, seconds: None) -> Path:
    """Carry out ``plan``, journalling into ``folder``; return the path of the report.

    ``progress`` is called with what comes next and about how many seconds that takes.

    Raises
    ------
    FolderError
        if the folder cannot be used; see :class:`RunFolder`.
    """
    with RunFolder(folder, plan.options(), resume) as results:
        carry_out(plan.job, results, progress)
        progress("report", _REPORT_S)
    return write_report(folder)
