"""The one pipeline: a job (what to verify, and to measure or train) becomes rows.

``run``, the Python functions :func:`verify`, :func:`measure` and :func:`train`, the command's verbs and the audit all
call :func:`carry_out`. A kernel that is refused has no figure anywhere; one that fails costs its own cell; what is
nobody's kernel's doing is tried again, and then has the status ``lost``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from matmulbench.errors import UsageError
from matmulbench.isolation import Host, LostError
from matmulbench.isolation.requests import Examine, LoadKernel, OpenReferee, OpenWorkload, TraceModel
from matmulbench.ladder import BASELINE, LADDER
from matmulbench.ladder.plugins import find_kernel, kernels
from matmulbench.measurement.cells import (
    Settings,
    compile_seconds,
    failed_cell,
    measure_cells,
    measure_roof,
)
from matmulbench.measurement.roof import Roof
from matmulbench.results.schema import Row, TrainingRow, VerificationRow, frame
from matmulbench.status import Status
from matmulbench.training.accounting import train_kernels
from matmulbench.training.tasks import TASKS, check_options
from matmulbench.verification import verify_kernel
from matmulbench.workload import DTYPES, Workload

if TYPE_CHECKING:
    import pandas as pd

VERIFY_S = {"quick": 1.3, "default": 3.0}  # about what a kernel and dtype take, for the progress bar alone
TRACE_S = 600.0  # that a factory and some steps of its model may take
IMPORT_S = 20.0  # that the import of a kernel may take before the list says so
Progress = Callable[[str, float], None]
T = TypeVar("T")


class Sink(Protocol):
    """Where rows go."""

    def done(self, table: str, **key: Any) -> dict[str, Any] | None:
        """Return the row of a cell that is finished already, or None."""

    def add(self, table: str, row: Any, samples: list[float] | None = None, **extra: Any) -> None:
        """Take a finished cell, or the roof."""


@dataclass
class Rows:
    """Rows in memory."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def done(self, table: str, **key: Any) -> dict[str, Any] | None:
        """Nothing is finished already."""
        return None

    def add(self, table: str, row: Any, samples: list[float] | None = None, **extra: Any) -> None:
        """Keep the row."""
        self.tables.setdefault(table, []).append(row)
        self.warnings += [text for text in extra.get("warnings", []) if text not in self.warnings]

    def frame(self, table: str) -> pd.DataFrame:
        """Return a table."""
        return frame(table, self.tables.get(table, []))


@dataclass(frozen=True)
class Training:
    """One training: ``task`` names it or a model's factory; ``budget_s`` is for all kernels together."""

    task: str
    budget_s: float
    data_dir: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The dtype that its products have."""
        task = TASKS.get(self.task)
        return self.options.get("dtype") or (task.dtype if task else "float32")


@dataclass(frozen=True)
class Job:
    """What to do with which kernels.

    Attributes
    ----------
    kernels
        names or specs; the baseline is added to them.
    baseline
        what speedups are quoted against; None where nothing is timed.
    threads
        the thread counts at which to measure and train.
    dtypes
        to verify beside those of the workloads and trainings.
    workloads
        what to measure, each with its seconds for all kernels together.
    trainings
        what to train.
    effort
        of verification.
    cold, compilation
        whether operands come from memory, and whether to time the first call.
    seed
        of initial parameters and of the order of batches and rounds.
    """

    kernels: tuple[str, ...]
    baseline: str | None = BASELINE
    threads: tuple[int, ...] = (1,)
    dtypes: tuple[str, ...] = ()
    workloads: tuple[tuple[Workload, float], ...] = ()
    trainings: tuple[Training, ...] = ()
    effort: str = "quick"
    cold: bool = False
    compilation: bool = False
    seed: int = 0

    @property
    def specs(self) -> list[str]:
        """The kernels with the baseline among them: there are no ratios without it."""
        return list(dict.fromkeys([*self.kernels, *([self.baseline] if self.baseline else [])]))

    @property
    def all_dtypes(self) -> list[str]:
        """All dtypes to verify."""
        of_workloads = (workload.dtype for workload, _ in self.workloads)
        return list(dict.fromkeys([*self.dtypes, *of_workloads, *(one.dtype for one in self.trainings)]))

    def seconds(self) -> float:
        """Return about how many seconds it takes."""
        verify = len(self.specs) * len(self.all_dtypes) * VERIFY_S.get(self.effort, 300.0)
        timed = sum(seconds for _, seconds in self.workloads) + sum(one.budget_s for one in self.trainings)
        return verify + len(self.threads) * timed


Verified = dict[tuple[str, str], VerificationRow]


def carry_out(job: Job, sink: Sink, progress: Progress = lambda text, seconds: None) -> None:
    """Verify, measure and train, and add each finished cell to ``sink`` at once.

    ``progress`` is called with what comes next and about how many seconds that takes.

    Raises
    ------
    UsageError
        if a training cannot be used, or its data cannot be read.
    """
    for training in job.trainings:
        check_options(training.task, training.options)  # what is wrong is said before anything is verified
    with ExitStack() as hosts:
        timing = [hosts.enter_context(Host(threads)) for threads in job.threads]
        if job.workloads:
            for host in timing:
                host.warm(OpenReferee, OpenWorkload)  # while there is nothing to disturb
        # With one thread a race would not show.
        with Host(max(2, *job.threads)) as host:
            host.warm(Examine)
            verified = _verify(job, host, sink, progress)
        for host in timing:
            _measure(job, host, sink, progress, verified)
            _train(job, host, sink, progress, verified)


def _verify(job: Job, host: Host, sink: Sink, progress: Progress) -> Verified:
    verified: Verified = {}
    for dtype in job.all_dtypes:
        for spec in job.specs:
            progress(f"verify {spec} {dtype}", VERIFY_S.get(job.effort, 300.0))
            if done := sink.done("verification", kernel=spec, dtype=dtype):
                verified[spec, dtype] = VerificationRow(**done)
                continue
            verified[spec, dtype] = verify_kernel(host, spec, dtype, job.effort)
            sink.add("verification", verified[spec, dtype])
    return verified


def _measure(job: Job, host: Host, sink: Sink, progress: Progress, verified: Verified) -> None:
    roofs: dict[str, Roof] = {}
    compile_s: dict[tuple[str, str], float | None] = {}
    for workload, budget_s in job.workloads:
        dtype = workload.dtype
        progress(f"measure {workload} {dtype}, {_threads(host)}", budget_s)
        key = {"workload": str(workload), "dtype": dtype, "threads": host.threads}
        todo = [spec for spec in job.specs if not sink.done("measurements", kernel=spec, **key)]
        right, baseline, reason = _admitted(job, todo, dtype, verified)
        for spec in todo:
            if spec not in right:
                refused = verified[spec, dtype]
                cell = failed_cell(workload, host.threads, spec, refused.status, refused.finding)
                sink.add("measurements", cell.row)
        if not right:
            continue
        if dtype not in roofs:
            roofs[dtype] = _twice(measure_roof, host, dtype)
            sink.add("roof", roofs[dtype])
        for spec in right:
            if job.compilation and (spec, dtype) not in compile_s:
                compile_s[spec, dtype] = compile_seconds(host, spec, dtype)
        settings = Settings(cold=job.cold)
        try:
            cells = _twice(measure_cells, host, workload, right, baseline, budget_s, roofs[dtype], settings, job.seed)
        except LostError as error:
            cells = [failed_cell(workload, host.threads, spec, Status.LOST, str(error)) for spec in right]
        for cell in cells:
            cell.row.compile_s = compile_s.get((cell.row.kernel, dtype)) if cell.row.status == Status.OK else None
            if cell.row.status == Status.OK and reason:
                cell.row.reason = reason
            if cell.row.kernel in right:
                sink.add("measurements", cell.row, cell.samples, **cell.extra)


def _train(job: Job, host: Host, sink: Sink, progress: Progress, verified: Verified) -> None:
    for training in job.trainings:
        task = training.task
        progress(f"train {task}, {_threads(host)}", training.budget_s)
        todo = [spec for spec in job.specs if not sink.done("training", task=task, kernel=spec, threads=host.threads)]
        right, baseline, reason = _admitted(job, todo, training.dtype, verified)
        for spec in todo:
            if spec not in right:
                refused = verified[spec, training.dtype]
                sink.add("training", TrainingRow(task, spec, host.threads, refused.status, reason=refused.finding))
        if not right:
            continue
        try:
            results = _twice(
                train_kernels,
                host,
                task,
                right,
                baseline,
                training.budget_s,
                job.seed,
                training.data_dir,
                training.options,
            )
        except LostError as error:
            lost = [TrainingRow(task, spec, host.threads, Status.LOST, reason=str(error)) for spec in right]
            results = [(row, {}) for row in lost]
        for row, extra in results:
            if row.status == Status.OK and reason:
                row.reason = reason
            if row.kernel in right or row.kernel not in job.specs:
                sink.add("training", row, **extra)


def _admitted(job: Job, todo: list[str], dtype: str, verified: Verified) -> tuple[list[str], str | None, str | None]:
    """Return those of ``todo`` that are right, the baseline if it is, and else why there are no speedups."""
    right = [spec for spec in todo if verified[spec, dtype].status == Status.OK]
    if job.baseline and verified[job.baseline, dtype].status != Status.OK:
        return (
            right,
            None,
            f"no speedup: the baseline {job.baseline} was refused ({verified[job.baseline, dtype].status})",
        )
    return right, job.baseline, None


def _twice(action: Callable[..., T], *args: Any) -> T:
    """Do what the suite's own processes may fail to do; once more if they did.

    Raises
    ------
    LostError
        if they did so again.
    """
    try:
        return action(*args)
    except LostError:
        return action(*args)


def _threads(host: Host) -> str:
    return f"{host.threads} thread{'s' * (host.threads > 1)}"


def availability(custom: Iterable[str] = ()) -> list[dict[str, str]]:
    """Return for each known kernel, and each ``custom`` one, ``name``, ``about`` and ``status`` with the reason.

    Each is imported in a process of its own: what an import prints, changes or ends is its own affair.
    """
    ideas = {rung.name: rung.idea for rung in LADDER}
    rows = []
    with Host() as host:
        for name in dict.fromkeys([*kernels(), *custom]):
            where = find_kernel(name)  # a name that is none is said at once
            outcome = host.call(LoadKernel(name), silence_limit=IMPORT_S)
            late = f"its import takes longer than {IMPORT_S:g} s"
            reason = late if outcome.status == Status.TIMEOUT else outcome.reason
            status = "available" if outcome.status == Status.OK else f"unavailable: {reason}"
            rows.append({"name": name, "about": ideas.get(name, where), "status": status})
    return rows


def trace_model(
    model: str, threads: Iterable[int] = (1,), progress: Callable[[str], None] = lambda text: None
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
    for count in threads:
        with Host(count) as host:
            progress(f"trace {model}, {_threads(host)}")
            outcome = host.call(TraceModel(model), silence_limit=TRACE_S)
        if outcome.status != Status.OK:
            reason = str(outcome.reason)
            raise UsageError(reason if reason.startswith("model ") else f"model {model!r}: {reason}")
        rows += [{"threads": count, **row} for row in outcome.value]
    return pd.DataFrame(rows).astype({"flop": "Int64"})


# --- from Python -------------------------------------------------------------------------------------


def _tell(progress: Callable[[str], None]) -> Progress:
    return lambda text, _: progress(text)


def _several(one_or_more: Any, *kinds: type) -> tuple[Any, ...]:
    return (one_or_more,) if isinstance(one_or_more, kinds) else tuple(one_or_more)


def verify(
    kernel: str | Iterable[str],
    dtypes: str | Iterable[str] = DTYPES,
    effort: str = "default",
    progress: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Judge whether kernels are right.

    Parameters
    ----------
    kernel
        a name from :func:`matmulbench.kernels`, ``package.module:function``, ``path/to/file.py:function``, or several.
    dtypes
        one dtype or several.
    effort
        ``quick`` (a second per row), ``default`` (some seconds) or ``thorough`` (minutes).
    progress
        is called with what comes next.

    Returns
    -------
    pandas.DataFrame
        a row per kernel and dtype: ``kernel``, ``dtype``, ``status``, ``verdict``, ``residual`` (units of
        ``k·u·(|A||B|)``), ``cases``, ``finding``; see :class:`~matmulbench.results.schema.VerificationRow`.
    """
    rows = Rows()
    job = Job(_several(kernel, str), None, dtypes=_several(dtypes, str), effort=effort)
    carry_out(job, rows, _tell(progress))
    return rows.frame("verification").sort_values("kernel", key=lambda names: names.map(job.specs.index), kind="stable")


def measure(
    kernels: str | Iterable[str],
    workloads: Workload | str | Iterable[Workload | str],
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
        a name or ``path/to/file.py:function``, or several.
    workloads
        workloads or their text forms.
    threads
        one thread count or several.
    budget_s
        seconds for each workload, shared by its kernels.
    cold
        evict the operands from the caches before each call.
    progress
        is called with what comes next.

    Returns
    -------
    pandas.DataFrame
        a row per thread count, workload and kernel. What was timed: ``workload``, ``m``, ``k``, ``n``, ``layout``,
        ``dtype``, ``threads``, ``kernel``; what became of it: ``status``, ``extrapolated``, ``reason``; seconds a
        call: ``median_s``, ``ci_low_s``, ``ci_high_s``, ``min_s``, over so many rounds: ``samples``; the baseline's
        time over the kernel's: ``speedup``, ``speedup_ci_low``, ``speedup_ci_high``, ``verdict``; GFLOP/s:
        ``gflops``, ``roof_gflops``; percent: ``roof_percent``; seconds: ``setup_s``, where a kernel prepares b ahead,
        and ``compile_s``, with ``matmulbench run`` alone. See :class:`~matmulbench.results.schema.MeasurementRow`.

    Raises
    ------
    UsageError
        if a kernel's name or a workload's text is none.
    """
    todo = [Workload.parse(one) if isinstance(one, str) else one for one in _several(workloads, str, Workload)]
    rows = Rows()
    job = Job(
        _several(kernels, str),
        baseline,
        _several(threads, int),
        workloads=tuple((one, budget_s) for one in todo),
        cold=cold,
    )
    carry_out(job, rows, _tell(progress))
    for warning in rows.warnings:
        progress(f"warning: {warning}")
    return rows.frame("measurements")


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
        a name, or ``package.module:factory`` for a custom model; see
        :func:`~matmulbench.training.custom_model.load_model`.
    kernels
        a name or ``path/to/file.py:function``, or several.
    threads
        one thread count or several.
    budget_s
        seconds for all kernels together.
    progress
        is called with what comes next.
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
    rows = Rows()
    training = Training(task, budget_s, data_dir, options)
    carry_out(
        Job(_several(kernels, str), baseline, _several(threads, int), trainings=(training,), seed=seed),
        rows,
        _tell(progress),
    )
    return rows.frame("training")
