"""The child that no kernel enters: it owns the operands, checks results and times fixed work."""

from __future__ import annotations

import mmap
import os
import random

import numpy as np
import torch

from matmulbench import isolation
from matmulbench.dtypes import DTYPES, as_array
from matmulbench.measurement.calibration import calibrate
from matmulbench.measurement.operands import SharedOperands
from matmulbench.measurement.stopwatch import Stopwatch
from matmulbench.verification.result import check_result, freivalds
from matmulbench.workload import Workload

_SUMMED = 32  # results of a block that are checked by sums, at most
_SLACK = 16.0  # for them: an old result, or none, is off by thousands
_operands: list[SharedOperands] = []


def open_operands(workload: Workload, windows: int, descriptors: list[int]) -> None:
    """Map the operands and fill them; those of an earlier workload are let go."""
    _operands[:] = [SharedOperands(workload, windows, descriptors[0], writable=True)]
    _operands[0].fill()
    calibrate()  # loads it


def start_round() -> list[float]:
    """Change the operands; time fixed work; return what the stopwatch does, and the seconds of its two kinds."""
    _operands[0].perturb()
    isolation.wait_for_go()
    stopwatch = Stopwatch()
    fixed = calibrate()
    return [*stopwatch.stop(), *fixed]


def check(
    problem: Workload,
    left: list[int],
    right: list[int],
    drawn: int | None,
    accumulation: str | None,
    descriptors: list[int],
) -> str | None:
    """Compare results in the shared output with the products of the windows ``left`` and ``right``, call by call.

    Number ``drawn`` (of a batch, one product) is compared element by element, and others, all where they are few, by
    random sums: where any call is wrong, that is seen. Returns what is wrong, in words.
    """
    count, size, element = len(left), problem.elements[2], getattr(torch, DTYPES[problem.dtype].result)
    with mmap.mmap(descriptors[0], 0, access=mmap.ACCESS_READ) as memory:
        os.close(descriptors[0])
        content = bytearray(memory[: count * size * element.itemsize])  # nobody can change a copy
    results = torch.frombuffer(content, dtype=element).reshape(count, *_operands[0].result_shape(problem))
    rng = np.random.default_rng()
    some = random.sample(range(count), min(count, _SUMMED))
    for number in {*some, *(() if drawn is None else (drawn,))}:
        operands = (_operands[0].window(i, problem, windows[number], False) for i, windows in enumerate((left, right)))
        a, b, c = map(as_array, (*operands, results[number]))
        finding = freivalds(a, b, c, rng, _SLACK, accumulation)
        if number == drawn and not finding:
            one = random.randrange(problem.batch)
            a, b, c = (each.reshape(-1, *each.shape[-2:])[one] for each in (a, b, c))
            finding = check_result(a, b, c, random.getrandbits(32), accumulation)
        if finding:
            return finding
    return None
