"""The roof: what this machine is *measured* to reach at most, at one thread count and dtype."""

from __future__ import annotations

from dataclasses import dataclass, replace

from matmulbench.results.schema import Level
from matmulbench.workload import Workload


@dataclass(frozen=True)
class Roof:
    """What bounds every kernel: GFLOP/s in registers, GB/s from each level of the memory, seconds of any call.

    ``levels`` begin next to the core and end with memory itself. ``call_floor_s`` is the call of a kernel that only
    makes a tensor, the harness's loop included; ``conversion_s`` is the way of two tensors to numpy and of a result
    back, which the kernels that go by way of numpy pay in each call. ``disturbed`` says what else kept the machine busy
    meanwhile. Of a ``device`` that is not the CPU, the rate is the best that a library reached.
    """

    dtype: str
    threads: int
    fma_gflops: float
    levels: tuple[Level, ...]
    call_floor_s: float
    conversion_s: float = 0.0
    disturbed: str | None = None
    device: str = "cpu"

    def limit(self, workload: Workload, cold: bool = False) -> tuple[str, float]:
        """Return what bounds ``workload`` (``compute``, a level's name or ``call``), and the GFLOP/s that it allows.

        The hierarchical roofline model (Williams et al., CACM 2009; Yang et al., CCPE 2020): each operand is read and
        the result written at least once, and of these bytes a level delivers what those nearer to the core cannot
        hold. ``cold`` operands come from memory.
        """
        least_s = {"compute": workload.flop / self.fma_gflops / 1e9, "call": self.call_floor_s}
        written = workload.result_bytes
        nearer = 0
        for level in self.levels:
            from_here = workload.bytes - nearer
            read = workload.bytes - written - (0 if cold and level.bytes is None else nearer)
            least_s[level.name] = max(from_here / level.gbs, read / level.read_gbs) / 1e9
            nearer += level.bytes or 0
        name = max(least_s, key=least_s.__getitem__)
        return name, workload.flop / least_s[name] / 1e9

    def best_of(self, other: Roof) -> Roof:
        """Return the higher of two roofs in every respect: noise only ever lowers what is measured."""
        pairs = zip(self.levels, other.levels, strict=True)
        return replace(
            self,
            fma_gflops=max(self.fma_gflops, other.fma_gflops),
            levels=tuple(
                replace(one, read_gbs=max(one.read_gbs, two.read_gbs), gbs=max(one.gbs, two.gbs)) for one, two in pairs
            ),
            call_floor_s=min(self.call_floor_s, other.call_floor_s),
        )
