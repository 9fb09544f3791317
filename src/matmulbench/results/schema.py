"""The columns of the three result tables, and the words that may stand in them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

SCHEMA_VERSION = 1


class Status(StrEnum):
    """What became of a cell. A figure exists only where the status is ``ok``."""

    OK = "ok"
    FAILED_VERIFICATION = "failed-verification"
    ERROR = "error"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    UNAVAILABLE = "unavailable"


@dataclass
class VerificationRow:
    r"""Is a kernel right, for one dtype. ``residual`` is in units of k·u·(\|A\|\|B\|)."""

    kernel: str
    dtype: str
    status: str = Status.OK
    verdict: str | None = None
    residual: float | None = None
    cases: int | None = None
    finding: str | None = None


@dataclass
class MeasurementRow:
    """How long one product takes with one kernel. Times in seconds, rates in GFLOP/s."""

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
    reason: str | None = None


@dataclass
class TrainingRow:
    """What a kernel buys in one training task. Times in seconds; ``matmul_share`` from 0 to 1."""

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
