"""The one pipeline: a job (what to verify, and to measure or train) becomes rows.

``run``, the Python functions :func:`verify`, :func:`measure` and :func:`train`, the command's verbs and the audit all
call :func:`carry_out`. A kernel that is refused has no figure anywhere; one that fails costs its own cell; a cell that
fails through no fault of a kernel is tried once more, and then has the status ``lost``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from matmulbench.arguments import (
    check_device,
    check_dtype,
    check_seconds,
    kernel_specs,
    read_workloads,
    renaming,
    spec_of,
    thread_counts,
)
from matmulbench.dtypes import DTYPES, USUAL
from matmulbench.errors import UsageError, unknown
from matmulbench.isolation import IMPORT_S, Host, LostError
from matmulbench.isolation.requests import (
    Calibrate,
    FindDevice,
    LoadKernel,
    MeasureRoof,
    OpenReferee,
    OpenWorkload,
    ProductError,
    TraceModel,
)
from matmulbench.isolation.system import cores
from matmulbench.ladder import BASELINE, BASELINES, RUNGS
from matmulbench.ladder.plugins import find_kernel, kernels
from matmulbench.measurement.cells import (
    Settings,
    compile_seconds,
    failed_cell,
    measure_cells,
    measure_roof,
)
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.seal import SILENCE_S
from matmulbench.results.schema import MeasurementRow, Row, TrainingRow, VerificationRow, frame
from matmulbench.status import Status
from matmulbench.training.accounting import Course, train_kernels
from matmulbench.training.tasks import TASKS, check_options, is_model
from matmulbench.verification import EFFORTS
from matmulbench.verification.api import agreement, repeat_case, verify_kernel
from matmulbench.verification.remembered import Remembered
from matmulbench.workload import FIRST, Workload

if TYPE_CHECKING:
    import pandas as pd

VERIFY_S = {"quick": 1.3, "default": 3.0}  # about what a kernel and dtype take, for the progress bar alone
TRACE_S = 600.0  # that a factory and some steps of its model may take
_LARGEST = 1e9  # that any option of a training may be
Progress = Callable[[str, float], None]
T = TypeVar("T")


class Sink(Protocol):
    """Where rows go."""

    def done(self, table: str, **key: Any) -> dict[str, Any] | None:
        """Return the row of a cell that is finished already, or None."""

    def add(self, table: str, row: Any, samples: list[float] | None = None, **extra: Any) -> None:
        """Take a finished cell, or the roof."""


class Fleet(Protocol):
    """Hosts that work together; see :class:`matmulbench.fleet.Fleet`."""

    cores: int

    def carry_out(self, job: Job, sink: Sink, progress: Progress) -> None:
        """Do as :func:`carry_out` does, with a host for each worker of a training."""


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

    @property
    def dtype(self) -> str | None:
        """The dtype that its products have; None where a model decides."""
        task = TASKS.get(self.task)
        return self.options.get("dtype") or (task.dtype if task else None)

    def check(self, device: str) -> None:
        """Raise UsageError if task, model or an option cannot be used, as far as that shows without importing."""
        if device != "cpu" and (is_model(self.task) or self.workers > 1):
            other = f"model {self.task!r}" if is_model(self.task) else f"workers {self.workers}"
            raise UsageError(f"device {device!r} does not go with {other}: expected a task and one worker")
        check_seconds("budget", self.budget_s)
        for name, value in self.options.items():
            if isinstance(value, int | float) and not 0 < value <= _LARGEST:
                raise UsageError(f"{name} {value}: expected a number above 0, at most {_LARGEST:g}")
        check_options(self.task, self.options)
        if self.workers != 1 and (is_model(self.task) or self.compare_compile):
            other = f"model {self.task!r}" if is_model(self.task) else "compare-compile"
            raise UsageError(f"workers {self.workers} does not go with {other}: expected a task and kernels alone")
        task = TASKS.get(self.task)
        if task and task.source == "mnist" and self.data_dir is not None and not os.path.exists(self.data_dir):
            raise UsageError(f"data-dir {self.data_dir!r}: there is no such folder or file")
        if not isinstance(self.workers, int) or self.workers < 1:
            raise UsageError(f"workers {self.workers!r}: expected a whole number above 0")


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
        check_device(self.device)
        for dtype in self.all_dtypes:
            check_dtype(dtype)
        if self.effort not in EFFORTS:
            raise unknown("effort", self.effort, EFFORTS)
        for _, budget_s in self.workloads:
            check_seconds("budget", budget_s)
        for training in self.trainings:
            training.check(self.device)
        check_seconds("import-timeout", self.import_s)
        if not 0 <= self.seed < 2**32:  # which every library takes
            raise UsageError(f"seed {self.seed}: expected a number from 0 to {2**32 - 1}")

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
        verify = len(self.specs) * len(self.all_dtypes) * VERIFY_S.get(self.effort, 300.0)
        timed = sum(seconds for _, seconds in self.workloads) + sum(one.budget_s for one in self.trainings)
        return verify + len(self.threads) * timed


class Bench(ExitStack):
    """The processes at work on this machine, its roofs and compile times, kept from job to job; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict[tuple[int, bool], Host] = {}
        self.roofs: dict[tuple[int, str, str], Roof] = {}
        self.compile_s: dict[tuple[int, str, str], float | None] = {}

    def host(self, job: Job, threads: int, spin: bool = True) -> Host:
        """Return the host with so many threads a pool; see :class:`Host`."""
        if (threads, spin) not in self._hosts:
            self._hosts[threads, spin] = self.enter_context(Host(threads, spin=spin))
        self._hosts[threads, spin].import_s = job.import_s
        return self._hosts[threads, spin]


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
        try:
            course = _twice(
                lambda: Course.open(host, training.task, self.job.seed, training.data_dir, training.options)
            )
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
            self.progress(f"verify {spec} {dtype}{': remembered' * known}", VERIFY_S.get(job.effort, 300.0))
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
            for spec in specs:
                if self.job.compilation and (threads, spec, dtype) not in bench.compile_s:
                    bench.compile_s[threads, spec, dtype] = compile_seconds(host, spec, dtype)
            roof, settings = bench.roofs[threads, dtype, device], Settings(cold=self.job.cold, device=device)
            for cell in measure_cells(host, workload, specs, baseline, budget_s, roof, settings, self.job.seed):
                if cell.row.status == Status.OK:
                    cell.row.compile_s = bench.compile_s.get((threads, cell.row.kernel, dtype))
                yield cell.row, cell.samples, cell.extra

        self.progress(f"measure {workload} {dtype}, {_threads(host)}", budget_s)
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
        self.progress(f"train {training.task}, {several}{_threads(host)}", training.budget_s)
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


def _threads(host: Host) -> str:
    return f"{host.threads} thread{'s' * (host.threads > 1)}"


def require_device(device: str) -> None:
    """Raise UsageError if this machine lacks a device; asked where no kernel is, nor the suite's own process."""
    if device != "cpu":
        with Host() as host:
            outcome = host.call(FindDevice(device), silence_limit=SILENCE_S)
        if outcome.status != Status.OK:
            raise UsageError(f"device {device!r}: {outcome.reason}; `matmulbench list` says what this machine has")


def availability(custom: Iterable[str] = (), import_s: float = IMPORT_S) -> list[dict[str, str]]:
    """Return for each known kernel, and each ``custom`` one, ``name``, ``about`` and ``status`` with the reason.

    Each is imported in a process of its own: what an import prints, changes or ends is its own affair.
    """
    ideas = {rung.name: rung.idea for rung in RUNGS}
    rows = []
    check_seconds("import-timeout", import_s)
    names = kernel_specs([*(rung.name for rung in RUNGS), *kernels(), *custom])
    with Host(import_s=import_s) as host:
        for name in names:
            outcome = host.call(LoadKernel(name), silence_limit=0)
            status = "available" if outcome.status == Status.OK else f"unavailable: {outcome.reason}"
            rows.append({"name": name, "about": ideas.get(name) or find_kernel(name), "status": status})
    return rows


def trace_model(
    model: str,
    threads: str | int | Iterable[int] = 1,
    import_timeout_s: float = IMPORT_S,
    progress: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """List the matrix products of one training step of the model that the factory ``model`` makes.

    The columns are those of :func:`matmulbench.trace`, behind ``threads``.

    Raises
    ------
    UsageError
        if the factory fails, a step cannot be done with its first batch, has no product, or its loss is not a number.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for count in thread_counts(threads):
        with Host(count, import_timeout_s) as host:
            progress(f"trace {model}, {_threads(host)}")
            outcome = host.call(TraceModel(model), silence_limit=TRACE_S)
        if outcome.status != Status.OK:
            reason = str(outcome.reason)
            raise UsageError(reason if reason.startswith("model ") else f"model {model!r}: {reason}")
        rows += [{"threads": count, **row} for row in outcome.value]
    return pd.DataFrame(rows).astype({"flop": "Int64"})


# --- from Python -------------------------------------------------------------------------------------


Kernels = str | Callable[..., Any] | Iterable[str | Callable[..., Any]]


class _Rows:
    """The rows of one table, in memory, and the warnings that came with them."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.rows: list[Row] = []
        self.warnings: dict[str, None] = {}

    def done(self, table: str, **key: Any) -> None:
        """Nothing is finished already."""

    def add(self, table: str, row: Any, samples: list[float] | None = None, **extra: Any) -> None:
        self.rows += [row] if table == self.table else []
        self.warnings |= dict.fromkeys(extra.get("warnings", ()))


def _rows(job: Job, table: str, progress: Callable[[str], None], fleet: Fleet | None = None) -> pd.DataFrame:
    """Carry out ``job``, here or on a fleet, and return the rows of ``table``, in which functions have their own names.

    Raises
    ------
    KeyboardInterrupt
        if the user interrupts; its attribute ``rows`` has what was finished.
    """
    sink, rename = _Rows(table), renaming([*job.specs, *(training.task for training in job.trainings)])

    def named() -> pd.DataFrame:
        found = frame(table, sink.rows)
        for name in {"kernel", "task", "finding", "reason"} & set(found):
            found[name] = found[name].map(rename, na_action="ignore")
        return found

    if not fleet:
        require_device(job.device)
    try:
        (fleet.carry_out if fleet else carry_out)(job, sink, lambda text, _: progress(rename(text)))
    except KeyboardInterrupt as interrupt:
        interrupt.__dict__["rows"] = named()
        raise
    for warning in sink.warnings:
        progress(f"warning: {warning}")
    return named()


def _dtypes(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def verify(
    kernel: Kernels,
    dtypes: str | Iterable[str] = USUAL,
    effort: str = "default",
    progress: Callable[[str], None] = lambda text: None,
    *,
    case: str | None = None,
    device: str = "cpu",
    import_timeout_s: float = IMPORT_S,
) -> pd.DataFrame:
    """Judge whether kernels are right.

    Parameters
    ----------
    kernel
        a function, a name from :func:`matmulbench.kernels`, ``package.module:function``,
        ``path/to/file.py:function``, or several of them.
    dtypes
        one dtype or several.
    effort
        ``quick`` (a second per row), ``default`` (some seconds) or ``thorough`` (minutes).
    progress
        is called with what comes next.
    case
        one case to judge by alone, as findings name it: ``2x2x1:TN``. It says its dtype itself; columns ``a``, ``b``,
        ``expected`` and ``got`` show, as texts, what was multiplied and what came of it.
    device
        where your kernels take their operands, if they do not say so themselves: ``cpu`` or ``cuda``.
    import_timeout_s
        seconds that the import of a kernel may take.

    Returns
    -------
    pandas.DataFrame
        a row per kernel and dtype: ``kernel``, ``dtype``, ``status``, ``verdict``, ``residual`` (units of
        ``k·u·(|A||B|)``), ``cases``, ``finding``; see :class:`~matmulbench.results.schema.VerificationRow`.

    Raises
    ------
    UsageError
        if a kernel's name, a dtype, the effort or the case is unknown.
    """
    check_device(device)
    specs = kernel_specs(kernel, device)
    job = Job(specs, None, dtypes=_dtypes(dtypes), effort=effort, device=device, import_s=import_timeout_s)
    rename = renaming(job.specs)
    if case is None:
        found = _rows(job, "verification", progress)
        order = list(map(rename, job.specs))
        return found.sort_values("kernel", key=lambda names: names.map(order.index), kind="stable")
    import pandas as pd

    from matmulbench.verification.case import Case

    parsed, rows = Case.parse(case), []
    with Host(max(2, *job.threads), job.import_s) as host:
        for spec in job.specs:
            progress(f"verify {rename(spec)} {case}")
            row, texts = repeat_case(host, spec, parsed)
            rows.append(asdict(row) | {"kernel": rename(spec)} | texts)
    return pd.DataFrame(rows)


def compare_results(
    kernel: Kernels, dtypes: str | Iterable[str] = USUAL, *, import_timeout_s: float = IMPORT_S
) -> pd.DataFrame:
    """Return how far apart the results of kernels are: a row per dtype and kernel, a column per kernel.

    See :func:`~matmulbench.verification.api.agreement` for the unit, and :func:`verify` for parameters and errors.
    """
    import pandas as pd

    job = Job(kernel_specs(kernel), None, dtypes=_dtypes(dtypes), import_s=import_timeout_s)
    with Host(import_s=job.import_s) as host:
        squares = {dtype: agreement(host, job.specs, dtype) for dtype in job.dtypes}
    rename = renaming(job.specs)
    return pd.concat(squares, names=["dtype", "kernel"]).rename(index=rename, columns=rename).reset_index()


def measure(
    kernels: Kernels,
    workloads: Workload | str | tuple[int, ...] | Iterable[Workload | str | tuple[int, ...]] = str(FIRST),
    *,
    dtype: str | Iterable[str] = "float32",
    threads: str | int | Iterable[int] = 1,
    baseline: str | Callable[..., Any] | None = None,
    budget_s: float = 10.0,
    device: str = "cpu",
    cold: bool = False,
    import_timeout_s: float = IMPORT_S,
    progress: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Verify ``kernels``, then time them on each of ``workloads``, paired with ``baseline``.

    Parameters
    ----------
    kernels
        a function, a name or ``path/to/file.py:function``, or several of them.
    workloads
        one or several: a text such as ``5x784x10``, ``50x50000x784:TN`` or, of a batch, ``32*128x64x128``, a tuple
        (m, k, n) or (batch, m, k, n), or a ``Workload``.
    dtype
        one or several, of the workloads that say none.
    threads
        one thread count or several.
    baseline
        the kernel that speedups are quoted against; ``torch``, on a GPU ``cuda-torch``, if not given.
    budget_s
        seconds for each workload, shared by its kernels.
    device
        where the operands are: ``cpu`` or ``cuda``.
    cold
        evict the operands from the caches before each call.
    import_timeout_s
        seconds that the import of a kernel may take.
    progress
        is called with what comes next.

    Returns
    -------
    pandas.DataFrame
        a row per thread count, workload and kernel. What was timed: ``workload``, ``m``, ``k``, ``n``, ``layout``,
        ``dtype``, ``threads``, ``kernel``, ``batch``, ``device``; what became of it: ``status``, ``extrapolated``,
        ``reason``; seconds a call: ``median_s``, ``ci_low_s``, ``ci_high_s``, ``min_s``, over so many rounds:
        ``samples``; the baseline's time over the kernel's: ``speedup``, ``speedup_ci_low``, ``speedup_ci_high``,
        ``verdict``; GFLOP/s: ``gflops``, ``roof_gflops``; percent: ``roof_percent``; what bounds the product:
        ``roof_limit``; seconds: ``setup_s``, where a kernel prepares b ahead, and ``compile_s``, with ``matmulbench
        run`` alone. See
        :class:`~matmulbench.results.schema.MeasurementRow`.

    Raises
    ------
    UsageError
        if a kernel's name is unknown, a workload's text has another form or does not fit into memory, or another
        argument is out of its range.
    """
    check_device(device)
    job = Job(
        kernel_specs(kernels, device),
        kernel_specs(BASELINES[device] if baseline is None else baseline, device)[0],
        thread_counts(threads),
        workloads=tuple((one, budget_s) for each in _dtypes(dtype) for one in read_workloads(workloads, each)),
        cold=cold,
        device=device,
        import_s=import_timeout_s,
    )
    return _rows(job, "measurements", progress)


def precision(measurements: pd.DataFrame, baseline: str = BASELINE) -> pd.DataFrame:
    """Say what precision buys on this machine: the baseline's times in several dtypes, and its errors.

    Parameters
    ----------
    measurements
        what :func:`measure` returned for several dtypes.
    baseline
        whose times to compare.

    Returns
    -------
    pandas.DataFrame
        a row per workload, thread count and dtype: ``workload``, ``threads``, ``dtype``, ``median_s``; ``times``, how
        many times as long as float32 it takes; ``error``, the norm of the product's error over the product's, operands
        rounded to the dtype included; ``warning``, where fewer bits take longer. Empty if no workload has two dtypes.
    """
    import pandas as pd

    from matmulbench.results.machine import narrow_instructions

    found = measurements[(measurements["kernel"] == baseline) & measurements["median_s"].notna()]
    found = found[found.groupby(["workload", "threads"])["dtype"].transform("nunique") > 1]
    usual_s = found[found["dtype"] == "float32"].groupby(["workload", "threads"])["median_s"].first()
    rows: list[dict[str, Any]] = []
    with Host(1) as host:
        for row in found.to_dict("records"):
            workload = Workload.parse(row["workload"], row["dtype"])
            outcome = host.call(ProductError(baseline, workload), silence_limit=SILENCE_S)
            usual = usual_s.get((row["workload"], row["threads"]))
            times = row["median_s"] / usual if usual else None
            warning = ""
            if times and times > 1 and DTYPES[workload.dtype].itemsize < DTYPES["float32"].itemsize:
                warning = "slower than float32"
                if row["device"] == "cpu":
                    has = ", ".join(narrow_instructions()[workload.dtype])
                    warning += (
                        f", although the processor has {has}" if has else "; the processor has no instructions for it"
                    )
            kept = {name: row[name] for name in ("workload", "threads", "dtype", "median_s")}
            rows.append(kept | {"times": times, "error": outcome.value, "warning": warning})
    return pd.DataFrame(rows)


def train(
    task: str | Callable[[], Any],
    kernels: Kernels,
    *,
    threads: str | int | Iterable[int] = 1,
    workers: int = 1,
    baseline: str | Callable[..., Any] | None = None,
    budget_s: float = 30.0,
    device: str = "cpu",
    seed: int = 0,
    data_dir: str | None = None,
    import_timeout_s: float = IMPORT_S,
    compare_compile: bool = False,
    fleet: Fleet | None = None,
    progress: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> pd.DataFrame:
    """Verify ``kernels``, then train ``task`` with each of them, step by step beside ``baseline``.

    Parameters
    ----------
    task
        a name; or for a custom model its factory, as a function or ``package.module:factory``; see
        :func:`~matmulbench.training.custom_model.load_model`.
    kernels
        a function, a name or ``path/to/file.py:function``, or several of them.
    threads
        one thread count or several, of each worker.
    workers
        processes that share each batch of the task out and average their gradients (``torch.distributed``), with a
        kernel each: the losses are those of one process with the whole batch.
    baseline
        the kernel that speedups are quoted against; ``torch``, on a GPU ``cuda-torch``, if not given.
    budget_s
        seconds for all kernels together.
    device
        where parameters and batches are: ``cpu``, or ``cuda``, which no model and no several workers can be.
    import_timeout_s
        seconds that the import of a kernel or a model may take.
    compare_compile
        whether to add a row for the same model under ``torch.compile``; to compile takes up to minutes, on top of
        ``budget_s``.
    fleet
        a :class:`matmulbench.fleet.Fleet`: each worker then has a host of it to itself; else all are on this computer.
    progress
        is called with what comes next.
    options
        what the task would otherwise choose; see :func:`~matmulbench.training.tasks.find_task`.

    Returns
    -------
    pandas.DataFrame
        a row per thread count and kernel. What was trained: ``task``, ``kernel``, ``threads``, ``workers``, ``device``;
        what became of it: ``status``, ``extrapolated``, ``steps``, ``reason``; seconds a step: ``step_s``,
        ``step_ci_low_s``, ``step_ci_high_s``; from 0 to 1: ``matmul_share``, ``communication_share`` (of several
        workers), ``train_accuracy``, ``test_accuracy``; the baseline's step over the kernel's: ``predicted_speedup``,
        ``measured_speedup``, ``measured_ci_low``, ``measured_ci_high``; no unit: ``final_loss``, ``loss_deviation``;
        seconds: ``compile_s``, of ``torch.compile`` alone. See
        :class:`~matmulbench.results.schema.TrainingRow`.

    Raises
    ------
    UsageError
        if a kernel, the task or an option is unknown or out of its range, or the data cannot be read.
    """
    check_device(device)
    job = Job(
        kernel_specs(kernels, device),
        kernel_specs(BASELINES[device] if baseline is None else baseline, device)[0],
        thread_counts(threads, fleet.cores if fleet else None),
        trainings=(Training(spec_of(task, "model"), budget_s, data_dir, options, compare_compile, workers),),
        device=device,
        seed=seed,
        import_s=import_timeout_s,
    )
    if not fleet and workers > 1 and (wanted := workers * max(job.threads)) > (has := len(cores())):
        raise UsageError(f"workers {workers} x threads {max(job.threads)} need {wanted} cores, this machine has {has}")
    return _rows(job, "training", progress, fleet)
