"""The dtypes: one table of what each means for memory, rounding and exactness, and the way between torch and numpy.

**To add a dtype**, add a line to :data:`DTYPES`. Workloads, cases, error bounds, the roof, options and their completion
all read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matmulbench.errors import unknown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(frozen=True)
class DType:
    """What a product of operands of one dtype is.

    Attributes
    ----------
    itemsize, result_itemsize
        bytes of an element of an operand, and of the result.
    result
        the dtype of the result.
    digits
        bits of an operand's significand; for integers those below the sign.
    sum_digits
        bits of the sums that a kernel must keep, unless it declares fewer.
    sum_limit
        products whose magnitudes sum up to no more are added exactly in any order, and the result does not overflow.
    underflow
        the absolute error that each product may have by underflow.
    scale
        exponents up to which operands are scaled without overflow of any result.
    """

    name: str
    itemsize: int
    result: str
    result_itemsize: int
    digits: int
    sum_digits: int
    sum_limit: int
    underflow: float
    scale: int = 20
    operations: str = "FLOP"

    @property
    def is_integer(self) -> bool:
        """Whether products and sums are integers, and exact."""
        return self.operations != "FLOP"

    @property
    def exact(self) -> int:
        """The largest integer up to which operands hold all."""
        return int(2**self.digits) - self.is_integer

    @property
    def is_narrow(self) -> bool:
        """Whether sums have more bits than the operands."""
        return self.sum_digits > self.digits

    @property
    def rounding(self) -> float:
        """Unit roundoff of the step from the sum to the result; 0 where the sum is the result."""
        return 2.0**-self.digits if self.is_narrow and not self.is_integer else 0.0

    def unit_roundoff(self, accumulation: str | None = None) -> float:
        """Return the unit roundoff of sums; of operands of 16 bits, they may be in another dtype, ``accumulation``."""
        if self.is_integer:
            return 0.0
        usual = 2.0**-self.sum_digits
        return max(usual, ACCUMULATIONS[accumulation]) if accumulation and self.is_narrow else usual


# bfloat16 may lose what is below the smallest normal number: Intel's and AMD's VDPBF16PS takes it for zero.
DTYPES = {
    each.name: each
    for each in (
        DType("float32", 4, "float32", 4, 24, 24, 2**24, 2.0**-149),
        DType("float64", 8, "float64", 8, 53, 53, 2**53, 5e-324),
        DType("bfloat16", 2, "bfloat16", 2, 8, 24, 2**24, 2.0**-126),
        DType("float16", 2, "float16", 2, 11, 24, 65504, 2.0**-24, scale=3),
        DType("int8", 1, "int32", 4, 7, 31, 2**31 - 1, 0.0, operations="integer operations"),
    )
}
FLOATS = tuple(name for name, each in DTYPES.items() if not each.is_integer)
USUAL = ("float32", "float64")
"""What is verified unless others are asked for."""

ACCUMULATIONS = {name: 2.0 ** -DTYPES[name].digits for name in FLOATS}
"""The unit roundoff of each dtype in which a kernel may add."""


def declared_accumulation(kernel: Any, dtype: str) -> str | None:
    """Return in which dtype ``kernel`` says, with an attribute ``accumulation``, that it adds products of 16 bits.

    None if it says nothing, and of other dtypes.

    Raises
    ------
    UsageError
        if there is no such; the message names those that there are.
    """
    said = getattr(kernel, "accumulation", None)
    if said is not None and said not in ACCUMULATIONS:
        raise unknown("accumulation", str(said), ACCUMULATIONS)
    return said if DTYPES[dtype].rounding else None


class MissingDtypeError(ImportError):
    """A kernel does not take a dtype: it is unavailable there, as one is whose library is not installed."""


def check_taken(kernel: Any, dtype: str) -> None:
    """Raise MissingDtypeError if ``kernel`` says, with an attribute ``dtypes``, that it takes others only."""
    taken = getattr(kernel, "dtypes", DTYPES)
    if dtype not in taken:
        raise MissingDtypeError(f"dtype {dtype}: this kernel takes {', '.join(map(str, taken))}")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return numpy's dtype of a name; bfloat16 is that of ``ml_dtypes``."""
    import ml_dtypes  # noqa: F401  # makes it known to numpy
    import numpy as np

    return np.dtype(name)


def as_array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return the memory of a tensor as an array, bfloat16 as that of ``ml_dtypes``."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # which numpy does not have, and torch does not hand over
        return tensor.view(torch.int16).numpy().view(numpy_dtype("bfloat16"))
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return the memory of an array as a tensor; see :func:`as_array`."""
    import numpy as np
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def filler(dtype: str) -> float:
    """Return what unset memory is filled with, to be noticed: NaN, or of integers a large one."""
    return 77 if "int" in dtype else float("nan")
