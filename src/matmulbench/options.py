"""What the verbs share: their options, how a shell completes them and how their values are checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from matmulbench.errors import UsageError, printable, unknown
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import OPERANDS, find_kernel, kernels, with_operands
from matmulbench.workload import DTYPES, PRESETS, Workload

FORMATS = ("table", "csv", "json")
_WEEK_S = 604800


def _known_format(text: str) -> str:
    if text not in FORMATS:  # said before anything is measured, not after
        raise unknown("format", text, FORMATS)
    return text


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes a word to one of ``names``."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _complete_kernel(incomplete: str) -> list[str]:
    return among(kernels())(incomplete)  # asks the installed packages, and so only when a shell does


def _complete_task(incomplete: str) -> list[str]:
    from matmulbench.training.tasks import TASKS  # its package takes longer to import than all the rest

    return among(TASKS)(incomplete)


_SPEC = "a name from `matmulbench list`, package.module:function or path/to/file.py:function"
Kernels = Annotated[
    list[str] | None,
    typer.Argument(metavar="KERNEL", help=f"{_SPEC}; all, if none is named", autocompletion=_complete_kernel),
]
KernelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        help=f"{_SPEC}; repeatable. Kernels of your own stand beside the whole ladder, unless you name some of it too",
        autocompletion=_complete_kernel,
    ),
]
Operands = Annotated[
    str | None,
    typer.Option(
        help="what kernels of your own take: torch (tensors) or numpy (arrays)",
        autocompletion=among(OPERANDS),
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="quick (30 s), standard (3 min) or full (20 min); standard, or quick with --kernel",
        autocompletion=among(PRESETS),
    ),
]
Task = Annotated[
    str, typer.Option(help="breast-cancer, digits, mnist or mnist-regression", autocompletion=_complete_task)
]
Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="such as 5x784x10, or with transposed views 50x50000x784:TN, :NT or :TT; repeatable",
        autocompletion=among([str(one) for one in PRESETS["standard"]]),
    ),
]
Threads = Annotated[str, typer.Option(envvar="MATMULBENCH_THREADS", help="thread counts, such as 1 or 1,2")]
Baseline = Annotated[
    str, typer.Option(help="the kernel that speedups are quoted against", autocompletion=_complete_kernel)
]
Dtype = Annotated[str, typer.Option(help="float32 or float64", autocompletion=among(DTYPES))]
DataDir = Annotated[Path | None, typer.Option(envvar="MATMULBENCH_DATA", help="folder with the MNIST files")]
Format = Annotated[
    str,
    typer.Option("--format", help="table, csv or json", callback=_known_format, autocompletion=among(FORMATS)),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no warnings")]
Seed = Annotated[
    int, typer.Option(help="of initial parameters and the order of batches", callback=lambda seed: known_seed(seed))
]


def beside_ladder(specs: list[str]) -> list[str]:
    """Return ``specs`` with the ladder before them, unless rungs of it are among them."""
    rungs = [rung.name for rung in LADDER]
    return specs if any(spec in rungs for spec in specs) else [*rungs, *specs]


def known_kernels(specs: list[str] | None, operands: str | None = None) -> list[str]:
    """Return ``specs``, or all kernels, each known to exist, once; those of one's own with what they take."""
    chosen = list(dict.fromkeys(with_operands(spec, operands) for spec in specs or kernels()))
    for spec in chosen:
        find_kernel(spec)
    return chosen


def known_dtype(text: str) -> str:
    """Return ``text``, known to be a dtype."""
    if text not in DTYPES:
        raise unknown("dtype", text, DTYPES)
    return text


def known_seed(seed: int) -> int:
    """Return a seed that every library takes."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed}: expected a number from 0 to {2**32 - 1}")
    return seed


def known_workload(text: str, dtype: str = "float32") -> Workload:
    """Read a workload whose operands and result fit into this machine's memory."""
    import psutil

    workload, memory = Workload.parse(text, dtype), psutil.virtual_memory().total
    if workload.bytes > memory:
        raise UsageError(f"workload {text!r} takes {workload.bytes:.3g} bytes, this machine has {memory:.3g}")
    return workload


def seconds(budget: float) -> float:
    """Return a budget that is above 0, and of a week at most."""
    if not 0 < budget <= _WEEK_S:
        raise UsageError(f"budget {budget:g}: expected seconds above 0, at most {_WEEK_S}")
    return budget


def thread_counts(text: str) -> tuple[int, ...]:
    """Read thread counts such as ``1,2``, none of them above the cores of this machine."""
    most = len(os.sched_getaffinity(0))
    known = {str(count): count for count in range(1, most + 1)}
    counts = text.split(",")
    if not known.keys() >= set(counts):
        raise UsageError(
            f"threads {printable(text, 60)!r}: expected counts from 1 to {most}, the cores of this machine, such as 1,2"
        )
    return tuple(dict.fromkeys(known[count] for count in counts))
