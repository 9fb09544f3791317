"""The columns of the three result tables, and the form of the files that a run writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from matmulbench.dtypes import DTYPES
from matmulbench.errors import UsageError, printable
from matmulbench.status import Status as Status
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 6
READABLE = (5, SCHEMA_VERSION)  # before 6, all was on the CPU


def _is_workload(text: str) -> bool:
    try:
        return bool(Workload.parse(text))
    except UsageError:
        return False


def _is_rectangular(rows: list[list[float]]) -> bool:
    return len({len(row) for row in rows}) <= 1


def _are_products(products: list[Any]) -> bool:
    texts = {"which": str, "workload": str | None, "dtype": str | None}
    fields_of_each = {**texts, "layer": Any, "seconds": Annotated[float, lambda value: 0 <= value < 1e30]}
    return all(conforms(each, fields_of_each) for each in products) and (
        not products or sum(each["seconds"] for each in products) > 0
    )


def _has_its_figures(row: dict[str, Any]) -> bool:
    median, low, high = (row[name] for name in ("median_s", "ci_low_s", "ci_high_s"))
    if row["status"] != Status.OK:
        return True
    return median is not None and 0 <= (low or 0) <= median <= (math.inf if high is None else high)


# What a value read from a file must fulfil beyond its type; see `conforms`.
Positive = Annotated[float, lambda value: 1e-30 < value < 1e30]
Ratio = Annotated[float, lambda value: math.isnan(value) or 1e-30 < value < 1e30]
Share = Annotated[float, lambda value: not 0 < abs(value) < 1e-30]  # noise may bring one below 0
Count = Annotated[int, lambda value: value >= 0]
DTypeName = Annotated[str, lambda name: name in DTYPES]
StatusName = Annotated[str, lambda name: name in frozenset(Status)]
WorkloadText = Annotated[str, _is_workload]


@dataclass
class VerificationRow:
    """Whether a kernel is right, for one dtype."""

    kernel: str  #: as it was named
    dtype: DTypeName  #: of :data:`~matmulbench.dtypes.DTYPES`
    status: StatusName = Status.OK  #: a :class:`Status`; ``ok`` where the kernel is right
    #: ``pass``, ``normwise`` (only the norm bound holds, as for Strassen-type algorithms) or ``fail``
    verdict: str | None = None
    residual: float | None = None  #: the largest error found, in units of k·u·(\|A\|\|B\|), u the unit roundoff
    cases: Count | None = None  #: how many products were judged
    finding: str | None = None  #: what is wrong, where, and how to see it again; or a note on a right kernel


@dataclass
class MeasurementRow:
    """How long one product takes with one kernel."""

    workload: WorkloadText  #: the product in its text form, such as ``50x50000x784:TN`` or ``32*128x64x128``
    m: Count  #: rows of a and of the product
    k: Count  #: columns of a, rows of b
    n: Count  #: columns of b and of the product
    layout: str  #: ``NN``, ``TN``, ``NT`` or ``TT``: which operand is a transposed view
    dtype: DTypeName  #: of :data:`~matmulbench.dtypes.DTYPES`
    threads: Count  #: threads of every pool
    kernel: str  #: as it was named
    batch: Count = 1  #: how many such products a call does
    device: str = "cpu"  #: where: ``cpu`` or ``cuda``
    status: StatusName = Status.OK  #: a :class:`Status`; figures exist only where it is ``ok``
    extrapolated: bool = False  #: whether the times were predicted from smaller products
    median_s: Positive | None = None  #: seconds a call, median
    ci_low_s: float | None = None  #: lower end of where another run's median falls, 95 times of 100
    ci_high_s: float | None = None  #: upper end of that
    min_s: float | None = None  #: seconds a call in the fastest block
    samples: Count | None = None  #: how many rounds were timed
    speedup: Ratio | None = None  #: the baseline's time over the kernel's, median over the rounds
    speedup_ci_low: float | None = None  #: lower end of its 95 % interval
    speedup_ci_high: float | None = None  #: upper end of its 95 % interval
    #: against the baseline: ``faster``, ``slower``, ``same`` or ``unclear``; its own is ``baseline``
    verdict: str | None = None
    gflops: float | None = None  #: the rate reached, in GFLOP/s (2·batch·m·k·n FLOP a call)
    roof_gflops: float | None = None  #: what the machine was measured to allow at most, in GFLOP/s
    roof_percent: float | None = None  #: 100 · ``gflops`` / ``roof_gflops``
    #: what bounds the product: ``compute``, the bandwidth of ``L1``, ``L2``, ``L3`` or ``DRAM``, or ``call``, the
    #: least that any call takes
    roof_limit: str | None = None
    #: seconds that the first call takes beyond a second one; measured by ``matmulbench run`` alone
    compile_s: float | None = None
    #: seconds that the kernel's ``setup(b)`` takes, where it has one; no part of the time of a call
    setup_s: float | None = None
    reason: str | None = None  #: why there is no figure, or why the verdict is unclear


@dataclass
class TrainingRow:
    """What a kernel buys in one training task."""

    task: str  #: its name, or the factory of a custom model
    kernel: str  #: as it was named; ``torch.nn`` is the same net with torch's own layers and autograd
    threads: Count  #: threads of every pool of a process
    workers: Count = 1  #: processes that share each batch out and average their gradients
    device: str = "cpu"  #: where: ``cpu`` or ``cuda``
    status: StatusName = Status.OK  #: a :class:`Status`; figures exist only where it is ``ok``
    extrapolated: bool = False  #: whether the schedule was not trained to its end, or a step's time was predicted
    steps: Count | None = None  #: how many steps were trained
    step_s: Positive | None = None  #: seconds a step, median
    step_ci_low_s: float | None = None  #: lower end of where another run's median falls, 95 times of 100
    step_ci_high_s: float | None = None  #: upper end of that
    matmul_share: Share | None = None  #: the part of a step that its products take, from 0 to 1
    #: the part of a step in which several workers average their gradients and wait for each other, from 0 to 1
    communication_share: Share | None = None
    #: the baseline's step over this one's, predicted from the products' times alone (Amdahl)
    predicted_speedup: Ratio | None = None
    measured_speedup: Ratio | None = None  #: the same, measured in paired steps
    measured_ci_low: float | None = None  #: lower end of its 95 % interval
    measured_ci_high: float | None = None  #: upper end of its 95 % interval
    final_loss: float | None = None  #: the loss of the last step trained
    #: the largest distance of a loss from the float64 reference's, as a share of the reference's largest loss
    loss_deviation: float | None = None
    train_accuracy: float | None = None  #: share of training rows classified right, from 0 to 1; none for a regression
    test_accuracy: float | None = None  #: share of test rows classified right, from 0 to 1; none for a regression
    compile_s: float | None = None  #: seconds that the first step takes beyond a second one; of ``torch.compile`` alone
    reason: str | None = None  #: why there is no figure, or what the figures leave out


Row = VerificationRow | MeasurementRow | TrainingRow

TABLES: dict[str, type[Row]] = {
    "verification": VerificationRow,
    "measurements": MeasurementRow,
    "training": TrainingRow,
}

# A cell is one row of one table, or a roof; these columns name it.
KEYS: dict[str, tuple[str, ...]] = {
    "verification": ("kernel", "dtype"),
    "measurements": ("workload", "dtype", "threads", "kernel"),
    "training": ("task", "kernel", "threads"),
    "roof": ("dtype", "threads"),
}
FIXED_WORK = ("arithmetic", "calls")  # what is timed in each round, beside the kernels
EVERY = "all products"  # in place of a workload, where those of a kernel are taken together


@dataclass(frozen=True)
class Level:
    """A level of the memory as the threads of a measurement have it together."""

    name: str  #: ``L1``, ``L2``, ``L3`` or ``DRAM``
    bytes: Count | None  #: what it holds; None for memory itself
    read_gbs: Positive  #: GB/s of reading alone
    gbs: Positive  #: GB/s of the fastest mixture of reading and writing


_ROOF = {
    "dtype": DTypeName,
    "threads": Count,
    "fma_gflops": Positive,
    "levels": list[Level],
}
_LOSSES = list[float | None] | None

# What readers take from a line of the journal, by its ``table``; the line may have more.
ENTRIES: dict[str, dict[str, Any]] = {
    "verification": {"row": VerificationRow},
    "measurements": {
        "row": Annotated[MeasurementRow, _has_its_figures],
        "samples": list[Positive],
        "calibration_samples": Annotated[list[list[Positive]], _is_rectangular] | None,
        "timed_on": str | None,
        "warnings": list[str] | None,
    },
    "training": {
        "row": TrainingRow,
        "losses": _LOSSES,
        "loss_steps": list[Count] | None,
        "reference": _LOSSES,
        "envelope": _LOSSES,
        "products": Annotated[list[Any], _are_products] | None,
    },
    "roof": {"row": _ROOF},
}

# What ``run.json`` has.
RUN_FIELDS: dict[str, Any] = {
    "options": {"baseline": str | None},
    "machine": {"cpu": str, "cores": int},
    "versions": {"torch": str, "numpy": str},
    "notes": list[str] | None,
    "start": str,
    "end": str | None,
}


def conforms(value: Any, kind: Any) -> bool:
    """Tell whether ``value``, read from a file, is of type ``kind``, as :func:`misfit` understands it."""
    return misfit(value, kind) is None


def misfit(value: Any, kind: Any, name: str = "") -> str | None:
    """Say what of ``value``, read from a file under ``name``, is not of type ``kind``; None if all of it is.

    ``kind`` is a class, a union, ``list[...]``, a dict of fields with their types (a field that may be absent may be
    None), or a dataclass, which stands for a dict of exactly its fields. ``Annotated`` adds conditions.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        kind = get_type_hints(kind, include_extras=True)
        if isinstance(value, dict) and value.keys() != kind.keys():
            return f"{name} has not exactly the fields {', '.join(kind)}"
    found: list[str | None] = []
    if isinstance(kind, dict):
        fits, expected = isinstance(value, dict), f"an object with {', '.join(kind)}"
        found = [misfit(value.get(field), each, f"{name}.{field}") for field, each in kind.items()] if fits else []
    elif origin is list:
        fits, expected = isinstance(value, list), "a list"
        found = [misfit(each, arguments[0], name) for each in value] if fits else []
    elif origin in (Union, UnionType):
        wrong = [misfit(value, each, name) for each in arguments]
        return wrong[0] if all(wrong) else None
    elif origin is Annotated:
        found = [misfit(value, arguments[0], name)]
        fits, expected = any(found) or all(condition(value) for condition in kind.__metadata__), "another value"
    elif kind in (int, float) and isinstance(value, int):
        fits, expected = not isinstance(value, bool) and abs(value) < 2**63, kind.__name__
    else:
        fits, expected = kind is Any or isinstance(value, kind), kind.__name__
    if fits:
        return next(filter(None, found), None)
    return f"{name.removeprefix('.')} is {printable(repr(value), 60)}, expected {expected}"


def columns(table: str) -> list[str]:
    """Return the columns of ``table`` in order."""
    return [field.name for field in fields(TABLES[table])]


def frame(table: str, rows: Iterable[Row | dict[str, Any]]) -> pd.DataFrame:
    """Return ``rows`` as a DataFrame with the columns of ``table``; a column has one type, whatever is missing.

    A missing count is ``<NA>``, every other missing figure NaN.
    """
    import pandas as pd

    found = [row if isinstance(row, dict) else asdict(row) for row in rows]
    kinds = {int | None: "Int64", float | None: "float64", int: "int64", bool: "bool"}
    types = {name: kinds[kind] for name, kind in get_type_hints(TABLES[table]).items() if kind in kinds}
    return pd.DataFrame(found, columns=columns(table)).astype(types)
