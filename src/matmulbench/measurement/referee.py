"""The child that no kernel enters: it owns the operands, checks results and times fixed work."""

from __future__ import annotations

import mmap
import os
import random

import torch

from matmulbench import isolation
from matmulbench.measurement.calibration import calibrate
from matmulbench.measurement.operands import SharedOperands
from matmulbench.measurement.worker import Stopwatch
from matmulbench.verification import check_result
from matmulbench.workload import Workload

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


def check(problem: Workload, left: int, right: int, index: int, seen: bool, descriptors: list[int]) -> str | None:
    """Compare result number ``index`` of the shared output with the product of two windows."""
    a, b = (_operands[0].window(i, problem, number, seen) for i, number in enumerate((left, right)))
    size = problem.m * problem.n
    with mmap.mmap(descriptors[0], 0, prot=mmap.PROT_READ) as memory:
        os.close(descriptors[0])
        element = getattr(torch, problem.dtype)
        c = torch.frombuffer(bytearray(memory[index * size * a.itemsize :][: size * a.itemsize]), dtype=element)
    return check_result(a, b, c.reshape(problem.m, problem.n), seed=random.getrandbits(32))
