"""The one pipeline: a job (what to verify, and to measure or train) becomes rows.

``run``, the Python functions of :mod:`~matmulbench.api`, by them the command's verbs, and the fleet all call
:func:`carry_out`. A kernel that is refused has no figure anywhere; one that fails costs its own cell; a cell that
fails through no fault of a kernel is tried once more, and then has the status ``lost``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, product
from numbers import Integral
from typing import Any, Protocol, TypeVar

from matmulbench.arguments import check_seconds
from matmulbench.dtypes import DTYPES
from matmulbench.errors import UsageError, check_known
from matmulbench.isolation import IMPORT_S, Host, LostError
from matmulbench.isolation.requests import Calibrate, FindDevice, MeasureRoof, OpenReferee, OpenWorkload
from matmulbench.ladder import BASELINE
from matmulbench.ladder.devices import DEVICES
from matmulbench.measurement.cells import Settings, compile_seconds, failed_cell, measure_cells, measure_roof
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.seal import SILENCE_S
from matmulbench.results.schema import MeasurementRow, TrainingRow, VerificationRow
from matmulbench.status import Status
from matmulbench.training.accounting import Course, train_kernels
from matmulbench.training.tasks import TASKS, check_options, is_model
from matmulbench.verification import EFFORTS
from matmulbench.verification.api import verify_kernel
from matmulbench.verification.remembered import Remembered
from matmulbench.workload import Workload

# About what a kernel and dtype take, for the progress bar alone.
VERIFY_S = {"quick": 1.3, "default": 3.0, "thorough": 300.0}
Progress = Callable[[str, float], None]
T = TypeVar("T")


class Sink(Protocol):
    """Where rows go."""

    def done(self, table: str, **key: Any) -> dict[str, Any] | None:
        """Return the row of a cell that is finished already, or None."""

    def add(self, table: str, row: Any, samples: list[float] | None = None, **extra: Any) -> None:
        """Take a finished cell, or the roof."""


@dataclass(frozen=True)
class Training:
    """One training."""

    task: str  #: its name, or a model's factory
    budget_s: float  #: seconds for all kernels together
    data_dir: str | None = None  #: where MNIST is
    options: dict[str, Any] = field(default_factory=dict)  #: of the task; see :func:`find_task`
    compare_compile: bool = False  #: whether ``torch.compile`` takes part beside the kernels
    workers: int = 1  #: processes that share each batch
    elsewhere: tuple[Any, ...] = ()  #: on which hosts all but the first are, if not here: ``DistantRank``
    traced: bool = False  #: whether a trace has shown already what its model prints and warns of

    @property
    def dtype(self) -> str | None:
        """The dtype that its products have; None where a model decides."""
        task = TASKS.get(self.task)
        return self.options.get("dtype") or (task.dtype if task else None)

    def check(self, device: str) -> None:
        """Raise UsageError if task, model or an option cannot be used, as far as that shows without importing."""
        if not isinstance(self.workers, int) or self.workers < 1:
            raise UsageError(f"workers {self.workers!r}: expected a whole number above 0")
        model = f"model {self.task!r}" if is_model(self.task) else ""
        several = f"workers {self.workers}" if self.workers > 1 else ""
        if device != "cpu" and (other := model or several):
            raise UsageError(f"device {device!r} does not go with {other}: expected a task and one worker")
        check_seconds("budget", self.budget_s)
        check_options(self.task, self.options)
        if several and (other := model or "compare-compile" * self.compare_compile):
            raise UsageError(f"{several} does not go with {other}: expected a task and kernels alone")
        task = TASKS.get(self.task)
        if task and task.source == "mnist" and self.data_dir is not None and not os.path.exists(self.data_dir):
            raise UsageError(f"data-dir {self.data_dir!r}: there is no such folder or file")


@dataclass(frozen=True)
class Job:
    """What to do with which kernels.

    Raises
    ------
    UsageError
        if something in it cannot be used; the message names it, and what would be right.
    """

    kernels: tuple[str, ...]  #: names or specs; the baseline is added to them
    baseline: str | None = BASELINE  #: what speedups are quoted against; None where nothing is timed
    threads: tuple[int, ...] = (1,)  #: the thread counts at which to measure and train
    dtypes: tuple[str, ...] = ()  #: to verify beside those of the workloads and trainings
    workloads: tuple[tuple[Workload, float], ...] = ()  #: what to measure, each with its seconds for all kernels
    trainings: tuple[Training, ...] = ()  #: what to train
    effort: str = "quick"  #: of verification
    cold: bool = False  #: whether operands come from memory
    compilation: bool = False  #: whether to time the first call, too
    device: str = "cpu"  #: where all of it takes place
    seed: int = 0  #: of initial parameters and of the order of batches and rounds
    import_s: float = IMPORT_S  #: seconds that the import of a user's kernel or model may take

    def __post_init__(self) -> None:
        check_known("device", self.device, DEVICES)
        for dtype in self.all_dtypes:
            check_known("dtype", dtype, DTYPES)
        check_known("effort", self.effort, EFFORTS)
        for _, budget_s in self.workloads:
            check_seconds("budget", budget_s)
        for training in self.trainings:
            training.check(self.device)
        check_seconds("import-timeout", self.import_s)
        if (self.workloads or self.trainings) and os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            raise UsageError("NUMBA_DISABLE_JIT is set: nothing can be timed without what numba compiles; unset it")
        if not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**32:  # which every library takes
            raise UsageError(f"seed {self.seed!r}: expected a number from 0 to {2**32 - 1}")

    @property
    def specs(self) -> list[str]:
        """The kernels with the baseline among them: there are no ratios without it."""
        return list(dict.fromkeys([*self.kernels, *([self.baseline] if self.baseline else [])]))

    @property
    def all_dtypes(self) -> list[str]:
        """All dtypes to verify, but for those that a model decides."""
        of_workloads = (workload.dtype for workload, _ in self.workloads)
        of_trainings = (one.dtype for one in self.trainings if one.dtype)
        return list(dict.fromkeys([*self.dtypes, *of_workloads, *of_trainings]))

    def seconds(self) -> float:
        """Return about how many seconds it takes."""
        verify = len(self.specs) * len(self.all_dtypes) * VERIFY_S[self.effort]
        timed = sum(seconds for _, seconds in self.workloads) + sum(one.budget_s for one in self.trainings)
        return verify + len(self.threads) * timed


class Bench(ExitStack):
    """The processes at work on this machine, its roofs and compile times, kept from job to job; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict[tuple[int, bool], Host] = {}
        self.roofs: dict[tuple[int, str, str], Roof] = {}
        self._compile_s: dict[tuple[int, str], dict[str, float | None]] = {}

    def host(self, job: Job, threads: int, spin: bool = True) -> Host:
        """Return the host with so many threads a pool; see :class:`Host`."""
        if (threads, spin) not in self._hosts:
            self._hosts[threads, spin] = self.enter_context(Host(threads, spin=spin))
        self._hosts[threads, spin].import_s = job.import_s
        return self._hosts[threads, spin]

    def compile_s(self, host: Host, specs: list[str], dtype: str) -> dict[str, float | None]:
        """Return the seconds that kernels compile; those of built-in ones may be from an earlier job."""
        known = self._compile_s.setdefault((host.threads, dtype), {})
        if missing := [spec for spec in specs if spec not in known]:
            remembered = Remembered(host.threads)
            for spec in missing:
                seconds = remembered.recall_compile_s(spec, dtype)
                if seconds is None:
                    seconds = compile_seconds(host, spec, dtype)
                    remembered.note_compile_s(spec, dtype, seconds)
                known[spec] = seconds
        return known


def carry_out(
    job: Job, sink: Sink, progress: Progress = lambda text, seconds: None, bench: Bench | None = None
) -> None:
    """Verify, measure and train, and add each finished cell to ``sink`` at once.

    ``progress`` is called with what comes next and about how many seconds that takes. A ``bench`` that is given stays
    open, for the next job.

    Raises
    ------
    UsageError
        if a training cannot be used, or its data cannot be read.
    """
    with nullcontext(bench) if bench else Bench() as bench:
        work = _Work(job, sink, progress, bench)
        timing = [bench.host(job, threads) for threads in job.threads]
        if job.workloads:
            # While there is nothing to disturb; for the next thread count, there will be.
            timing[0].warm(OpenReferee, OpenWorkload, MeasureRoof, first=Calibrate())
        # With one thread a race would not show.
        checking = bench.host(job, max(2, *job.threads), spin=False)
        trainings = [(training, work.dtypes_of(training, checking)) for training in job.trainings]
        work.verify(checking, [*job.all_dtypes, *chain(*(dtypes for _, dtypes in trainings))])
        if job.workloads or job.trainings:
            checking.close()
        for host in timing:
            for workload, budget_s in job.workloads:
                work.measure(host, workload, budget_s)
            for training, dtypes in trainings:
                work.train(host, training, dtypes)


Finished = tuple[MeasurementRow | TrainingRow, list[float], dict[str, Any]]  # with raw samples, and more about it


@dataclass
class _Work:
    """A job that is being carried out, and what is known of its kernels."""

    job: Job
    sink: Sink
    progress: Progress
    bench: Bench
    verified: dict[tuple[str, str], VerificationRow] = field(default_factory=dict)

    def dtypes_of(self, training: Training, host: Host) -> list[str]:
        """Return the dtypes of the products of a training, for which its kernels have to be right."""
        if training.dtype:
            return [training.dtype]
        how = training.task, self.job.seed, training.data_dir, training.options
        try:
            course = _twice(lambda: Course(host, *how, quiet=training.traced))
        except LostError:  # so will be the training
            return []
        course.referee.close()
        return list(dict.fromkeys(dtype for *_, dtype in course.products))

    def verify(self, host: Host, dtypes: Iterable[str]) -> None:
        """Verify each kernel, unless this run or an earlier one did so already."""
        job, remembered = self.job, Remembered(host.threads)
        for dtype, spec in product(dict.fromkeys(dtypes), job.specs):
            if done := self.sink.done("verification", kernel=spec, dtype=dtype):
                self.verified[spec, dtype] = VerificationRow(**done)
                continue
            # Who asks for nothing else wants it done.
            row = remembered.recall(spec, dtype, job.effort) if job.workloads or job.trainings else None
            known = row is not None
            self.progress(f"verify {spec} {dtype}{': remembered' * known}", VERIFY_S[job.effort])
            if not row:
                row = verify_kernel(host, spec, dtype, job.effort)
                remembered.note(row, job.effort)
            self.verified[spec, dtype] = row
            self.sink.add("verification", row, remembered=known)

    def measure(self, host: Host, workload: Workload, budget_s: float) -> None:
        """Time the kernels that are right on a workload."""
        bench, threads, dtype, device = self.bench, host.threads, workload.dtype, self.job.device

        def time_all(specs: list[str], baseline: str | None) -> Iterator[Finished]:
            if (threads, dtype, device) not in bench.roofs:
                bench.roofs[threads, dtype, device] = measure_roof(host, dtype, device)
                self.sink.add("roof", bench.roofs[threads, dtype, device])
            compile_s = bench.compile_s(host, specs, dtype) if self.job.compilation else {}
            roof, settings = bench.roofs[threads, dtype, device], Settings(cold=self.job.cold, device=device)
            for cell in measure_cells(host, workload, specs, baseline, budget_s, roof, settings, self.job.seed):
                if cell.row.status == Status.OK:
                    cell.row.compile_s = compile_s.get(cell.row.kernel)
                yield cell.row, cell.samples, cell.extra

        self.progress(f"measure {workload} {dtype}, {threads_of(host)}", budget_s)
        new = failed_cell(workload, threads, "", Status.LOST, None, device).row
        self._finish("measurements", new, [dtype], time_all)

    def train(self, host: Host, training: Training, dtypes: list[str]) -> None:
        """Train with the kernels that are right for ``dtypes``."""

        def train_all(specs: list[str], baseline: str | None) -> Iterator[Finished]:
            one = training
            how = one.data_dir, one.options, one.compare_compile, one.workers, one.elsewhere, self.job.device
            for row, extra in train_kernels(host, one.task, specs, baseline, one.budget_s, self.job.seed, *how):
                yield row, [], extra

        several = f"{training.workers} workers of " * (training.workers > 1)
        self.progress(f"train {training.task}, {several}{threads_of(host)}", training.budget_s)
        new = TrainingRow(training.task, "", host.threads, training.workers, self.job.device)
        self._finish("training", new, dtypes, train_all)

    def _finish(
        self,
        table: str,
        new: MeasurementRow | TrainingRow,
        dtypes: list[str],
        work: Callable[[list[str], str | None], Iterable[Finished]],
    ) -> None:
        """Do those cells of a workload or a training that are left to do; ``new`` is the row that they begin as.

        ``work`` does those of the kernels that it is given, paired with a baseline if that is right.
        """
        base, specs = self.job.baseline, self.job.specs
        verdicts = [(spec, self.verified[spec, dtype]) for spec in specs for dtype in reversed(dtypes)]
        wrong = {spec: row for spec, row in verdicts if row.status != Status.OK}
        cells = [replace(new, kernel=spec) for spec in specs]
        todo = [cell for cell in cells if not self.sink.done(table, **vars(cell))]
        for cell in todo:
            if refused := wrong.get(cell.kernel):
                self.sink.add(table, replace(cell, status=refused.status, reason=refused.finding))
        right = [cell.kernel for cell in todo if cell.kernel not in wrong]
        if not right:
            return
        unpaired = wrong.get(base or "")
        try:
            finished = _twice(lambda: list(work(right, None if unpaired else base)))
        except LostError as error:
            finished = [(replace(new, kernel=spec, status=Status.LOST, reason=str(error)), [], {}) for spec in right]
        for cell, samples, extra in finished:
            if cell.status == Status.OK and unpaired:
                why = f"no speedup: the baseline {base} was refused ({unpaired.status})"
                cell.reason = "; ".join(filter(None, [why, cell.reason]))
            if cell.kernel in right or cell.kernel not in specs:
                self.sink.add(table, cell, samples, **extra)


def _twice(action: Callable[[], T]) -> T:
    """Call ``action``, and once more if the suite's own processes ended meanwhile.

    Raises
    ------
    LostError
        if they ended again.
    """
    try:
        return action()
    except LostError:
        return action()


def threads_of(host: Host) -> str:
    """Return how many threads a host has, in words."""
    return f"{host.threads} thread{'s' * (host.threads > 1)}"


def require_device(device: str) -> None:
    """Raise UsageError if this machine lacks a device; asked where no kernel is, nor the suite's own process."""
    if device != "cpu":
        with Host() as host:
            outcome = host.call(FindDevice(device), silence_limit=SILENCE_S)
        if outcome.status != Status.OK:
            raise UsageError(f"device {device!r}: {outcome.reason}; `matmulbench list` says what this machine has")
