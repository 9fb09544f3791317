"""The Python functions: each makes a job of what a user names, and returns its rows as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from matmulbench.arguments import (
    check_memory,
    check_seconds,
    dtype_names,
    kernel_specs,
    read_workloads,
    renaming,
    spec_of,
    thread_counts,
)
from matmulbench.dtypes import DTYPES, USUAL
from matmulbench.errors import UsageError
from matmulbench.isolation import IMPORT_S, Host
from matmulbench.isolation.requests import LoadKernel, ProductError, TraceModel
from matmulbench.isolation.system import cores
from matmulbench.ladder import BASELINE, BASELINES, RUNGS
from matmulbench.ladder.plugins import find_kernel, kernels
from matmulbench.measurement.seal import SILENCE_S
from matmulbench.pipeline import Job, Progress, Sink, Training, carry_out, require_device, threads_of
from matmulbench.results.schema import Row, frame
from matmulbench.status import Status
from matmulbench.verification.api import agreement, repeat_case
from matmulbench.workload import FIRST, Workload

if TYPE_CHECKING:
    import pandas as pd

_TRACE_S = 600.0  # that a factory and some steps of its model may take


class Fleet(Protocol):
    """Hosts that work together; see :class:`matmulbench.fleet.Fleet`."""

    cores: int

    def carry_out(self, job: Job, sink: Sink, progress: Progress) -> None:
        """Do as :func:`~matmulbench.pipeline.carry_out` does, with a host for each worker of a training."""


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
            progress(f"trace {model}, {threads_of(host)}")
            outcome = host.call(TraceModel(model, quiet=bool(rows)), silence_limit=_TRACE_S)
        if outcome.status != Status.OK:
            reason = str(outcome.reason)
            raise UsageError(reason if reason.startswith("model ") else f"model {model!r}: {reason}")
        rows += [{"threads": count, **row} for row in outcome.value]
    return pd.DataFrame(rows).astype({"flop": "Int64"})


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
    specs, names = kernel_specs(kernel, device), dtype_names(dtypes)
    job = Job(specs, None, dtypes=names, effort=effort, device=device, import_s=import_timeout_s)
    rename = renaming(job.specs)
    if case is None:
        found = _rows(job, "verification", progress)
        order = list(map(rename, job.specs))
        return found.sort_values("kernel", key=lambda names: names.map(order.index), kind="stable")
    import pandas as pd

    from matmulbench.verification.case import Case

    if not isinstance(case, str):
        raise UsageError(f"case {case!r}: expected a text such as 2x2x1:TN")
    parsed, rows = Case.parse(case), []
    check_memory(f"case {case!r}", Workload(parsed.m, parsed.k, parsed.n, dtype=parsed.dtype))
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

    job = Job(kernel_specs(kernel), None, dtypes=dtype_names(dtypes), import_s=import_timeout_s)
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
    job = Job(
        kernel_specs(kernels, device),
        kernel_specs(BASELINES[device] if baseline is None else baseline, device)[0],
        thread_counts(threads),
        workloads=tuple((one, budget_s) for each in dtype_names(dtype) for one in read_workloads(workloads, each)),
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
