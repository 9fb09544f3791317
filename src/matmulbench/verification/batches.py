"""Batches: a kernel that says ``batched = True`` must be right on (batch, m, k) times (batch, k, n), too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from matmulbench.dtypes import as_array, as_tensor, filler
from matmulbench.verification.case import Array, Case
from matmulbench.verification.kernel import KernelUnderTest, WrongError
from matmulbench.workload import LAYOUTS

_BATCHES = (1, 2, 3, 7, 32)
_SIZES = ((1, 1, 1), (2, 3, 4), (5, 7, 3), (4, 1, 3), (16, 17, 15), (33, 8, 31), (64, 16, 64))
_AT_LEAST = 200  # calls that no kernel is spared
# How the products of a batch lie in memory, the left operand's and the right one's.
_PLACES = (
    ("one behind the other", "one behind the other"),
    ("row by row", "row by row"),  # as attention's heads do
    ("with gaps", "one behind the other"),
    ("one for all", "with gaps"),
    ("row by row", "one for all"),
)


def check_batches(kernel: KernelUnderTest, seconds: float) -> None:
    """Multiply batches, if the kernel takes them, and judge every product.

    Raises
    ------
    WrongError
        if one is wrong, or an operand was mistreated; what the kernel raises goes on with a note.
    """
    if not getattr(kernel.kernel, "batched", False):
        return
    end = kernel.pace.clock() + seconds
    for number, (batch, case, places) in enumerate(_cases(kernel.dtype)):
        expected_s = batch * kernel.pace.predict(case.m, case.k, case.n)
        if number >= _AT_LEAST and kernel.pace.clock() + expected_s > end:
            return
        where = f"a batch of {batch}, {case}, a {places[0]}, b {places[1]}"
        values = zip(*(replace(case, seed=i).arrays() for i in range(batch)), strict=True)
        a, b = (_arrange(np.stack(each), *how) for each, *how in zip(values, case.layout, places, strict=True))
        try:
            _check(kernel, case, a, b, where)
            a[-1, -1, -1] += 1  # it must not know the same objects again
            _check(kernel, case, a, b, f"{where}, after a[-1, -1, -1] += 1")
        except WrongError:
            raise
        except Exception as error:
            error.add_note("it says with `batched = True` that it takes (batch, m, k) and (batch, k, n)")
            raise


def _cases(dtype: str) -> Iterator[tuple[int, Case, tuple[str, str]]]:
    """Yield the size of a batch, the case of which its products are, and where they lie; in order of cost."""
    layouts, places = itertools.cycle(LAYOUTS), itertools.cycle(_PLACES)
    values = itertools.cycle(("small-integers", "normal", "sparse", "scaled", "integers", "normal", "small-integers"))
    for batch, sizes in sorted(itertools.product(_BATCHES, _SIZES), key=lambda each: each[0] * math.prod(each[1])):
        for _ in range(len(LAYOUTS) * 2):
            yield batch, Case(*sizes, next(layouts), dtype, next(values)), next(places)


def _arrange(values: Array, letter: str, place: str) -> torch.Tensor:
    """Lay ``values`` (batch, rows, columns) out; ``letter`` is N, or T for transposed views."""
    tensor = as_tensor(np.ascontiguousarray(values.swapaxes(1, 2) if letter == "T" else values))
    match place:
        case "row by row":
            tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        case "with gaps":
            batch, *sizes = tensor.shape
            tensor = torch.full((2 * batch, *sizes), filler(str(tensor.dtype)), dtype=tensor.dtype)[::2].copy_(tensor)
        case "one for all":
            tensor = tensor[:1].expand(tensor.shape)
    return tensor.mT if letter == "T" else tensor


def _check(kernel: KernelUnderTest, case: Case, a: torch.Tensor, b: torch.Tensor, where: str) -> None:
    result = kernel.call(a, b, where)
    for i, operands in enumerate(zip(as_array(a), as_array(b), result, strict=True)):
        if kernel.judge(*operands, f"{where}, product {i}", case.values).verdict == "normwise":
            kernel.notes.add("of products in a batch, only the norm bound holds")
