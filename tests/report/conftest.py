"""A run that never ran: every kernel and status, extrapolated rows, two tasks, realistic magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matmulbench.ladder import LADDER
from matmulbench.results.folder import Results, RunFolder, load_results
from matmulbench.results.schema import MeasurementRow, Status, TrainingRow, VerificationRow
from matmulbench.workload import PRESETS, Workload

PEAK, BANDWIDTH = 112.0, 20.0
# Seconds per call and FLOP/s of each kernel, so that the first workload takes what it takes in life.
COSTS = {
    "triple-loop": (1e-5, 0.26e6),
    "row-slice": (1e-5, 0.23e9),
    "broadcasting": (1e-5, 1.6e9),
    "einsum": (18e-6, 90e9),
    "numpy-einsum": (3e-6, 4e9),
    "numba": (3e-6, 2.3e9),
    "numpy": (2.4e-6, 98e9),
    "torch": (6.5e-6, 95e9),
}
SHARE = {"digits": 0.42, "breast-cancer": 0.12}


def make_run(
    path: Path,
    workloads: list[Workload],
    tasks: tuple[str, ...] = ("breast-cancer", "digits"),
    threads: tuple[int, ...] = (1,),
    kernels: tuple[str, ...] = tuple(rung.name for rung in LADDER),
    failures: bool = False,
    roof: bool = True,
) -> Results:
    options = {"preset": "standard", "baseline": "torch", "threads": list(threads), "kernels": list(kernels)}
    with RunFolder(path, options) as folder:
        for kernel in kernels:
            for dtype in ("float32", "float64"):
                residual = 0.01 if kernel == "torch" else 0.3
                folder.add("verification", VerificationRow(kernel, dtype, "ok", "pass", residual, 24))
        for count in threads:
            if roof:
                folder._append(b"")  # entries of other tables may stand anywhere
                write_roof(folder, count)
            for workload in workloads:
                for kernel in kernels:
                    row = measurement(workload, kernel, count)
                    folder.add("measurements", row, samples=[row.median_s * (1 + 0.01 * math.sin(i)) for i in range(9)])
        for task in tasks:
            for kernel in kernels:
                row, extra = training(task, kernel, threads[0])
                folder.add("training", row, **extra)
        if failures:
            add_failures(folder, workloads)
    return load_results(path)


def write_roof(folder: RunFolder, threads: int) -> None:
    import json

    row = {
        "dtype": "float32", "threads": threads, "fma_gflops": PEAK * threads,
        "levels": [
            {"name": name, "bytes": size, "read_gbs": gbs, "gbs": 1.2 * gbs}
            for name, size, gbs in (("L1", 2**15, 400.0), ("L2", 2**20, 150.0), ("DRAM", None, BANDWIDTH))
        ],
        "call_floor_s": 4e-8, "best_matmul_gflops": 101.0 * threads,
    }  # fmt: skip
    folder._append(json.dumps({"table": "roof", "row": row, "samples": []}).encode() + b"\n")


def cost(kernel: str, flop: float, threads: int = 1) -> float:
    call, speed = COSTS.get(kernel, (5e-6, 1e9))
    return call + flop / (speed * (threads if speed > 50e9 else 1))


def measurement(workload: Workload, kernel: str, threads: int = 1) -> MeasurementRow:
    time = cost(kernel, workload.flop, threads)
    speedup = cost("torch", workload.flop, threads) / time
    extrapolated = time > 2
    spread = 0.08 if extrapolated else 0.012
    roof = min(PEAK * threads, BANDWIDTH * workload.intensity)
    verdict = "same" if abs(math.log(speedup)) < 0.02 else "faster" if speedup > 1 else "slower"
    gflops = workload.flop / time / 1e9
    return MeasurementRow(
        str(workload), workload.m, workload.k, workload.n, workload.layout, workload.dtype, threads, kernel,
        extrapolated=extrapolated, median_s=time, ci_low_s=time * (1 - spread),
        ci_high_s=time * (1 + spread * 1.4), min_s=time * 0.98, samples=40,
        speedup=speedup, speedup_ci_low=speedup * (1 - spread),
        speedup_ci_high=speedup * (1 + spread), verdict=None if kernel == "torch" else verdict, gflops=gflops,
        roof_gflops=roof, roof_percent=100 * gflops / roof, roof_limit="compute" if roof == PEAK * threads else "DRAM",
    )  # fmt: skip


def training(task: str, kernel: str, threads: int) -> tuple[TrainingRow, dict[str, Any]]:
    flop = {"digits": 64 * 784 * 50 * 4, "breast-cancer": 455 * 30 * 14 * 4}[task]
    matmul, base = cost(kernel, flop), cost("torch", flop)
    rest = base * (1 / SHARE[task] - 1)
    speedup = (base + rest) / (matmul + rest)
    step = matmul + rest
    steps = list(range(0, 400, 4))
    losses = [2.3 * math.exp(-i / 120) + 0.1 + 0.01 * math.sin(i) for i in steps]
    parts = [
        ("forward", 1, 0.4),
        ("forward", 2, 0.1),
        ("weight", 1, 0.3),
        ("weight", 2, 0.1),
        ("input", 2, 0.1),
    ]
    row = TrainingRow(
        task, kernel, threads, extrapolated=step > 1, steps=400, step_s=step, step_ci_low_s=step * 0.98,
        step_ci_high_s=step * 1.03, matmul_share=matmul / step, predicted_speedup=speedup * 1.04,
        measured_speedup=speedup, measured_ci_low=speedup * 0.97, measured_ci_high=speedup * 1.02,
        final_loss=0.1824, loss_deviation=1.2e-7, train_accuracy=0.987, test_accuracy=0.9611,
    )  # fmt: skip
    products = [{"layer": layer, "which": which, "seconds": matmul * share} for which, layer, share in parts]
    return row, {
        "loss_steps": steps,
        "losses": losses,
        "reference": [loss * (1 + 1e-7 * math.cos(loss)) for loss in losses],
        "envelope": [1e-5 * loss for loss in losses],
        "products": products,
        "rest_s": rest,
        "ceiling": 1 / (1 - SHARE[task]),
    }


def add_failures(folder: RunFolder, workloads: list[Workload]) -> None:
    wrong = "work/mine.py:matmul"
    finding = "5x784x10: element (0, 0) is 3.1, expected -12.4; the sum over k stops after 5 of 784 terms"
    finding += ". Repeat: `matmulbench verify mine.py:matmul --case 2x2x1:TN`"
    folder.add("verification", VerificationRow(wrong, "float32", "failed-verification", "fail", 8.1e5, 3, finding))
    for i, status in enumerate(s for s in Status if s is not Status.OK):
        workload = workloads[min(i, len(workloads) - 1)]
        base = (str(workload), workload.m, workload.k, workload.n, workload.layout, workload.dtype, 1)
        reason = {
            "crashed": "SIGSEGV (memory it does not own)",
            "unavailable": "No module named 'numba'",
        }.get(status)
        folder.add("measurements", MeasurementRow(*base, f"work/{status}.py:matmul", status=status, reason=reason))
        if i < 2:
            folder.add(
                "measurements",
                MeasurementRow(*base, wrong, status=Status.FAILED_VERIFICATION, reason="see verification"),
            )
    folder.add(
        "training", TrainingRow("digits", wrong, 1, status=Status.FAILED_VERIFICATION, reason="see verification")
    )


@pytest.fixture(name="make_run", scope="session")
def make_run_fixture() -> Callable[..., Results]:
    """Make a run of one's own."""
    return make_run


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The whole standard run, with failures."""
    return make_run(tmp_path_factory.mktemp("standard") / "run", PRESETS["standard"], failures=True)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three workloads, one task and every kind of failure: enough for each chart to be drawn once."""
    workloads = [Workload(5, 784, 10), Workload(64, 64, 64), Workload(256, 256, 256)]
    return make_run(tmp_path_factory.mktemp("small") / "run", workloads, tasks=("digits",), failures=True)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The quick run: four workloads, one task, nothing amiss."""
    return make_run(tmp_path_factory.mktemp("quick") / "run", PRESETS["quick"], tasks=("digits",))
