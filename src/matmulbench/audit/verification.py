"""Verification tested: every wrong mutant must be refused for its own reason, no right one may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from matmulbench.audit import Check
from matmulbench.audit.mutants import Mutant, mutants
from matmulbench.isolation import Host
from matmulbench.results.schema import Status, VerificationRow
from matmulbench.verification.api import verify_kernel


def audit_verification(
    effort: str = "default", chosen: Iterable[Mutant] | None = None, progress: Callable[[str], None] = lambda text: None
) -> Iterator[Check]:
    """Verify all mutants, or the ``chosen``: one of the properties or statuses expected of each must be named."""
    with Host(threads=2, spin=False) as host:
        for mutant in mutants() if chosen is None else chosen:
            progress(mutant.name)
            row = verify_kernel(host, mutant.spec, mutant.dtype, effort)
            required, got = " or ".join(mutant.expected), row.finding or row.verdict or row.status
            yield Check(mutant.name, mutant.does, required, got, _found(row) in mutant.expected)


def _found(row: VerificationRow) -> str:
    """Return in one word what ``row`` says: the verdict of a right kernel, the property that failed, or the status."""
    if row.status == Status.OK:
        return "shape mismatch" if "shape mismatch" in (row.finding or "") else str(row.verdict)
    if row.status == Status.FAILED_VERIFICATION:
        return str(row.finding).partition(":")[0]
    return str(row.status)
