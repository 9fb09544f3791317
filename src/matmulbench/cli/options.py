"""What the verbs share: their options, with what helps a shell to complete them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from matmulbench.arguments import kernel_specs
from matmulbench.errors import unknown
from matmulbench.ladder.plugins import OPERANDS, kernels
from matmulbench.workload import DTYPES, PRESETS

FORMATS = ("table", "csv", "json")


def _known_format(text: str) -> str:
    if text not in FORMATS:  # said before anything is measured, not after
        raise unknown("format", text, FORMATS)
    return text


def _known_operands(text: str | None) -> str | None:
    if text not in (None, *OPERANDS):
        raise unknown("operands", text, OPERANDS)
    return text


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes a word to one of ``names``."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def _complete_kernel(incomplete: str) -> list[str]:
    return among(kernels())(incomplete)  # asks the installed packages, and so only when a shell does


def _complete_task(incomplete: str) -> list[str]:
    from matmulbench.training.tasks import TASKS  # its package takes longer to import than all the rest

    return among(TASKS)(incomplete)


def _known_kernels(named: Any) -> Any:
    if named:
        kernel_specs(named)  # what is mistyped is said before anything heavy is imported
    return named


_SPEC = "a name from `matmulbench list`, package.module:function or path/to/file.py:function"
Kernels = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KERNEL",
        help=f"{_SPEC}; all, if none is named",
        callback=_known_kernels,
        autocompletion=_complete_kernel,
    ),
]
KernelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        help=f"{_SPEC}; repeatable. Your own are run beside the whole ladder, unless you name some of it too",
        callback=_known_kernels,
        autocompletion=_complete_kernel,
    ),
]
Operands = Annotated[
    str | None,
    typer.Option(
        help="what your own kernels take: torch (tensors) or numpy (arrays)",
        callback=_known_operands,
        autocompletion=among(OPERANDS),
    ),
]
ImportTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="that the import of your kernel or model may take")
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
        help="such as 50x50000x784:TN; repeatable",
        autocompletion=among([str(one) for one in PRESETS["standard"]]),
    ),
]
Threads = Annotated[str, typer.Option(envvar="MATMULBENCH_THREADS", help="thread counts, such as 1 or 1,2")]
Baseline = Annotated[
    str,
    typer.Option(
        help="the kernel that speedups are quoted against", callback=_known_kernels, autocompletion=_complete_kernel
    ),
]
Dtype = Annotated[str, typer.Option(help="float32 or float64", autocompletion=among(DTYPES))]
DataDir = Annotated[
    str | None,
    typer.Option(envvar="MATMULBENCH_DATA", help="MNIST's folder or file: IDX, npz, CSV or pickle"),
]
Format = Annotated[
    str,
    typer.Option("--format", help="table, csv or json", callback=_known_format, autocompletion=among(FORMATS)),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no warnings")]
Seed = Annotated[int, typer.Option(help="of initial parameters and the order of batches")]
