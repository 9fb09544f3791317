"""Statefulness: results must depend on the operands' values, not on earlier calls, identity, address or chance."""

from __future__ import annotations

import numpy as np
import torch

from matmulbench.dtypes import as_array, filler
from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest

TINY = (3, 4, 5)


def small_integers(kernel: KernelUnderTest, *sizes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw operands whose product is exact."""
    m, k, n = sizes
    return Case(m, k, n, dtype=kernel.dtype, values="small-integers", seed=seed).operands()


def check_earlier_calls(kernel: KernelUnderTest, seconds: float) -> None:
    """Change one element, or exchange two, in the same objects; then take new objects at, probably, the same place."""
    a, b = small_integers(kernel, *TINY, seed=8)
    kernel.check_exact(a, b, "first call")
    kernel.check_exact(a, b, "the same operands again")
    for name, operand in (("a", a), ("b", b)):
        array = as_array(operand)  # writes through it leave no trace in the tensor's version counter
        for index in np.ndindex(*array.shape):
            array[index] += 1
            kernel.check_exact(a, b, f"the same objects, after {name}[{index[0]}, {index[1]}] += 1")
        array[[0, 1]] = array[[1, 0]]
        kernel.check_exact(a, b, f"the same objects, after an exchange of two rows of {name}")
        operand.copy_(operand.flip(1))
        kernel.check_exact(a, b, f"the same objects, after {name} was reversed")
    for seed in range(12):
        new_a, new_b = small_integers(kernel, *TINY, seed=seed)
        kernel.check_exact(new_a, new_b, f"new operands of the same shape, seed {seed}")
        kernel.check_exact(a, new_b, f"the same a with a new b, seed {seed}")
        kernel.check_exact(new_a, b, f"a new a with the same b, seed {seed}")
    for size in (24, 65):
        if kernel.pace.predict(size, size, size) > max(seconds, 0.3):
            return
        c, d = small_integers(kernel, size, size, size, seed=9)
        kernel.check_exact(c, d, f"{size}x{size}x{size}")
        as_array(d)[size // 2, size // 3] += 1
        kernel.check_exact(c, d, f"{size}x{size}x{size}, the same objects, after one element of b += 1")


def check_addresses(kernel: KernelUnderTest) -> None:
    """Multiply the same values at every alignment."""
    a, b = small_integers(kernel, *TINY, seed=10)
    for offset in range(17):
        kernel.check_exact(_moved(a, offset), _moved(b, offset), f"operands {offset} elements into their memory")


def _moved(operand: torch.Tensor, offset: int) -> torch.Tensor:
    memory = torch.full((operand.numel() + offset,), filler(str(operand.dtype)), dtype=operand.dtype)
    return memory[offset:].view(operand.shape).copy_(operand)


def check_repetition(kernel: KernelUnderTest, seconds: float) -> None:
    """Multiply the same operands many times: errors that move are a race."""
    end = kernel.pace.clock() + seconds
    for size in (9, 65, 129, 200):
        m, k, n = size, size + 1, size - 1
        a, b = small_integers(kernel, m, k, n, seed=11)
        for _ in range(12):
            if kernel.pace.clock() + kernel.pace.predict(m, k, n) > end:
                break
            kernel.check_exact(a, b, f"{m}x{k}x{n} {kernel.dtype}, again and again")
    a, b = Case(40, 41, 42, dtype=kernel.dtype, seed=11).operands()
    if kernel.pace.clock() + 3 * kernel.pace.predict(40, 40, 40) < end:
        first, *others = (kernel.call(a, b, "40x41x42 normal, repeated") for _ in range(3))
        if any(first.tobytes() != other.tobytes() for other in others):
            kernel.notes.add("two calls with the same operands differ, within the bound")
