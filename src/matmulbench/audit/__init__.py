"""The suite tests itself: what is planted must be found, and what is equal must not differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

MEASUREMENT = ("same-twice", "restarts", "clocks", "delays", "durations", "extrapolation", "front-ends")
PARTS = ("verification", *MEASUREMENT)

DURATIONS = {
    "spin_10us": 1e-5,  # well above what torch takes to multiply two numbers on a slow machine
    "spin_20us": 2e-5,
    "spin_200us": 2e-4,
    "spin_2ms": 2e-3,
    "spin_20ms": 2e-2,
    "spin_100ms": 0.1,
}
"""What the kernels of these names in :mod:`~matmulbench.audit.planted` last, in seconds."""


@dataclass
class Check:
    """One line of the audit: what was checked and how, what is required, what came out."""

    check: str
    setting: str
    required: str
    got: str
    passed: bool


def audit(
    parts: Iterable[str] = PARTS, quick: bool = False, progress: Callable[[str], None] = lambda text: None
) -> Iterator[Check]:
    """Audit the suite on this machine, part by part of :data:`PARTS`; five minutes with ``quick``, hours without."""
    from matmulbench.audit.measurement import audit_measurement
    from matmulbench.audit.mutants import mutants
    from matmulbench.audit.verification import audit_verification

    for part in parts:
        if part == "verification":
            yield from audit_verification(chosen=mutants()[:: 4 if quick else 1], progress=progress)
        else:
            yield from audit_measurement(part, quick, progress)
