"""How much an examination may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Seconds for the cases (more than a slow kernel needs for the few it gets), and examples for the search."""

    seconds: float
    examples: int
    silence_limit: float = 20.0


EFFORTS = {
    "quick": Effort(0.8, 0),
    "default": Effort(2.5, 200),
    "thorough": Effort(60.0, 10_000, 60.0),
}
