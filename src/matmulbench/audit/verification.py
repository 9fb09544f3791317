"""The judge judged: every wrong kernel of the zoo must be refused for its own reason, no right one may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from matmulbench.isolation import Host
from matmulbench.results.schema import Status, VerificationRow
from matmulbench.verification import verify_kernel

if TYPE_CHECKING:
    from matmulbench.audit.zoo import Animal


def audit_verification(
    effort: str = "default",
    chosen: Iterable[Animal] | None = None,
    silence_limit: float | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Verify the zoo, or the ``chosen`` of it, and return a row for each of its kernels.

    Returns
    -------
    list of dict
        kernel, planted (what is wrong with it), expected (properties or statuses, one of which must be named), got, passed.
    """
    from matmulbench.audit.zoo import animals

    rows = []
    with Host(threads=2) as host:
        for animal in animals() if chosen is None else chosen:
            progress(animal.name)
            row = verify_kernel(host, animal.spec, animal.dtype, effort, silence_limit)
            rows.append(
                {
                    "kernel": animal.name,
                    "planted": animal.planted,
                    "expected": " or ".join(animal.expected),
                    "got": row.finding or row.verdict,
                    "passed": found(row) in animal.expected,
                }
            )
    return rows


def found(row: VerificationRow) -> str:
    """Return in one word what ``row`` says: the verdict of a right kernel, the property that failed, or the status."""
    if row.status == Status.OK:
        return str(row.verdict)
    if row.status == Status.FAILED_VERIFICATION:
        return str(row.finding).partition(":")[0]
    return str(row.status)
