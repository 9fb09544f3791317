"""Verification tested: every wrong mutant must be refused for its own reason, no right one may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product

from matmulbench.audit import Check
from matmulbench.audit.mutants import Mutant, mutants
from matmulbench.dtypes import USUAL
from matmulbench.isolation import Host
from matmulbench.isolation.requests import JudgeRandomised
from matmulbench.ladder import LADDER
from matmulbench.results.schema import Status, VerificationRow
from matmulbench.verification import verify_kernel
from matmulbench.verification.effort import SILENCE_S


def audit_verification(
    effort: str = "default",
    chosen: Iterable[Mutant] | None = None,
    silence_limit: float = SILENCE_S,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Check]:
    """Verify all mutants, or the ``chosen``: one of the properties or statuses expected of each must be named."""
    with Host(threads=2, spin=False) as host:
        for mutant in mutants() if chosen is None else chosen:
            progress(mutant.name)
            row = verify_kernel(host, mutant.spec, mutant.dtype, effort, silence_limit)
            required, got = " or ".join(mutant.expected), row.finding or row.verdict or row.status
            yield Check(mutant.name, mutant.does, required, got, found(row) in mutant.expected)


def audit_right_kernels(
    count: int = 10_000, seconds: float = 30.0, progress: Callable[[str], None] = lambda text: None
) -> Iterator[Check]:
    """Judge the ladder and the right kernels among the mutants on ``count`` random cases per dtype: none may fail."""
    right = {rung.name: rung.name for rung in LADDER} | {mutant.name: mutant.spec for mutant in mutants("right")}
    with Host(threads=2, spin=False) as host:
        for (name, spec), dtype in product(right.items(), USUAL):
            progress(f"{name} {dtype}")
            outcome = host.call(JudgeRandomised(spec, dtype, count, seconds), silence_limit=SILENCE_S)
            report = outcome.value or {"verdict": outcome.status, "cases": 0, "finding": outcome.reason}
            passed = report["verdict"] in ("pass", "normwise") and report["cases"] == count
            got = f"{report['verdict']} after {report['cases']} cases: {report['finding']}"
            yield Check(name, f"{dtype}, {count} cases", "pass or normwise", got, passed)


def found(row: VerificationRow) -> str:
    """Return in one word what ``row`` says: the verdict of a right kernel, the property that failed, or the status."""
    if row.status == Status.OK:
        return "shape mismatch" if "shape mismatch" in (row.finding or "") else str(row.verdict)
    if row.status == Status.FAILED_VERIFICATION:
        return str(row.finding).partition(":")[0]
    return str(row.status)
