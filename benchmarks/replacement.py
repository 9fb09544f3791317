"""What it costs to have ATen's products replaced: a step of ``examples/transformer.py``, its products replaced or not.

Turns of five steps come in pairs, replaced and plain in random order, timed by the processor time of their one thread,
so that what else the machine does counts little:

    python benchmarks/replacement.py [SECONDS]
"""

import random
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch

from matmulbench import replaced
from matmulbench.ladder.plugins import load_function

EXAMPLE = Path(__file__).parents[1] / "examples" / "transformer.py"
STEPS = 5  # of a turn
REDRAWN = 2000  # times, for the interval


def main(seconds: float) -> None:
    """Print the median of the pairs' ratios with its 95 % interval."""
    torch.set_num_threads(1)
    model, loss, batches = load_function(f"{EXAMPLE}:make", "model")()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x, y = batches[0]

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    def step_s(block: AbstractContextManager[None]) -> float:
        with block:  # it lasts, as in training: to begin it (60 µs) is not what a step costs
            step()
            start = process_time()
            for _ in range(STEPS):
                step()
            return (process_time() - start) / STEPS

    products: list[float] = []
    with replaced(torch.mm, lambda a, b, taken: products.append(taken)):
        step()
    ways, pairs = (nullcontext, partial(replaced, torch.mm)), []
    end = perf_counter() + seconds
    while perf_counter() < end:
        both = {way: step_s(way()) for way in random.sample(ways, 2)}
        pairs.append([both[way] for way in ways])
    times = np.array(pairs)
    ratios = times[:, 1] / times[:, 0]
    medians = np.median(np.random.default_rng(0).choice(ratios, (REDRAWN, len(ratios))), axis=1)
    low, high = 100 * (np.quantile(medians, [0.025, 0.975]) - 1)
    step_us = 1e6 * float(np.median(times[:, 0]))
    cost = float(np.median(ratios)) - 1
    print(
        f"{len(pairs)} pairs: a step of {step_us:.0f} µs with {len(products)} products costs {100 * cost:+.2f} % "
        f"[{low:+.2f}, {high:+.2f}] if torch.mm replaces them, {cost * step_us / len(products):.2f} µs each"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
