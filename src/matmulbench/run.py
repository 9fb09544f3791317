"""The main job, end to end: what each preset verifies, measures and trains, journalled into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matmulbench.api import trace_model
from matmulbench.arguments import kernel_specs, read_workloads, thread_counts
from matmulbench.errors import UsageError, check_known
from matmulbench.isolation import IMPORT_S
from matmulbench.isolation.system import missing
from matmulbench.ladder import BASELINES, LADDERS
from matmulbench.ladder.devices import DEVICES
from matmulbench.ladder.plugins import kernels
from matmulbench.pipeline import Job, Progress, Training, carry_out, require_device
from matmulbench.report import write_report
from matmulbench.results.folder import RunFolder
from matmulbench.results.machine import older_kernels
from matmulbench.workload import FIRST, Workload, workloads

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Budgets:
    """What a preset verifies with and trains, and how many seconds it spends on each thing."""

    workload_s: float
    large_s: float  # for a workload of more than a GFLOP
    first_s: float  # for the first workload, where the slowest rung is timed in full
    task_s: float
    model_s: float
    verification: str
    tasks: tuple[str, ...]

    def for_workload(self, workload: Workload) -> float:
        """Return how many seconds are spent on measuring ``workload``."""
        if replace(workload, layout=FIRST.layout, dtype=FIRST.dtype) == FIRST:
            return self.first_s
        return self.large_s if workload.flop > 1e9 else self.workload_s


BUDGETS = {
    "quick": Budgets(0.6, 0.6, 1.0, 3.0, 15.0, "quick", ("breast-cancer",)),
    "standard": Budgets(2.5, 7.0, 13.0, 13.0, 60.0, "default", ("breast-cancer", "digits")),
    "full": Budgets(12.0, 30.0, 40.0, 60.0, 240.0, "default", ("breast-cancer", "digits")),
}
_REPORT_S = 10.0
_MANY, _ENOUGH = 16, 0.95  # shapes of a model that are all timed; of more, those that make up this share of their time


@dataclass(frozen=True)
class Run:
    """A job, the preset that it was made by, the workloads that were asked for, and the model that had the others."""

    preset: str
    job: Job
    asked: tuple[Workload, ...] = ()
    model: str | None = None

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
            "device": self.job.device,
            "threads": list(self.job.threads),
            # Without those of a model: which of many are timed, a clock decides.
            "workloads": [f"{workload} {workload.dtype}" for workload in self.asked],
            "model": self.model,
            "compare_compile": any(training.compare_compile for training in self.job.trainings),
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
        UsageError
            if this machine lacks the device.
        """
        require_device(self.job.device)
        with RunFolder(folder, self.options(), resume) as results:
            older = older_kernels(results.run["machine"], results.run["versions"])
            if notes := [*missing(), *([older] if older else [])]:
                results.run["notes"] = notes
            carry_out(self.job, results, progress)
            progress("report", _REPORT_S)
        return write_report(folder)


def plan(
    preset: str | None = None,
    named: Iterable[str] = (),
    *,
    products: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    model: str | None = None,
    compare_compile: bool = False,
    threads: str | int | Iterable[int] = 1,
    baseline: str | None = None,
    device: str = "cpu",
    data_dir: str | None = None,
    seed: int = 0,
    import_timeout_s: float = IMPORT_S,
    progress: Callable[[str], None] = lambda text: None,
    cores: int | None = None,
) -> Run:
    """Plan a run: what a preset does, with the kernels ``named`` and on ``products`` instead of its own workloads.

    The preset is ``quick`` where kernels are named, else ``standard``. A user's kernels are run beside the whole
    ladder, unless rungs of it are among them. ``dtypes`` are those of the workloads, if named. MNIST is trained on,
    too, where ``data_dir`` is given. ``cores`` are
    those of the machine that it is for, if not this one's.

    With a ``model``, named by its factory, that is what is trained, and the products of its training step, which is
    traced here, are workloads beside ``products``; ``progress`` is called with what is done and found.
    On a ``device`` its own ladder takes the place of the CPU's.

    Raises
    ------
    UsageError
        if an argument is unknown or out of its range.
    """
    check_known("device", device, DEVICES)
    named, rungs = list(named), [rung.name for rung in LADDERS[device]]
    if preset is None:
        preset = "quick" if named else "standard"
    own = workloads(preset)
    budgets = BUDGETS[preset]
    if named and not set(rungs) & set(named):
        named = [*rungs, *named]
    tasks = (*budgets.tasks, "mnist") if data_dir and preset != "quick" else budgets.tasks
    asked = read_workloads([*products] or own) if products or not model else ()
    if dtypes := [*dtypes]:
        asked = tuple(dict.fromkeys(replace(workload, dtype=dtype) for dtype in dtypes for workload in asked))
    trainings = tuple(Training(task, budgets.task_s, data_dir, compare_compile=compare_compile) for task in tasks)
    found: list[Workload] = []
    if model:
        found = _products(trace_model(model, thread_counts(threads)[0], import_timeout_s, progress), progress)
        if not found:
            raise UsageError(f"model {model!r}: no kernel can do a product of it; `matmulbench trace` says why")
        trainings = (Training(model, budgets.model_s, compare_compile=compare_compile, traced=True),)
    job = Job(
        kernel_specs(named or kernels(device), device),
        kernel_specs(BASELINES[device] if baseline is None else baseline, device)[0],
        thread_counts(threads, cores),
        workloads=tuple((one, budgets.for_workload(one)) for one in dict.fromkeys([*asked, *found])),
        trainings=trainings,
        effort=budgets.verification,
        compilation=True,
        device=device,
        seed=seed,
        import_s=import_timeout_s,
    )
    return Run(preset, job, asked, model)


def _products(trace: pd.DataFrame, progress: Callable[[str], None]) -> list[Workload]:
    """Return what a model's step multiplies, as far as kernels can, the most time first; of many the most of it."""
    able = trace[trace["reason"] == ""]
    seconds = able.groupby(["shape", "dtype"])["time_s"].sum().sort_values(ascending=False)
    before = (seconds.cumsum() - seconds) / seconds.sum()
    chosen = seconds[before < _ENOUGH] if len(seconds) > _MANY else seconds
    if len(chosen) < len(seconds):
        share = 100 * chosen.sum() / seconds.sum()
        progress(f"{len(chosen)} of its {len(seconds)} shapes are timed: {share:.0f} % of the time of its products")
    return [Workload.parse(shape, dtype) for shape, dtype in chosen.index]
