"""The command: each verb parses, calls and prints. Everything heavy is imported inside the verb."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matmulbench.errors import UsageError

if TYPE_CHECKING:
    from matmulbench.run import Plan, Progress

USAGE_ERROR, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Plug in a matrix multiplication. Learn whether it is right, how fast it is against the machine's own "
    "roof, and what it buys a real training run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_SPEC = "a name from `matmulbench list`, package.module:function or path/to/file.py:function"
Kernels = Annotated[list[str] | None, typer.Argument(metavar="[KERNEL]...", help=f"{_SPEC}; all, if none is named")]
KernelOptions = Annotated[list[str] | None, typer.Option("--kernel", help=f"{_SPEC}; repeatable")]
Workloads = Annotated[list[str] | None, typer.Option("--workload", help="such as 784x50000x50:TN; repeatable")]
Threads = Annotated[str, typer.Option(help="thread counts, such as 1 or 1,2")]
Baseline = Annotated[str, typer.Option(help="the kernel that speedups are quoted against")]
Dtype = Annotated[str, typer.Option(help="float32 or float64")]
DataDir = Annotated[Path | None, typer.Option(envvar="MATMULBENCH_DATA", help="folder with the MNIST files")]
Format = Annotated[str, typer.Option("--format", help="table, csv or json")]


def main() -> None:
    """Run the command; errors that a user can mend are one line and exit code 2."""
    try:
        app()
    except UsageError as error:
        typer.echo(f"matmulbench: {error}", err=True)
        sys.exit(USAGE_ERROR)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"matmulbench {version('matmulbench')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    pass


@app.command()
def run(
    preset: Annotated[str, typer.Option(help="quick (30 s), standard (3 min) or full (20 min)")] = "standard",
    kernel: KernelOptions = None,
    out: Annotated[Path | None, typer.Option(help="folder for the results; runs/DATE-TIME, if not named")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run that --out holds")] = False,
    workload: Workloads = None,
    threads: Threads = "1",
    baseline: Baseline = "torch",
    data_dir: DataDir = None,
    seed: int = 0,
) -> None:
    """Verify, measure, train and report: the main job.

    Example: matmulbench run --preset quick --kernel torch --kernel my.py:matmul
    """
    from matmulbench.report.output import print_grids
    from matmulbench.report.tables import ladder_table, training_table
    from matmulbench.results.folder import load_results
    from matmulbench.run import Plan, execute
    from matmulbench.workload import Workload, workloads

    specs = _known([*(kernel or _all_kernels()), baseline])
    chosen = [Workload.parse(text) for text in workload] if workload else workloads(preset)
    plan = Plan(
        preset,
        tuple(specs),
        baseline,
        _thread_counts(threads),
        tuple(chosen),
        str(data_dir) if data_dir else None,
        seed,
    )
    folder = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        with _progress(plan) as progress:
            page = execute(plan, folder, resume, progress)
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; what was finished is in {folder}: go on with --out {folder} --resume", err=True)
        raise typer.Exit(INTERRUPTED) from None
    results = load_results(folder)
    print_grids(ladder_table(results), training_table(results.training, baseline))
    typer.echo(f"report: {page}")
    failed = (results.verification["status"] != "ok").any() or (results.measurements["status"] != "ok").any()
    raise typer.Exit(1 if failed else 0)


@app.command("list")
def list_(format: Format = "table") -> None:
    """Show the kernels with their availability, the workloads and the tasks."""
    from matmulbench.ladder.plugins import availability
    from matmulbench.report.output import show
    from matmulbench.training.tasks import TASKS
    from matmulbench.workload import PRESETS

    rows = [{"kind": "kernel", **row} for row in availability()]
    rows += [{"kind": "workload", "name": str(one), "about": f"{one.flop:,} FLOP"} for one in PRESETS["standard"]]
    for name, task in TASKS.items():
        net = "-".join(map(str, task.layers))
        rows += [{"kind": "task", "name": name, "about": f"{net} on {task.source}, {task.loss}"}]
    show(rows, format)


@app.command()
def verify(
    kernel: Kernels = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32 or float64; repeatable; both, if not named")] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="compare the kernels with each other instead, in units of the bound")
    ] = False,
    format: Format = "table",
) -> None:
    """Say of each kernel whether it is right; exit 1 where one is not.

    Example: matmulbench verify my.py:matmul
    """
    from matmulbench.isolation import Host
    from matmulbench.report.output import show
    from matmulbench.verification import agreement as differences
    from matmulbench.verification.api import verify as verify_kernels
    from matmulbench.workload import DTYPES

    specs, dtypes = _known(kernel), [_dtype(one) for one in dtype or DTYPES]
    if agreement:
        for one in dtypes:
            with Host(1) as host:
                show(differences(host, specs, one).rename_axis(f"kernel ({one})").reset_index(), format)
        raise typer.Exit
    frame = verify_kernels(specs, dtypes=dtypes)
    show(frame, format)
    raise typer.Exit(int((frame["status"] != "ok").any()))


@app.command()
def measure(
    kernel: Kernels = None,
    workload: Workloads = None,
    threads: Threads = "1",
    baseline: Baseline = "torch",
    budget: Annotated[float, typer.Option(help="seconds for each workload")] = 10.0,
    dtype: Dtype = "float32",
    cold: Annotated[bool, typer.Option("--cold", help="evict the operands from the caches before each call")] = False,
    format: Format = "table",
) -> None:
    """Time kernels against the baseline and the machine's roof.

    Example: matmulbench measure numpy my.py:matmul --workload 64x784x50
    """
    from matmulbench.measurement.api import measure as measure_kernels
    from matmulbench.report.output import show
    from matmulbench.workload import FIRST, Workload

    if budget <= 0:
        raise UsageError(f"budget {budget:g}: expected seconds above 0")
    specs = _known([*(kernel or _all_kernels()), baseline])
    todo = [Workload.parse(text, _dtype(dtype)) for text in workload or [str(FIRST)]]
    frame = measure_kernels(
        specs,
        todo,
        threads=_thread_counts(threads),
        baseline=baseline,
        budget_s=budget,
        cold=cold,
        progress=_tell,
    )
    show(frame, format, baseline)
    raise typer.Exit(int((frame["status"] != "ok").any()))


@app.command()
def train(
    kernel: Kernels = None,
    task: Annotated[str, typer.Option(help="breast-cancer, digits, mnist or mnist-regression")] = "breast-cancer",
    model: Annotated[str | None, typer.Option(help="your own, as package.module:factory, in place of a task")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the data")] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows of a batch")] = None,
    hidden: Annotated[int | None, typer.Option(help="units of the hidden layer")] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64")] = None,
    seed: int = 0,
    threads: Threads = "1",
    baseline: Baseline = "torch",
    budget: Annotated[float, typer.Option(help="seconds for the whole task")] = 30.0,
    data_dir: DataDir = None,
    format: Format = "table",
) -> None:
    """Train the same net with each kernel, and say what each buys.

    Example: matmulbench train torch numpy --task digits
    """
    from matmulbench.report.output import show
    from matmulbench.training.api import train as train_kernels

    changes = {"epochs": epochs, "batch_size": batch_size, "hidden": hidden, "lr": lr, "dtype": dtype}
    frame = train_kernels(
        model or task,
        _known([*(kernel or _all_kernels()), baseline]),
        threads=_thread_counts(threads),
        baseline=baseline,
        budget_s=budget,
        seed=seed,
        data_dir=str(data_dir) if data_dir else None,
        **{name: value for name, value in changes.items() if value is not None},
    )
    show(frame, format, baseline)
    raise typer.Exit(int((frame["status"] != "ok").any()))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="DIR_A", help="the earlier run's folder")],
    after: Annotated[Path, typer.Argument(metavar="DIR_B", help="the later run's folder")],
    format: Format = "table",
) -> None:
    """Say what became faster or slower from one run to another; exit 1 on a regression.

    Example: matmulbench compare runs/monday runs/tuesday
    """
    from matmulbench.comparison import compare as compare_runs
    from matmulbench.comparison import differences
    from matmulbench.report.output import show
    from matmulbench.results.folder import load_results

    runs = load_results(before), load_results(after)
    for difference in differences(*runs):
        _tell(f"warning: the runs differ in more than time: {difference}")
    frame = compare_runs(*runs)
    show(frame, format)
    raise typer.Exit(int(frame["verdict"].isin(["slower", "broken"]).any()))


@app.command()
def audit(
    only: Annotated[str | None, typer.Option(help="verification or measurement; both, if not named")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="few trials: minutes; hours without")] = False,
    format: Format = "table",
) -> None:
    """Let the suite test itself: planted bugs, the same kernel twice, planted delays, known durations.

    Example: matmulbench audit --quick
    """
    from dataclasses import asdict

    from matmulbench.audit.measurement import audit_measurement
    from matmulbench.audit.verification import audit_verification
    from matmulbench.errors import unknown
    from matmulbench.report.output import show

    parts = ("verification", "measurement")
    if only not in (None, *parts):
        raise unknown("audit", only, parts)
    passed = True
    if only != "measurement":
        rows = audit_verification(progress=_tell)
        show(rows, format)
        passed &= all(row["passed"] for row in rows)
    if only != "verification":
        rows = [asdict(check) for check in audit_measurement(quick, _tell)]
        show(rows, format)
        passed &= all(row["passed"] for row in rows)
    raise typer.Exit(int(not passed))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a run's folder")],
    splice: Annotated[Path | None, typer.Option(help="write the table into this file, between its marks")] = None,
) -> None:
    """Write charts and report.html of a run; with --splice, its table into a README."""
    from matmulbench.report import write_report
    from matmulbench.report.splice import splice as splice_into
    from matmulbench.results.folder import load_results

    typer.echo(f"report: {write_report(folder)}")
    if splice:
        splice_into(splice, load_results(folder))


@app.command()
def fetch(what: Annotated[str, typer.Argument(metavar="mnist")]) -> None:
    """Download a data set with checksums into the cache."""
    from matmulbench.data import fetch_mnist
    from matmulbench.errors import unknown

    if what != "mnist":
        raise unknown("data set", what, ["mnist"])
    with _download_bar() as bar:
        folder = fetch_mnist(progress=bar)
    typer.echo(f"mnist: {folder}")


def _all_kernels() -> list[str]:
    from matmulbench.ladder.plugins import kernels

    return kernels()


def _known(specs: list[str] | None) -> list[str]:
    """Return ``specs``, or all kernels, each known to exist, once."""
    from matmulbench.ladder.plugins import find_kernel

    chosen = list(dict.fromkeys(specs or _all_kernels()))
    for spec in chosen:
        find_kernel(spec)
    return chosen


def _dtype(text: str) -> str:
    from matmulbench.errors import unknown
    from matmulbench.workload import DTYPES

    if text not in DTYPES:
        raise unknown("dtype", text, DTYPES)
    return text


def _tell(text: str) -> None:
    typer.echo(text, err=True)


class _Bar:
    """A rich bar with the methods that pooch calls, which are those of tqdm."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task = progress.add_task("mnist")

    @property
    def total(self) -> float | None:
        """Bytes to come."""
        total: float | None = self._progress.tasks[self._task].total
        return total

    @total.setter
    def total(self, total: float) -> None:
        self._progress.update(self._task, total=total)

    def update(self, advance: float) -> None:
        """Add bytes that have come."""
        self._progress.advance(self._task, advance)

    def reset(self) -> None:
        """Begin again."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Nothing to do: the bar is reused for the next file."""


@contextmanager
def _download_bar() -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


@contextmanager
def _progress(plan: Plan) -> Iterator[Progress]:
    """Show what is being done and about how long is left; plain lines where there is no terminal."""
    from time import monotonic

    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text, seconds: _tell(text)
        return
    step_s, step_start = 0.0, monotonic()

    class TimeLeft(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = (task.total or 0) - task.completed - min(monotonic() - step_start, step_s)
            return Text(f"about {max(left, 0):.0f} s left")

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeLeft())
    # Twice a second: the bar must not take the processor from what is being timed.
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as bar:
        task = bar.add_task("start", total=plan.seconds())

        def advance(text: str, seconds: float) -> None:
            nonlocal step_s, step_start
            bar.update(task, advance=step_s, description=text)
            step_s, step_start = seconds, monotonic()

        yield advance


def _thread_counts(text: str) -> tuple[int, ...]:
    import os

    counts = text.split(",")
    most = len(os.sched_getaffinity(0))
    if not all(count.isdigit() and 1 <= int(count) <= most for count in counts):
        raise UsageError(f"threads {text!r}: expected counts from 1 to {most}, the cores of this machine, such as 1,2")
    return tuple(dict.fromkeys(map(int, counts)))
