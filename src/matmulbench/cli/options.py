"""What the verbs share: their options, with what checks a value and helps a shell to complete it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from matmulbench.arguments import kernel_specs
from matmulbench.dtypes import DTYPES, USUAL
from matmulbench.errors import UsageError, printable, unknown
from matmulbench.ladder.devices import DEVICES
from matmulbench.ladder.plugins import OPERANDS, find_function, kernels
from matmulbench.training.tasks import TASKS
from matmulbench.workload import PRESETS


def _among(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes a word to one of ``names``."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def one_of(kind: str, names: Iterable[str]) -> dict[str, Any]:
    """Return the settings of an option that is one of ``names``, or several; checked before anything is done."""

    def check(given: Any) -> Any:
        for value in given if isinstance(given, list) else [given]:
            if value not in (None, *names):
                several = "," in value and isinstance(given, list)
                raise unknown(kind, value, names, "Repeat the option for several." if several else "")
        return given

    return {"callback": check, "autocompletion": _among(lambda: names)}


def number(kind: type[int] | type[float]) -> dict[str, Any]:
    """Return the settings of an option that is a number; typer's own message would not say what was given."""

    def check(option: typer.CallbackParam, given: Any) -> Any:
        try:
            return given if given is None else kind(given)
        except ValueError:
            name = str(option.name).replace("_", "-")
            whole = "whole " if kind is int else ""
            raise UsageError(f"{name} {printable(given, 60)!r}: expected a {whole}number") from None

    return {"parser": str, "metavar": "NUMBER", "callback": check}


def _known_kernels(given: Any) -> Any:
    if given:
        kernel_specs(given)  # what is mistyped is said before anything heavy is imported
    return given


def _known_model(given: str | None) -> str | None:
    if given is not None:
        find_function(given, kind="model")
    return given


_A_KERNEL: dict[str, Any] = {"callback": _known_kernels, "autocompletion": _among(kernels)}
_SPEC = "a name from `matmulbench list`, package.module:function or path/to/file.py:function"
_MODEL = "your model's factory, path/to/file.py:factory or package.module:factory"
_BESIDE = "Your own are run beside the whole ladder, unless you name some of it too"
_PRESETS = (
    "quick (30 s), standard (3 min) or full (20 min), and once half a minute to verify the ladder; standard, or quick "
    "with --kernel"
)
_NAMES = ", ".join(DTYPES)
_DTYPE = one_of("dtype", DTYPES)

Kernels = Annotated[
    list[str] | None, typer.Argument(metavar="KERNEL", help=f"{_SPEC}; all, if none is named", **_A_KERNEL)
]
KernelOptions = Annotated[
    list[str] | None, typer.Option("--kernel", help=f"{_SPEC}; repeatable. {_BESIDE}", **_A_KERNEL)
]
Baseline = Annotated[
    str | None,
    typer.Option(
        help="the kernel that speedups are quoted against; torch, on a GPU cuda-torch, if not named", **_A_KERNEL
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="where kernels work: cpu, or cuda (its own ladder, and your kernels on tensors there)",
        **one_of("device", DEVICES),
    ),
]
Operands = Annotated[
    str | None,
    typer.Option(help="what your own kernels take: torch (tensors) or numpy (arrays)", **one_of("operands", OPERANDS)),
]
ImportTimeout = Annotated[
    float, typer.Option(help="seconds that the import of your kernel or model may take", **number(float))
]
Preset = Annotated[str | None, typer.Option(help=_PRESETS, **one_of("preset", PRESETS))]
Task = Annotated[
    str | None, typer.Option(help=f"{', '.join(TASKS)}; breast-cancer, if not named", **one_of("task", TASKS))
]
_IN_PLACE = "Train it in place of a task; `run` times the very products of its step, too"
Model = Annotated[str | None, typer.Option(help=f"{_MODEL}. {_IN_PLACE}", callback=_known_model)]
Factory = Annotated[str, typer.Argument(metavar="FACTORY", help=_MODEL, callback=_known_model)]
Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="such as 5x784x10, transposed views 50x50000x784:TN (:NT, :TT) or a batch 32*128x64x128; repeatable",
        autocompletion=_among(lambda: map(str, PRESETS["standard"])),
    ),
]
Threads = Annotated[str, typer.Option(envvar="MATMULBENCH_THREADS", help="thread counts, such as 1 or 1,2")]
Workers = Annotated[
    int,
    typer.Option(
        help="processes that share each batch out and average their gradients, with --threads each: data-parallel",
        **number(int),
    ),
]
CompareCompile = Annotated[
    bool, typer.Option("--compare-compile", help="train under torch.compile, too; to compile may take minutes")
]
Dtype = Annotated[str | None, typer.Option(help=_NAMES, **_DTYPE)]
Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", help=f"{_NAMES}; repeatable; {' and '.join(USUAL)}, if not named", **_DTYPE),
]
TimedDtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", help=f"{_NAMES}; repeatable, to see what precision buys here", **_DTYPE),
]
DataDir = Annotated[
    str | None, typer.Option(envvar="MATMULBENCH_DATA", help="MNIST's folder or file: IDX, npz, CSV or pickle")
]
Format = Annotated[str, typer.Option(help="table, csv or json", **one_of("format", ("table", "csv", "json")))]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no warnings")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="of a running Dask cluster, such as tcp://HOST:8786: every kind of machine in it does a `run`, and each "
        "of the workers of `train` has a host of it. Whoever reaches a scheduler can run anything on its workers: keep "
        "it on a trusted network, or behind TLS (tls://). What the workers of a training send each other (gloo) is not "
        "encrypted even then",
    ),
]
Each = Annotated[
    str,
    typer.Option(
        help="with --scheduler: machine (hosts of one kind share the run) or host (each does all of it)",
        **one_of("each", ("machine", "host")),
    ),
]
Seed = Annotated[int, typer.Option(help="of initial parameters and the order of batches", **number(int))]
