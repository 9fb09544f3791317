"""The roof: the rates that this machine is *measured* to reach, at one thread count and dtype."""

from __future__ import annotations

from dataclasses import dataclass

from matmulbench.workload import Workload


@dataclass(frozen=True)
class Roof:
    """What bounds every kernel: GFLOP/s in registers, GB/s from memory, and seconds that any call costs.

    ``call_floor_s`` is an empty kernel's call, the harness's loop included; ``conversion_s`` is the way of two tensors
    to numpy and of a result back, which the kernels that go by way of numpy pay in each call.
    """

    dtype: str
    threads: int
    fma_gflops: float
    bandwidth_gbs: float
    call_floor_s: float
    conversion_s: float = 0.0

    def gflops(self, workload: Workload) -> float:
        """Return min(FMA peak, bandwidth x intensity): the roofline model (Williams et al., CACM 2009)."""
        return min(self.fma_gflops, self.bandwidth_gbs * workload.intensity)
