"""The main job, end to end: verify, measure, train, report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.measurement import cells
from matmulbench.measurement.roof import Roof
from matmulbench.report import write_report
from matmulbench.results.folder import RunFolder
from matmulbench.results.schema import Status, TrainingRow, VerificationRow
from matmulbench.training import train_kernels
from matmulbench.verification import verify_kernel
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
    "standard": Effort(2.5, 7.0, 16.0, 14.0, "default", ("breast-cancer", "digits")),
    "full": Effort(12.0, 30.0, 40.0, 60.0, "default", ("breast-cancer", "digits")),
}
_VERIFY_S = {"quick": 1.0, "default": 2.7}  # a guess per kernel and dtype, for the progress bar alone
_REPORT_S = 10.0
TRAINING_DTYPE = "float32"
VERIFICATION_THREADS = 2  # with one alone, a race would not show

Progress = Callable[[str, float], None]


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

    @property
    def specs(self) -> list[str]:
        """The kernels with the baseline among them: there are no ratios without it."""
        return list(dict.fromkeys([*self.kernels, self.baseline]))

    @property
    def dtypes(self) -> list[str]:
        """The dtypes of the workloads, in order."""
        return list(dict.fromkeys(workload.dtype for workload in self.workloads))

    def budget_s(self, workload: Workload) -> float:
        """Return how many seconds are spent on measuring ``workload``."""
        is_first = (workload.m, workload.k, workload.n) == (FIRST.m, FIRST.k, FIRST.n)
        if is_first:
            return self.effort.first_s
        return self.effort.large_s if workload.flop > 1e9 else self.effort.workload_s

    def seconds(self) -> float:
        """Return about how many seconds the run takes."""
        verify = len(self.specs) * len(self.dtypes) * _VERIFY_S[self.effort.verification]
        measure = sum(map(self.budget_s, self.workloads))
        train = len(self.effort.tasks) * self.effort.task_s
        return verify + len(self.threads) * (measure + train) + _REPORT_S

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

    Parameters
    ----------
    progress
        hears what is about to be done and about how many seconds that takes.

    Raises
    ------
    FolderError
        if the folder cannot be used; see :class:`RunFolder`.
    """
    with RunFolder(folder, plan.options(), resume) as results:
        with ExitStack() as hosts:
            measuring = [hosts.enter_context(Host(threads)) for threads in plan.threads]
            for host in measuring:
                host.warm("matmulbench.measurement.rounds")  # while there is nothing to disturb
            with Host(VERIFICATION_THREADS) as host:
                right = _verify(plan, host, results, progress)
            for host in measuring:
                _measure(plan, host, results, progress, right)
                _train(plan, host, results, progress, right)
        progress("report", _REPORT_S)
    return write_report(folder)


Right = dict[tuple[str, str], VerificationRow]


def _verify(plan: Plan, host: Host, results: RunFolder, progress: Progress) -> Right:
    right: Right = {}
    for dtype in plan.dtypes:
        for spec in plan.specs:
            progress(f"verify {spec} {dtype}", _VERIFY_S[plan.effort.verification])
            if done := results.done("verification", kernel=spec, dtype=dtype):
                right[spec, dtype] = VerificationRow(**done)
                continue
            row = verify_kernel(host, spec, dtype, plan.effort.verification)
            results.add("verification", row)
            right[spec, dtype] = row
    return right


def _measure(plan: Plan, host: Host, results: RunFolder, progress: Progress, right: Right) -> None:
    roofs: dict[str, Roof] = {}
    compile_s: dict[tuple[str, str], float | None] = {}
    for workload in plan.workloads:
        dtype = workload.dtype
        progress(f"measure {workload} {dtype}", plan.budget_s(workload))
        key = {"workload": str(workload), "dtype": dtype, "threads": host.threads}
        todo = [spec for spec in plan.specs if not results.done("measurements", kernel=spec, **key)]
        if not todo:
            continue
        if dtype not in roofs:
            roofs[dtype] = cells.measure_roof(host, dtype)
            results.add("roof", roofs[dtype])
        refused = [spec for spec in todo if right[spec, dtype].status != Status.OK]
        for spec in refused:
            verified = right[spec, dtype]
            cell = cells.failed_cell(workload, host.threads, spec, verified.status, verified.finding)
            results.add("measurements", cell.row)
        sound = [spec for spec in todo if spec not in refused]
        for spec in sound:
            if (spec, dtype) not in compile_s:
                compile_s[spec, dtype] = cells.compile_seconds(host, spec, dtype)
        for cell in cells.measure_cells(host, workload, sound, plan.baseline, plan.budget_s(workload), roofs[dtype]):
            cell.row.compile_s = compile_s.get((cell.row.kernel, dtype))
            if cell.row.kernel in sound:
                results.add("measurements", cell.row, cell.samples, **cell.extra)


def _train(plan: Plan, host: Host, results: RunFolder, progress: Progress, right: Right) -> None:
    for task in plan.effort.tasks:
        progress(f"train {task}", plan.effort.task_s)
        todo = [
            spec for spec in plan.specs if not results.done("training", task=task, kernel=spec, threads=host.threads)
        ]
        if not todo:
            continue
        refused = {
            spec: found for spec in todo if (found := right.get((spec, TRAINING_DTYPE))) and found.status != Status.OK
        }
        for spec, wrong in refused.items():
            results.add("training", TrainingRow(task, spec, host.threads, wrong.status, reason=wrong.finding))
        sound = [spec for spec in todo if spec not in refused]
        for row, extra in train_kernels(host, task, sound, plan.baseline, plan.effort.task_s, plan.seed, plan.data_dir):
            results.add("training", row, **extra)
