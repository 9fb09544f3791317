"""Is a kernel right: cases, error bounds, the examination in the kernel's process, and what the parent makes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """What the examination of one kernel and dtype may take.

    ``seconds`` are shared among the properties; a slow kernel gets fewer and smaller cases for them. ``examples`` is
    how many random cases the search draws.
    """

    seconds: float
    examples: int
    every_combination: bool = False


SILENCE_S = 60.0  # of a child, then it is ended; numba compiles a while, on a busy machine
EFFORTS = {
    "quick": Effort(0.6, 20),
    "default": Effort(2.2, 200),
    "thorough": Effort(300.0, 10_000, True),
}
