"""How much an examination may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """What one kernel and dtype may take.

    ``seconds`` are shared among the properties; a slow kernel gets fewer and smaller cases for them. ``examples`` is
    how many random cases the search draws. A child that is silent for ``silence_limit`` seconds is ended.
    """

    seconds: float
    examples: int
    every_combination: bool = False
    silence_limit: float = 60.0  # numba compiles a while, on a busy machine


EFFORTS = {
    "quick": Effort(0.6, 20),
    "default": Effort(2.2, 200),
    "thorough": Effort(300.0, 10_000, True),
}
