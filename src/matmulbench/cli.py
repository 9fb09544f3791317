"""The command: each verb parses, calls and prints. Everything heavy is imported inside the verb."""

from __future__ import annotations

import math
import signal
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from matmulbench import streams
from matmulbench.audit import MEASUREMENT, PARTS
from matmulbench.config import load_config
from matmulbench.errors import InputWarning, UsageError, printable, unknown
from matmulbench.ladder.plugins import find_function, kernels
from matmulbench.options import (
    Baseline,
    DataDir,
    Dtype,
    Format,
    KernelOptions,
    Kernels,
    Operands,
    Preset,
    Quiet,
    Seed,
    Task,
    Threads,
    Workloads,
    among,
    beside_ladder,
    known_dtype,
    known_kernels,
    known_workload,
    seconds,
    thread_counts,
)
from matmulbench.progress import progress
from matmulbench.streams import OutputError, tell, write
from matmulbench.workload import DTYPES, FIRST, PRESETS, Workload, workloads

FAILED, USAGE_ERROR = 1, 2
AUDITS = (PARTS[0], "measurement", *MEASUREMENT)
CONFIGURED = ("run", "verify", "measure", "train", "trace")  # the verbs that take what a project's table may set


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end, as Ctrl-C does; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # what is being written is to be finished
    raise Stopped(number)


class _Verbs(TyperGroup):
    """Says in one line what a user can mend, and that a user interrupted; a traceback is for neither."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            tell("matmulbench: " + "\n".join(printable(line, 4096) for line in str(error).splitlines()))
            code = USAGE_ERROR
        except OutputError as error:
            tell(f"matmulbench: {error}")
            code = FAILED
        except OSError as error:  # a disk that is full, a folder that is not ours
            where = f"{error.filename}: " if error.filename else ""
            tell(printable(f"matmulbench: {where}{error.strerror or error}", 4096))
            code = USAGE_ERROR
        except KeyboardInterrupt as interrupt:
            after = "\n" if sys.stderr.isatty() else ""  # the terminal has written ^C
            number = getattr(interrupt, "number", signal.SIGINT)
            said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
            tell(f"{after}matmulbench: {said}{interrupt}")
            code = 128 + number
        raise typer.Exit(code)


app = typer.Typer(
    cls=_Verbs,
    help="""Plug in a matrix multiplication. Learn whether it is right, how fast it is against the machine's own
roof, and what it buys a real training run.

```console
$ matmulbench run
$ matmulbench verify my.py:matmul
$ matmulbench measure my.py:matmul numpy --workload 64x784x50
$ matmulbench train my.py:matmul --task digits
```
""",
    epilog="""Where an option is not given, the environment decides (MATMULBENCH_THREADS, MATMULBENCH_DATA), then
`[tool.matmulbench]` in the project's pyproject.toml (kernels, workloads, threads, baseline, data_dir), then the
default.

Exit codes: 0 all well, 1 a kernel failed or regressed, 2 usage, 130 interrupted (143, 129: by SIGTERM, SIGHUP).""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _warn(usual: Callable[..., None], said: set[str], message: Any, category: type[Warning], *where: Any) -> None:
    """Show what input was passed over in one line, and once."""
    if not issubclass(category, InputWarning):
        usual(message, category, *where)
    elif str(message) not in said:
        said.add(str(message))
        tell(f"warning: {message}")


def main() -> None:
    """Run the command."""
    streams.prepare()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP; nohup ignores it
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    warnings.showwarning = partial(_warn, warnings.showwarning, set())
    try:
        try:
            app()
        finally:
            write("")  # help and version are written by typer
    except OSError as error:
        tell(f"matmulbench: {error}")
        raise SystemExit(FAILED) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        write(f"matmulbench {version('matmulbench')}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand in CONFIGURED:
        # What stands here is weaker than the environment and stronger than a default.
        context.default_map = {context.invoked_subcommand: load_config()}


@app.command()
def run(
    preset: Preset = None,
    kernel: KernelOptions = None,
    operands: Operands = None,
    out: Annotated[Path | None, typer.Option(help="folder for the results; runs/DATE-TIME, if not named")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run that --out holds")] = False,
    workload: Workloads = None,
    threads: Threads = "1",
    baseline: Baseline = "torch",
    data_dir: DataDir = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Verify, measure, train and report: the main job.

    ```console
    $ matmulbench run
    $ matmulbench run --kernel my.py:matmul
    $ matmulbench run --out runs/monday --threads 1,2
    $ matmulbench run --out runs/monday --threads 1,2 --resume
    ```
    """
    from matmulbench.report.headline import headline, warnings
    from matmulbench.report.output import print_tables
    from matmulbench.report.tables import ladder_table, training_table, verification_table
    from matmulbench.results.folder import load_results
    from matmulbench.run import Plan, execute

    if resume and not out:
        raise UsageError("--resume goes on with the run that --out names: name it")
    preset = preset or ("quick" if kernel else "standard")
    baseline, *_ = known_kernels([baseline], operands)
    specs = known_kernels([*beside_ladder(kernel or kernels()), baseline], operands)
    standing = workloads(preset)
    chosen = [known_workload(text) for text in workload] if workload else standing
    plan = Plan(
        preset,
        tuple(specs),
        baseline,
        thread_counts(threads),
        tuple(chosen),
        str(data_dir) if data_dir else None,
        seed,
    )
    folder = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        with progress(quiet, plan.seconds()) as say:
            page = execute(plan, folder, resume, say)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"; what was finished is kept: go on with --out {folder} --resume",)
        raise
    except OSError as error:
        raise UsageError(f"folder {folder}: {error.strerror or error}; what was finished is kept") from None
    results = load_results(folder)
    try:
        print_tables(
            verification_table(results.verification),
            ladder_table(results),
            training_table(results.training, baseline),
        )
        amiss = [f"warning: {line}" for line in warnings(results)]
        write("\n".join(["", *headline(results), *amiss, f"report: {page}\n"]))
    except OutputError as error:
        raise OutputError(f"{error}; the results are in {folder}") from None
    raise typer.Exit(int(any((table["status"] != "ok").any() for table in results.tables.values())))


@app.command("list")
def list_(format: Format = "table") -> None:
    """Show the kernels with their availability, the workloads and the tasks; a project's own among them.

    ```console
    $ matmulbench list
    $ matmulbench list --format json | jq '.[].name'
    ```
    """
    from matmulbench.pipeline import availability
    from matmulbench.report.formatting import flop
    from matmulbench.report.output import show
    from matmulbench.training.tasks import TASKS

    own = load_config()
    rows = [{"kind": "kernel", **row} for row in availability(own.get("kernel", []))]
    products = dict.fromkeys([*PRESETS["standard"], *map(Workload.parse, own.get("workload", []))])
    rows += [{"kind": "workload", "name": str(one), "about": flop(one.flop)} for one in products]
    for name, task in TASKS.items():
        net = "-".join(map(str, task.layers))
        rows += [{"kind": "task", "name": name, "about": f"{net} on {task.source}, {task.loss}"}]
    show(rows, format)


@app.command()
def verify(
    kernel: Kernels = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="float32 or float64; repeatable; both, if not named", autocompletion=among(DTYPES)),
    ] = None,
    operands: Operands = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="compare the kernels with each other instead, in units of the bound")
    ] = False,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Say of each kernel whether it is right; exit 1 where one is not.

    ```console
    $ matmulbench verify my.py:matmul
    $ matmulbench verify --dtype float32 --format json
    $ matmulbench verify numpy torch einsum --agreement
    ```
    """
    import pandas as pd

    from matmulbench.isolation import Host
    from matmulbench.pipeline import verify as verify_kernels
    from matmulbench.report.output import show
    from matmulbench.report.tables import verification_table
    from matmulbench.verification import agreement as differences

    specs, dtypes = known_kernels(kernel, operands), [known_dtype(one) for one in dtype or DTYPES]
    if agreement:
        with Host(1) as host:
            squares = {one: differences(host, specs, one) for one in dtypes}
        show(pd.concat(squares, names=["dtype", "kernel"]).reset_index(), format)
        raise typer.Exit
    with progress(quiet) as say:
        frame = verify_kernels(specs, dtypes=dtypes, progress=say)
    show(frame, format, verification_table)
    raise typer.Exit(int((frame["status"] != "ok").any()))


@app.command()
def measure(
    kernel: Kernels = None,
    operands: Operands = None,
    workload: Workloads = None,
    threads: Threads = "1",
    baseline: Baseline = "torch",
    budget: Annotated[float, typer.Option(help="seconds for each workload")] = 10.0,
    dtype: Dtype = "float32",
    cold: Annotated[bool, typer.Option("--cold", help="evict the operands from the caches before each call")] = False,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Time kernels against the baseline and the machine's roof.

    ```console
    $ matmulbench measure my.py:matmul numpy --workload 64x784x50
    $ matmulbench measure torch --workload 512x512x512 --threads 1,2
    $ matmulbench measure --budget 30 --format csv > ladder.csv
    ```
    """
    from matmulbench.pipeline import measure as measure_kernels
    from matmulbench.report.output import show
    from matmulbench.report.tables import measurement_table

    baseline, *_ = known_kernels([baseline], operands)
    specs = known_kernels([*(kernel or kernels()), baseline], operands)
    todo = [known_workload(text, known_dtype(dtype)) for text in workload or [str(FIRST)]]
    counts, budget_s = thread_counts(threads), seconds(budget)
    with progress(quiet) as say:
        frame = measure_kernels(
            specs, todo, threads=counts, baseline=baseline, budget_s=budget_s, cold=cold, progress=say
        )
    show(frame, format, partial(measurement_table, baseline=baseline))
    raise typer.Exit(int((frame["status"] != "ok").any()))


@app.command()
def train(
    kernel: Kernels = None,
    operands: Operands = None,
    task: Task = "breast-cancer",
    model: Annotated[str | None, typer.Option(help="your own, as package.module:factory, in place of a task")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the data")] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows of a batch")] = None,
    hidden: Annotated[int | None, typer.Option(help="units of the hidden layer")] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64", autocompletion=among(DTYPES))] = None,
    seed: Seed = 0,
    threads: Threads = "1",
    baseline: Baseline = "torch",
    budget: Annotated[float, typer.Option(help="seconds for the whole task")] = 30.0,
    data_dir: DataDir = None,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Train the same net with each kernel, and say what each buys.

    ```console
    $ matmulbench train my.py:matmul numpy --task digits
    $ matmulbench train numba --task mnist --data-dir data/mnist --epochs 3
    $ matmulbench train numpy --model my_package.models:build --format json
    ```
    """
    from matmulbench.pipeline import train as train_kernels
    from matmulbench.report.output import show
    from matmulbench.report.tables import training_table

    changes = {"epochs": epochs, "batch_size": batch_size, "hidden": hidden, "lr": lr, "dtype": dtype}
    changes = {name: value for name, value in changes.items() if value is not None}
    if model:
        for name in changes.keys() - {"lr"}:
            raise UsageError(
                f"--{name.replace('_', '-')} does not go with --model, whose factory makes net and batches"
            )
        if lr is not None and not 0 < lr < math.inf:
            raise UsageError(f"lr {lr:g}: expected a number above 0")
        find_function(model, kind="model")
    baseline, *_ = known_kernels([baseline], operands)
    specs = known_kernels([*(kernel or kernels()), baseline], operands)
    counts, budget_s = thread_counts(threads), seconds(budget)
    with progress(quiet) as say:
        frame = train_kernels(
            model or task,
            specs,
            threads=counts,
            baseline=baseline,
            budget_s=budget_s,
            seed=seed,
            data_dir=str(data_dir) if data_dir else None,
            progress=say,
            **changes,
        )
    show(frame, format, partial(training_table, baseline=baseline))
    raise typer.Exit(int((frame["status"] != "ok").any()))


@app.command()
def trace(
    model: Annotated[str, typer.Argument(metavar="FACTORY", help="path/to/file.py:factory or package.module:factory")],
    threads: Threads = "1",
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """List every matrix product of one training step of your model: shape, caller, share of the step's time.

    ```console
    $ matmulbench trace my_package.models:build
    $ matmulbench trace model.py:make --threads 2 --format csv
    ```
    """
    from matmulbench.pipeline import trace_model
    from matmulbench.report.output import show
    from matmulbench.report.tables import trace_table

    find_function(model, kind="model")
    with progress(quiet) as say:
        frame = trace_model(model, thread_counts(threads), say)
    show(frame, format, trace_table)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="DIR_A", help="the earlier run's folder")],
    after: Annotated[Path, typer.Argument(metavar="DIR_B", help="the later run's folder")],
    only: Annotated[
        list[str] | None,
        typer.Option(help="show only what is faster, slower, broken, same or unclear; repeatable"),
    ] = None,
    format: Format = "table",
) -> None:
    """Say what became faster or slower from one run to another; exit 1 on a regression.

    ```console
    $ matmulbench compare runs/monday runs/tuesday
    $ matmulbench compare runs/monday runs/tuesday --only slower --only broken
    $ matmulbench compare runs/monday runs/tuesday --format csv
    ```
    """
    from matmulbench.comparison import VERDICTS, differences, summary
    from matmulbench.comparison import compare as compare_runs
    from matmulbench.report.output import show
    from matmulbench.report.tables import comparison_table
    from matmulbench.results.folder import load_results

    for verdict in set(only or ()) - set(VERDICTS):
        raise unknown("verdict", verdict, VERDICTS)
    runs = load_results(before), load_results(after)
    for difference in differences(*runs):
        tell(f"warning: the runs differ in more than time: {difference}")
    frame = compare_runs(*runs)
    shown = frame[frame["verdict"].isin(only)] if only else frame
    show(shown, format, partial(comparison_table, title=summary(frame)))
    raise typer.Exit(int(frame["verdict"].isin(["slower", "broken"]).any()))


@app.command()
def audit(
    only: Annotated[
        str | None,
        typer.Option(
            help=f"{PARTS[0]}, measurement or one part of that: {', '.join(MEASUREMENT)}; all, if not named",
            autocompletion=among(AUDITS),
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="few trials and a third of the planted bugs: minutes; hours without")
    ] = False,
    format: Format = "table",
    quiet: Quiet = False,
) -> None:
    """Let the suite test itself: planted bugs, the same kernel twice, planted delays, known durations.

    ```console
    $ matmulbench audit --quick
    $ matmulbench audit --only verification --format json
    $ matmulbench audit --format csv > runs/monday/audit.csv  # its report shows it
    ```
    """
    from dataclasses import asdict

    from matmulbench.audit import audit as audit_parts
    from matmulbench.report.output import show
    from matmulbench.report.tables import audit_table

    if only and only not in AUDITS:
        raise unknown("audit", only, AUDITS)
    chosen = {None: PARTS, "measurement": MEASUREMENT}.get(only, (str(only),))
    checks: list[dict[str, Any]] = []
    try:
        with progress(quiet) as say:
            for check in audit_parts(chosen, quick, say):
                checks.append(asdict(check))  # noqa: PERF401 - what is finished is kept if the next is interrupted
    finally:
        if checks:
            show(checks, format, audit_table)
    raise typer.Exit(int(not all(check["passed"] for check in checks)))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a run's folder")],
    splice: Annotated[Path | None, typer.Option(help="write the table into this file, between its marks")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="pytest-benchmark's JSON file or .benchmarks, or asv's results, to be shown beside it; repeatable",
        ),
    ] = None,
) -> None:
    """Write charts and report.html of a run; with --splice, its table into a README.

    ```console
    $ matmulbench report runs/monday
    $ matmulbench report runs/monday --with benchmark.json --with .asv/results
    $ matmulbench report results/reference --splice README.md
    ```
    """
    from matmulbench.report import write_report
    from matmulbench.report.output import print_tables
    from matmulbench.report.splice import splice as splice_into
    from matmulbench.report.tables import front_end_table
    from matmulbench.results.folder import load_results
    from matmulbench.results.front_ends import read_front_end

    results, front_ends = load_results(folder), [read_front_end(path) for path in beside or []]
    page = write_report(folder, front_ends)
    if front_ends:
        print_tables(front_end_table(results, front_ends))
    write(f"report: {page}\n")
    if splice:
        splice_into(splice, results)


@app.command()
def fetch(
    what: Annotated[str, typer.Argument(metavar="mnist", help="the data set", autocompletion=among(["mnist"]))],
    quiet: Quiet = False,
) -> None:
    """Download a data set with checksums into the cache.

    ```console
    $ matmulbench fetch mnist
    ```
    """
    from matmulbench.data import fetch_mnist

    if what != "mnist":
        raise unknown("data set", what, ["mnist"])
    with progress(quiet) as say:
        folder = fetch_mnist(progress=say)
    write(f"mnist: {folder}\n")
