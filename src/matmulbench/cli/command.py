"""The command as a process: its errors, signals and exit codes. The verbs are in :mod:`matmulbench.cli.verbs`."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from matmulbench import streams
from matmulbench.cli.config import OPTIONS, TABLE, load_config
from matmulbench.errors import UsageError, printable
from matmulbench.streams import OutputError, log, write

FAILED, USAGE_ERROR = 1, 2


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end, as Ctrl-C does; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # what is being written is to be finished
    raise Stopped(number)


_ABOUT_A_FOLDER = [("data-dir '", "': "), ("", ": "), ("", os.sep)]  # around its name an error begins so


class _Verbs(TyperGroup):
    """Prints one line where the input is wrong or the user interrupts: a traceback helps with neither."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            data_dir = (ctx.default_map or {}).get(ctx.invoked_subcommand, {}).get("data_dir")
            about_it = str(error).startswith(tuple(f"{start}{data_dir}{end}" for start, end in _ABOUT_A_FOLDER))
            where = f"{TABLE} of pyproject.toml: data_dir: " if data_dir and about_it else ""
            log("\n".join(printable(line, 4096) for line in f"matmulbench: {where}{error}".splitlines()))
            code = USAGE_ERROR
        except OSError as error:  # a disk that is full, a folder that is not ours
            where = f"{error.filename}: " if error.filename else ""
            log(printable(f"matmulbench: {where}{error.strerror or error}", 4096))
            code = FAILED if isinstance(error, OutputError) else USAGE_ERROR
        except KeyboardInterrupt as interrupt:
            after = "\n" if sys.stderr.isatty() else ""  # the terminal has written ^C
            number = getattr(interrupt, "number", signal.SIGINT)
            said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
            log(f"{after}matmulbench: {said}{interrupt}")
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
    verbs: Any = context.command
    verb = context.invoked_subcommand
    if verb and OPTIONS & {parameter.name for parameter in verbs.commands[verb].params}:
        # What stands here is weaker than the environment and stronger than a default.
        context.default_map = {verb: load_config()}


def main() -> None:
    """Run the command."""
    streams.prepare()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP; nohup ignores it
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    log_once = cache(log)
    warnings.showwarning = lambda message, *_, **__: log_once(f"warning: {message}")
    try:
        try:
            app()
        finally:
            write("")  # help and version are written by typer
    except OSError as error:
        log(f"matmulbench: {error}")
        raise SystemExit(FAILED) from None
