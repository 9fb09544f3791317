"""Turns in rounds: each round every kernel once, in random order, within a time that is shared out among them."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Sequence

from matmulbench.training.contestant import Contestant

# Of the time left, what is shared out at once. The smallest wishes are granted first each time, so that a kernel that
# is nearly done still comes to its end when slower ones took longer than foretold.
_SHARED = 0.6


def share_out(budget: float, wishes: Sequence[float]) -> list[float]:
    """Grant each wish in full where it is no more than an equal share of what the smaller wishes leave.

    Returns the grants in the order of ``wishes``; their sum is at most ``budget`` (all in seconds).
    """
    grants = [math.nan] * len(wishes)
    for left, i in zip(range(len(wishes), 0, -1), sorted(range(len(wishes)), key=wishes.__getitem__), strict=True):
        grants[i] = min(wishes[i], budget / left)
        budget -= grants[i]
    return grants


def compete(
    contestants: list[Contestant],
    baseline: str,
    deadline: float,
    attempt: Callable[[Contestant, int], bool],
    seed: int = 0,
) -> None:
    """Let the contestants train until nothing is missing or ``deadline`` (of ``time.monotonic``) is near.

    A contestant that has used up its share sits out, the baseline never does: it is what the others are paired with.
    Whenever all shares are used up, the time that is left is shared out anew.

    Parameters
    ----------
    attempt
        takes a contestant's turn of a round, and says whether it went well; after a turn that did not, it has no more.
    """
    generator = random.Random(seed)
    healthy = list(contestants)
    number = 0
    gc.collect()
    gc.disable()  # a collection would be charged to whoever's turn it is
    try:
        while (left := deadline - time.monotonic()) > 0:
            wishes = [contestant.wish for contestant in healthy]
            for contestant, grant in zip(healthy, share_out(_SHARED * left, wishes), strict=True):
                contestant.allowance = contestant.spent + grant
            began = number
            while any(contestant.affordable for contestant in healthy):
                playing = [c for c in healthy if c.affordable or c.name == baseline]
                generator.shuffle(playing)
                for contestant in playing:
                    if time.monotonic() + contestant.turn_estimate > deadline:
                        contestant.allowance = 0.0
                    elif not attempt(contestant, number):
                        healthy.remove(contestant)
                number += 1
            if number == began:
                break
    finally:
        gc.enable()
