"""The verbs: each parses, calls and prints. Everything heavy is imported inside the verb."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from matmulbench.audit import MEASUREMENT, PARTS
from matmulbench.cli import options as opt
from matmulbench.cli.command import app
from matmulbench.cli.progress import show_progress
from matmulbench.dtypes import USUAL
from matmulbench.errors import UsageError, unknown
from matmulbench.ladder import BASELINES, RUNGS
from matmulbench.ladder.plugins import kernels, with_operands
from matmulbench.streams import OutputError, log, write
from matmulbench.workload import FIRST, PRESETS, USES

if TYPE_CHECKING:
    import pandas as pd

    from matmulbench.report.table import Table
    from matmulbench.results.folder import Results

    AsTable = Callable[[pd.DataFrame], Table | list[Table]]

AUDITS = (PARTS[0], "measurement", *MEASUREMENT)


def _named(specs: list[str] | None, operands: str | None, device: str = "cpu") -> list[str]:
    """Return the kernels that were named, with what they take behind them, or else all of the device."""
    return [with_operands(spec, operands, device) for spec in specs or kernels(device)]


def _baseline(spec: str | None, operands: str | None, device: str) -> str:
    """Return the baseline that was named, with what it takes behind it, or else the device's."""
    return with_operands(BASELINES[device] if spec is None else spec, operands, device)


def _finish(rows: pd.DataFrame | list[dict[str, Any]], format: str, failed: bool, as_table: AsTable) -> NoReturn:
    """Print rows, and exit: with 1 if something failed."""
    from matmulbench.report.output import show

    show(rows, format, as_table)
    raise typer.Exit(int(failed))


def _any_failed(*tables: pd.DataFrame) -> bool:
    """Tell whether a kernel failed: no rung that is not available here did, nor one that takes some dtypes only."""
    rungs = {rung.name for rung in RUNGS}
    for table in (table for table in tables if "status" in table):
        ok, missing = table["status"] == "ok", table["status"] == "unavailable"
        unknown = set(table["kernel"][missing]) - set(table["kernel"][ok]) - rungs
        if unknown or not (ok | missing).all():
            return True
    return False


def _work(work: Callable[..., pd.DataFrame], quiet: bool, format: str, as_table: AsTable) -> NoReturn:
    """Do what takes its time, print its rows, and exit; where the user interrupts, print what was finished."""
    try:
        with show_progress(quiet) as progress:
            rows = work(progress=progress)
    except KeyboardInterrupt as interrupt:
        finished: Any = getattr(interrupt, "rows", ())
        if len(finished):
            with suppress(typer.Exit):
                _finish(finished, format, True, as_table)
        raise
    _finish(rows, format, _any_failed(rows), as_table)


@app.command()
def run(
    preset: opt.Preset = None,
    kernel: opt.KernelOptions = None,
    operands: opt.Operands = None,
    out: Annotated[str | None, typer.Option(help="folder for the results; runs/DATE-TIME, if not named")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run that --out holds")] = False,
    model: opt.Model = None,
    compare_compile: opt.CompareCompile = False,
    workload: opt.Workloads = None,
    dtype: opt.TimedDtypes = None,
    threads: opt.Threads = "1",
    baseline: opt.Baseline = None,
    device: opt.Device = "cpu",
    data_dir: opt.DataDir = None,
    seed: opt.Seed = 0,
    import_timeout: opt.ImportTimeout = 20.0,
    scheduler: opt.Scheduler = None,
    each: opt.Each = "machine",
    quiet: opt.Quiet = False,
) -> None:
    """Verify, measure, train and report: the main job.

    ```console
    $ matmulbench run
    $ matmulbench run --kernel my.py:matmul
    $ matmulbench run --model model.py:make --kernel my.py:matmul
    $ matmulbench run --out runs/monday --threads 1,2
    $ matmulbench run --out runs/monday --threads 1,2 --resume
    $ matmulbench run --out runs/fleet --scheduler tcp://10.0.0.1:8786
    ```
    """
    from matmulbench import fleet
    from matmulbench.results.folder import load_results
    from matmulbench.run import plan

    if out == "":  # as of a shell's variable that is not set
        raise UsageError("--out '': expected a folder")
    if each != "machine" and not scheduler:
        raise UsageError(f"each {each!r} goes with --scheduler: name the fleet's")
    if resume and out is None:
        raise UsageError("--resume goes on with the run that --out names: name it")
    folder = Path(out) if out else Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        with fleet.Fleet(scheduler) if scheduler else nullcontext() as several:
            with show_progress(quiet) as progress:
                planned = plan(
                    preset,
                    _named(kernel, operands, device) if kernel else (),
                    products=workload or (),
                    dtypes=dtype or (),
                    model=model,
                    compare_compile=compare_compile,
                    threads=threads,
                    baseline=_baseline(baseline, operands, device),
                    device=device,
                    data_dir=data_dir,
                    seed=seed,
                    import_timeout_s=import_timeout,
                    cores=several.cores if several else None,
                    progress=progress,
                )
            execute = partial(fleet.execute, several, planned, each=each) if several else planned.execute
            with show_progress(quiet, None if several else planned.seconds) as progress:
                page = execute(folder, resume=resume, progress=progress)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"; what was finished is kept: go on with --out {folder} --resume",)
        raise
    except OSError as error:
        raise UsageError(f"folder {folder}: {error.strerror or error}; what was finished is kept") from None
    results = load_results(folder)
    try:
        _print_run(results, page)
    except OutputError as error:
        raise OutputError(f"{error}; the results are in {folder}") from None
    raise typer.Exit(int(_any_failed(*results.tables.values())))


def _print_run(results: Results, page: Path) -> None:
    """Print what a run found, on one machine or several."""
    from matmulbench.report.fleet import sentences, winners_table
    from matmulbench.report.headline import headline, warnings
    from matmulbench.report.output import print_prose, print_tables
    from matmulbench.report.queries import without_findings
    from matmulbench.report.tables import ladder_table, training_table, verification_table
    from matmulbench.results.folder import FleetResults

    if isinstance(results, FleetResults):
        print_tables(winners_table(results))
        said = sentences(results)
    else:
        print_tables(
            verification_table(results.verification),
            ladder_table(results),
            training_table(without_findings(results, "training"), results.baseline),
        )
        said = headline(results)
    print_prose(*said, *(f"warning: {line}" for line in warnings(results)))
    write(f"report: {page}\n")


@app.command("list")
def list_(
    kernel: opt.Kernels = None,
    workload: opt.Workloads = None,
    import_timeout: opt.ImportTimeout = 20.0,
    format: opt.Format = "table",
) -> None:
    """Show all kernels with their availability, yours among them; the workloads and the tasks.

    ```console
    $ matmulbench list
    $ matmulbench list my.py:matmul
    $ matmulbench list --format json | jq '.[].name'
    ```
    """
    from matmulbench.api import availability
    from matmulbench.arguments import read_workloads
    from matmulbench.report.formatting import flop
    from matmulbench.report.tables import list_tables
    from matmulbench.training.tasks import LOSSES, TASKS

    products = dict.fromkeys([*PRESETS["standard"], *(read_workloads(workload) if workload else ())])
    rows = [{"kind": "kernel", **row} for row in availability(kernel or (), import_timeout)]
    for one in products:
        about = ": ".join(filter(None, [flop(one.flop), USES.get(one)]))
        rows.append({"kind": "workload", "name": str(one), "about": about})
    for name, task in TASKS.items():
        net = "-".join(map(str, task.layers))
        loss = LOSSES.get(task.loss, task.loss)
        rows += [{"kind": "task", "name": name, "about": f"{net} on {task.source}, {loss}"}]
    _finish(rows, format, failed=False, as_table=list_tables)


@app.command()
def verify(
    kernel: opt.Kernels = None,
    dtype: opt.Dtypes = None,
    operands: opt.Operands = None,
    device: opt.Device = "cpu",
    case: Annotated[
        str | None, typer.Option(help="judge by one case alone, as findings name it (2x2x1:TN), and show it")
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="compare the kernels with each other instead, in units of the bound")
    ] = False,
    import_timeout: opt.ImportTimeout = 20.0,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """Judge whether each kernel is right; exit 1 where one is not.

    ```console
    $ matmulbench verify my.py:matmul
    $ matmulbench verify my.py:matmul --case 2x2x1:TN
    $ matmulbench verify --dtype float32 --format json
    $ matmulbench verify numpy torch einsum --agreement
    ```
    """
    from matmulbench import api
    from matmulbench.report.tables import agreement_table, case_table, verification_table

    specs, dtypes = _named(kernel, operands, device), dtype or USUAL
    if case is not None and agreement:
        raise UsageError(f"--case {case} does not go with --agreement: expected one of them")
    if case is not None and dtype:
        raise UsageError(f"--case {case}: expected without --dtype: a case names its own dtype (2x2x1:TN,float64)")
    if agreement:
        differences = api.compare_results(specs, dtypes, import_timeout_s=import_timeout)
        _finish(differences, format, failed=False, as_table=agreement_table)
    work = partial(api.verify, specs, dtypes, case=case, device=device, import_timeout_s=import_timeout)
    _work(work, quiet, format, verification_table if case is None else partial(case_table, case=case))


@app.command()
def measure(
    kernel: opt.Kernels = None,
    operands: opt.Operands = None,
    workload: opt.Workloads = None,
    threads: opt.Threads = "1",
    baseline: opt.Baseline = None,
    device: opt.Device = "cpu",
    budget: Annotated[
        float,
        typer.Option(
            help="seconds for each workload; where they are too few, slow rungs are left out", **opt.number(float)
        ),
    ] = 10.0,
    dtype: opt.TimedDtypes = None,
    cold: Annotated[bool, typer.Option("--cold", help="evict the operands from the caches before each call")] = False,
    import_timeout: opt.ImportTimeout = 20.0,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """Time kernels against the baseline and the machine's roof.

    ```console
    $ matmulbench measure my.py:matmul numpy --workload 64x784x50
    $ matmulbench measure torch --workload 512x512x512 --threads 1,2
    $ matmulbench measure torch --dtype float32 --dtype bfloat16 --dtype int8
    $ matmulbench measure --budget 30 --format csv > ladder.csv
    ```
    """
    from matmulbench import api
    from matmulbench.report.headline import measured
    from matmulbench.report.tables import measurement_table, precision_table

    baseline = _baseline(baseline, operands, device)
    work = partial(
        api.measure,
        _named(kernel, operands, device),
        workload or str(FIRST),
        dtype=dtype or "float32",
        threads=threads,
        baseline=baseline,
        device=device,
        budget_s=budget,
        cold=cold,
        import_timeout_s=import_timeout,
    )

    def tables(rows: pd.DataFrame) -> list[Table]:
        found = api.precision(rows, baseline) if len(dtype or ()) > 1 else None
        more = [] if found is None or found.empty else [precision_table(found)]
        return [measurement_table(rows, baseline, measured(rows, baseline)), *more]

    _work(work, quiet, format, tables)


@app.command()
def train(
    kernel: opt.Kernels = None,
    operands: opt.Operands = None,
    task: opt.Task = None,
    model: opt.Model = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the data", **opt.number(int))] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows of a batch", **opt.number(int))] = None,
    hidden: Annotated[int | None, typer.Option(help="units of the hidden layer", **opt.number(int))] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate", **opt.number(float))] = None,
    dtype: opt.Dtype = None,
    seed: opt.Seed = 0,
    threads: opt.Threads = "1",
    workers: opt.Workers = 1,
    scheduler: opt.Scheduler = None,
    baseline: opt.Baseline = None,
    device: opt.Device = "cpu",
    budget: Annotated[float, typer.Option(help="seconds for the whole task", **opt.number(float))] = 30.0,
    data_dir: opt.DataDir = None,
    compare_compile: opt.CompareCompile = False,
    import_timeout: opt.ImportTimeout = 20.0,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """Train the same net with each kernel, and say what each buys.

    ```console
    $ matmulbench train my.py:matmul numpy --task digits
    $ matmulbench train numba --task mnist --data-dir data/mnist --epochs 3
    $ matmulbench train numpy --model my_package.models:build --format json
    $ matmulbench train my.py:matmul --task digits --workers 2
    $ matmulbench train my.py:matmul --workers 2 --scheduler tcp://10.0.0.1:8786
    ```
    """
    from matmulbench import api
    from matmulbench.fleet import Fleet
    from matmulbench.report.tables import training_table

    if task and model:
        raise UsageError(f"task {task!r} does not go with model {model!r}: expected one of them")
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "hidden": hidden, "lr": lr, "dtype": dtype}
    baseline = _baseline(baseline, operands, device)
    work = partial(
        api.train,
        model or task or "breast-cancer",
        _named(kernel, operands, device),
        threads=threads,
        workers=workers,
        baseline=baseline,
        device=device,
        budget_s=budget,
        seed=seed,
        data_dir=data_dir,
        import_timeout_s=import_timeout,
        compare_compile=compare_compile,
        **{name: value for name, value in options.items() if value is not None},
    )
    with Fleet(scheduler) if scheduler else nullcontext() as fleet:
        _work(partial(work, fleet=fleet), quiet, format, partial(training_table, baseline=baseline))


@app.command()
def trace(
    model: opt.Factory,
    threads: opt.Threads = "1",
    import_timeout: opt.ImportTimeout = 20.0,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """List every matrix product of one training step of your model: shape, caller, share of the step's time.

    ```console
    $ matmulbench trace my_package.models:build
    $ matmulbench trace model.py:make --threads 2 --format csv
    ```
    """
    from matmulbench import api
    from matmulbench.report.tables import trace_table

    work = partial(api.trace_model, model, threads, import_timeout_s=import_timeout)
    _work(work, quiet, format, trace_table)


@app.command()
def guard(
    spec: Annotated[
        str, typer.Argument(metavar="KERNEL", help="path/to/file.py:function or package.module:function, in git")
    ],
    against: Annotated[
        str, typer.Option(metavar="REV", help="what to compare with: a branch, a tag or a commit, such as origin/main")
    ],
    operands: opt.Operands = None,
    workload: opt.Workloads = None,
    threads: opt.Threads = "1",
    budget: Annotated[float, typer.Option(help="seconds for each workload", **opt.number(float))] = 10.0,
    dtype: opt.Dtype = None,
    import_timeout: opt.ImportTimeout = 20.0,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """Compare a kernel with what it was at another commit, both in turns; exit 1 if it is wrong or slower.

    ```console
    $ matmulbench guard kernel.py:matmul --against origin/main
    $ matmulbench guard kernel.py:matmul --against HEAD~1 --budget 20
    ```
    """
    from matmulbench import api
    from matmulbench.report.output import show
    from matmulbench.report.tables import measurement_table
    from matmulbench.revision import kernel_at

    spec = with_operands(spec, operands)
    with kernel_at(spec, against) as before, show_progress(quiet) as progress:
        rows = api.measure(
            spec,
            workload or str(FIRST),
            dtype=dtype or "float32",
            threads=threads,
            baseline=before,
            budget_s=budget,
            import_timeout_s=import_timeout,
            progress=lambda text: progress(text.replace(before, against)),
        )

    def named(text: str) -> str:  # without the command that repeats a finding: the old file is gone by then
        return text.replace(before, against).partition("Repeat: ")[0].rstrip() if before in text else text

    for name in ("kernel", "reason"):
        rows[name] = rows[name].map(named, na_action="ignore")
    new = rows[rows["kernel"] == spec]
    slower = bool((new["verdict"] == "slower").any())
    as_table = partial(measurement_table, baseline=against)
    old = rows[rows["kernel"] == against]
    never_ran = old["reason"].str.startswith("import: ", na=False)
    missing = old[old["status"].isin(["unavailable", "lost"]) | never_ran]
    if len(missing):
        show(rows, format, as_table)
        raise UsageError(f"nothing to compare {spec} with: at {against}, it is {missing['reason'].iloc[0]}")
    _finish(rows, format, slower or _any_failed(new), as_table)


@app.command()
def tune(
    threads: opt.Threads = "1",
    budget: Annotated[
        float, typer.Option(help="seconds in all; the more, the smaller the differences seen", **opt.number(float))
    ] = 60.0,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """Find the fastest settings of numba-tiled on this machine, and keep them for later runs.

    ```console
    $ matmulbench tune
    $ matmulbench tune --threads 1,2 --budget 120
    ```
    """
    from matmulbench import tuning
    from matmulbench.report.tables import tuning_table

    _work(partial(tuning.tune, threads, budget), quiet, format, tuning_table)


@app.command()
def compare(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="the runs' folders, oldest first")],
    only: Annotated[
        list[str] | None,
        typer.Option(help="show only what is faster, slower, broken, same or unclear; repeatable"),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page with charts, too")] = None,
    format: opt.Format = "table",
) -> None:
    """Say what became faster or slower between two runs, or since when in many; exit 1 on a regression.

    Of runs on different processors, rank the kernels.

    ```console
    $ matmulbench compare runs/monday runs/tuesday
    $ matmulbench compare runs/monday runs/tuesday --only slower --only broken
    $ matmulbench compare runs/2026-* --html history.html
    ```
    """
    from matmulbench import comparison
    from matmulbench.report import write_comparison
    from matmulbench.report.headline import warnings
    from matmulbench.report.tables import comparison_table, history_table, ranking_table
    from matmulbench.results.folder import load_results
    from matmulbench.results.schema import KEYS

    for verdict in set(only or ()) - set(comparison.VERDICTS):
        raise unknown("verdict", verdict, comparison.VERDICTS)
    if len(folders) < 2:
        raise UsageError(f"compare takes two folders at least, the older first: {folders[0]} is one")
    runs = [load_results(folder) for folder in folders]
    disordered = [
        f"{a.path} was made after {b.path}: expected the oldest first"
        for a, b in pairwise(runs)
        if a.run.get("start", "") > b.run.get("start", "")
    ]
    differences = [
        f"the runs differ in more than time: {line}"
        for pair in pairwise(runs)
        for line in comparison.differences(*pair)
    ]
    disturbed = [f"{run.path}: {line}" for run in runs[-2:] for line in warnings(run)]
    if not comparison.one_processor(runs):
        if only:
            raise UsageError("--only: of runs on different processors there are ranks, and no verdicts")
        frame = shown = comparison.ranks(runs)
        names = [str(run.path) for run in runs]
        as_table = partial(ranking_table, title="Different processors: ranks on each", names=names)
        regressed = False
    else:
        frame = comparison.compare(*runs) if len(runs) == 2 else comparison.history(runs)
        newest = frame[frame["run"] == len(runs) - 1] if "run" in frame else frame
        regressed = bool(newest["verdict"].isin(["slower", "broken"]).any())
        table_of = history_table if "run" in frame else comparison_table
        as_table = partial(table_of, title=comparison.summary(newest))
        keys = [name for name in ("machine", *KEYS["measurements"]) if name in frame]
        shown = frame.merge(newest.loc[newest["verdict"].isin(only), keys], on=keys) if only else frame
    few = ["of three runs no change can be told: it takes two on either side; name four, or two alone"]
    few *= len(runs) == 3
    if "speedup_ci_low" in frame and (unclear := comparison.why_unclear(frame)):
        few.append(unclear)
    said = [*dict.fromkeys([*few, *disordered, *differences, *disturbed])]  # a run may stand there twice
    for line in said:
        log(f"warning: {line}")
    if html:
        write_comparison(html, runs, frame, as_table(shown), said)
        log(f"page: {html}")
    _finish(shown, format, regressed, as_table)


@app.command()
def audit(
    only: Annotated[
        str | None,
        typer.Option(
            help=f"{PARTS[0]}, measurement or one part of that: {', '.join(MEASUREMENT)}; all, if not named",
            **opt.one_of("audit", AUDITS),
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="few trials, a quarter of the planted bugs: five minutes; hours without")
    ] = False,
    format: opt.Format = "table",
    quiet: opt.Quiet = False,
) -> None:
    """Let the suite test itself: planted bugs, the same kernel twice, planted delays, known durations.

    ```console
    $ matmulbench audit --quick
    $ matmulbench audit --only verification --format json
    $ matmulbench audit --format csv > runs/monday/audit.csv
    ```
    """
    from dataclasses import asdict

    from matmulbench.audit import audit as audit_parts
    from matmulbench.report.output import show
    from matmulbench.report.tables import audit_table

    chosen = {None: PARTS, "measurement": MEASUREMENT}.get(only, (str(only),))
    checks: list[dict[str, Any]] = []
    try:
        with show_progress(quiet) as progress:
            checks.extend(asdict(check) for check in audit_parts(chosen, quick, progress))
    finally:  # what was finished is shown, if the next is interrupted
        if checks:
            show(checks, format, audit_table)
    raise typer.Exit(int(not all(check["passed"] for check in checks)))


@app.command()
def report(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR…", help="a run's folder; of several, one page above them all"),
    ],
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
    $ matmulbench report runs/laptop runs/server
    ```
    """
    from matmulbench.report import write_report
    from matmulbench.report.output import print_tables
    from matmulbench.report.splice import splice as splice_into
    from matmulbench.report.tables import front_end_table
    from matmulbench.results.folder import FleetResults, load_results
    from matmulbench.results.front_ends import read_front_end

    results = FleetResults.of(folders) if len(folders) > 1 else load_results(folders[0])
    if isinstance(results, FleetResults):
        if splice or beside:
            one = results.path / next(iter(results.machines))
            raise UsageError(f"--splice and --with go with one run, not several: name one, such as {one}")
        _print_run(results, write_report(results))
        return
    front_ends = [read_front_end(path) for path in beside or []]
    page = write_report(results, front_ends)
    if front_ends:
        print_tables(front_end_table(results, front_ends))
    write(f"report: {page}\n")
    if splice:
        splice_into(splice, results)


@app.command()
def fetch(
    what: Annotated[str, typer.Argument(metavar="mnist", help="the data set", **opt.one_of("data set", ["mnist"]))],
    quiet: opt.Quiet = False,
) -> None:
    """Download a data set with checksums into the cache.

    ```console
    $ matmulbench fetch mnist
    ```
    """
    from matmulbench.data import fetch_mnist

    with show_progress(quiet) as progress:
        folder = fetch_mnist(progress=progress)
    write(f"mnist: {folder}\n")
