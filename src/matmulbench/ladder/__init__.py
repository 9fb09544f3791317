"""The ladder: the built-in kernels, one file each, in teaching order; and a second one, of kernels for a GPU.

**To add a kernel**: write ``ladder/my_kernel.py`` with a function ``matmul(a, b)``, and add one line to
:data:`LADDER`, or :data:`CUDA_LADDER`. The command, charts, tests, asv and pytest-benchmark all read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Kernel(Protocol):
    """A matrix product on torch CPU tensors: ``a`` (m, k) times ``b`` (k, n) gives a fresh ``c`` (m, n).

    With an attribute ``batched = True``, it multiplies (batch, m, k) by (batch, k, n), too. With ``device = "cuda"`` it
    takes and returns tensors on a GPU.
    """

    def __call__(self, a: torch.Tensor, b: torch.Tensor, /) -> torch.Tensor:
        """Multiply."""
        ...


@dataclass(frozen=True)
class Rung:
    """One built-in kernel: its name, the module that holds its ``matmul``, and what the rung teaches."""

    name: str
    module: str
    idea: str

    @property
    def target(self) -> str:
        """Where the function is, as ``package.module:function``."""
        return f"matmulbench.ladder.{self.module}:matmul"


LADDER = (
    Rung("triple-loop", "triple_loop", "three Python loops over single elements"),
    Rung("row-slice", "row_slice", "the inner loop becomes one element-wise product and a sum"),
    Rung("broadcasting", "broadcasting", "one row of a against all of b at once"),
    Rung("einsum", "einsum", "the product written as an index equation (torch)"),
    Rung("numpy-einsum", "numpy_einsum", "the same equation, run by numpy's own C loop"),
    Rung("numba", "numba_loop", "the triple loop again, compiled"),
    Rung("numba-tiled", "tiled.kernel", "tiles that stay in registers, as in a BLAS, but in Python"),
    Rung("numpy", "numpy_matmul", "numpy's @: the BLAS that numpy ships"),
    Rung("torch", "torch_matmul", "torch's @: the BLAS that torch ships"),
)
BASELINE = "torch"

CUDA_LADDER = (
    Rung("cuda-naive", "cuda_naive", "a GPU's thread for each element of the result (numba.cuda)"),
    Rung("cuda-shared", "cuda_shared", "tiles in memory that a block of threads shares (numba.cuda)"),
    Rung("triton", "triton_matmul", "tiles again, which a compiler puts on tensor cores (Triton)"),
    Rung("cuda-torch", "cuda_torch", "torch's @ on a GPU: cuBLAS"),
)
"""Kernels for a GPU: ``--device cuda`` has them verified, timed and trained with where there is one."""
RUNGS = (*LADDER, *CUDA_LADDER)
LADDERS = {"cpu": LADDER, "cuda": CUDA_LADDER}
BASELINES = {"cpu": BASELINE, "cuda": "cuda-torch"}
"""By device."""
