"""The columns of the three result tables, and the words that may stand in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from matmulbench.errors import UsageError
from matmulbench.status import Status as Status
from matmulbench.workload import DTYPES, Workload

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 3


@dataclass
class VerificationRow:
    r"""Is a kernel right, for one dtype.

    Attributes
    ----------
    kernel
        as it was named.
    dtype
        ``float32`` or ``float64``.
    status
        a :class:`Status`; ``ok`` where the kernel is right.
    verdict
        ``pass``, ``normwise`` (only the norm bound holds, as for Strassen-type algorithms) or ``fail``.
    residual
        the largest error found, in units of k·u·(\|A\|\|B\|), u the unit roundoff.
    cases
        how many products were judged.
    finding
        what is wrong, where, and how to see it again; or a note on a right kernel.
    """

    kernel: str
    dtype: str
    status: str = Status.OK
    verdict: str | None = None
    residual: float | None = None
    cases: int | None = None
    finding: str | None = None


@dataclass
class MeasurementRow:
    """How long one product takes with one kernel.

    Attributes
    ----------
    workload
        the product in its text form, such as ``50x50000x784:TN``.
    m, k, n
        its sizes: a is (m, k), b is (k, n).
    layout
        ``NN``, ``TN``, ``NT`` or ``TT``: which operand is a transposed view.
    dtype
        ``float32`` or ``float64``.
    threads
        threads of every pool.
    kernel
        as it was named.
    status
        a :class:`Status`; figures exist only where it is ``ok``.
    extrapolated
        whether the times were foretold from smaller products.
    median_s, ci_low_s, ci_high_s
        seconds a call: the median with its 95 % interval.
    min_s
        seconds a call in the fastest block.
    samples
        how many rounds were timed.
    speedup, speedup_ci_low, speedup_ci_high
        the baseline's time over the kernel's, median over the rounds, with its 95 % interval.
    verdict
        against the baseline: ``faster``, ``slower``, ``same`` or ``unclear``; its own is ``baseline``.
    gflops
        the rate reached, in GFLOP/s (2·m·k·n FLOP a call).
    roof_gflops
        the rate that the machine was measured to allow at the product's intensity, in GFLOP/s.
    roof_percent
        100 · ``gflops`` / ``roof_gflops``.
    compile_s
        seconds that the first call takes beyond a second one; measured by ``matmulbench run`` alone.
    setup_s
        seconds that the kernel's ``setup(b)`` takes, where it has one; no part of the time of a call.
    reason
        why there is no figure, or why the verdict is unclear.
    """

    workload: str
    m: int
    k: int
    n: int
    layout: str
    dtype: str
    threads: int
    kernel: str
    status: str = Status.OK
    extrapolated: bool = False
    median_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None
    min_s: float | None = None
    samples: int | None = None
    speedup: float | None = None
    speedup_ci_low: float | None = None
    speedup_ci_high: float | None = None
    verdict: str | None = None
    gflops: float | None = None
    roof_gflops: float | None = None
    roof_percent: float | None = None
    compile_s: float | None = None
    setup_s: float | None = None
    reason: str | None = None


@dataclass
class TrainingRow:
    """What a kernel buys in one training task.

    Attributes
    ----------
    task
        its name, or the factory of a model of one's own.
    kernel
        as it was named; ``torch.nn`` is the same net with torch's own layers and autograd.
    threads
        threads of every pool.
    status
        a :class:`Status`; figures exist only where it is ``ok``.
    extrapolated
        whether the schedule was not trained to its end, or a step's time was foretold.
    steps
        how many steps were trained.
    step_s, step_ci_low_s, step_ci_high_s
        seconds a step: the median with its 95 % interval.
    matmul_share
        the part of a step that its products take, from 0 to 1.
    predicted_speedup
        the baseline's step over this one's, foretold from the products' times alone (Amdahl).
    measured_speedup, measured_ci_low, measured_ci_high
        the same, measured in paired steps, with its 95 % interval.
    final_loss
        the loss of the last step trained.
    loss_deviation
        the largest distance of a loss from the float64 reference's, as a share of the reference's largest loss.
    train_accuracy, test_accuracy
        shares of rows that the trained net gets right, from 0 to 1; none for a regression.
    reason
        why there is no figure, or what the figures leave out.
    """

    task: str
    kernel: str
    threads: int
    status: str = Status.OK
    extrapolated: bool = False
    steps: int | None = None
    step_s: float | None = None
    step_ci_low_s: float | None = None
    step_ci_high_s: float | None = None
    matmul_share: float | None = None
    predicted_speedup: float | None = None
    measured_speedup: float | None = None
    measured_ci_low: float | None = None
    measured_ci_high: float | None = None
    final_loss: float | None = None
    loss_deviation: float | None = None
    train_accuracy: float | None = None
    test_accuracy: float | None = None
    reason: str | None = None


Row = VerificationRow | MeasurementRow | TrainingRow

TABLES: dict[str, type[Row]] = {
    "verification": VerificationRow,
    "measurements": MeasurementRow,
    "training": TrainingRow,
}

# A cell is one row of one table; these columns name it.
KEYS: dict[str, tuple[str, ...]] = {
    "verification": ("kernel", "dtype"),
    "measurements": ("workload", "dtype", "threads", "kernel"),
    "training": ("task", "kernel", "threads"),
}


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


def is_row(table: str, row: Any) -> bool:
    """Say whether ``row`` has the columns of ``table``, each with a value of its type that can be shown and drawn."""
    kinds = get_type_hints(TABLES[table])
    if not isinstance(row, dict) or row.keys() != kinds.keys():
        return False
    if not all(_is_a(row[name], kind) for name, kind in kinds.items()):
        return False
    times = (row.get("median_s"), row.get("step_s"))
    if row.get("dtype", DTYPES[0]) not in DTYPES or any(time is not None and time <= 0 for time in times):
        return False
    try:
        return "workload" not in row or bool(Workload.parse(row["workload"]))
    except UsageError:
        return False


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return (isinstance(0, kind) or isinstance(0.0, kind)) and abs(value) < 2**63
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
