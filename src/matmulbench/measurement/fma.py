"""A loop of nothing but fused multiply-adds on registers: the fastest arithmetic that the machine has."""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from matmulbench.ladder.tiled.vectors import fma, splat, vector_bits

CHAINS = 12  # independent sums: more than latency (4 cycles) x two units, fewer than the registers there are
_I64 = ir.IntType(64)


@intrinsic
def _fma_loop(typing_context: Any, iterations: Any, x: Any) -> Any:
    """Run ``iterations`` times :data:`CHAINS` vector FMAs; return a sum of all, so that none can be dropped."""
    lanes = vector_bits() // x.bitwidth

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, scalar = args
        vector = ir.VectorType(scalar.type, lanes)
        factor = splat(builder, scalar, lanes)
        entry, loop, done = (
            builder.block,
            builder.append_basic_block("loop"),
            builder.append_basic_block("done"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(_I64)
        sums = [builder.phi(vector) for _ in range(CHAINS)]
        grown = [fma(builder, factor, factor, total) for total in sums]
        index.add_incoming(ir.Constant(_I64, 0), entry)
        following = builder.add(index, ir.Constant(_I64, 1))
        index.add_incoming(following, loop)
        for chain, (total, larger) in enumerate(zip(sums, grown, strict=True)):
            total.add_incoming(ir.Constant(vector, [float(chain)] * lanes), entry)
            total.add_incoming(larger, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        total = grown[0]
        for larger in grown[1:]:
            total = builder.fadd(total, larger)
        result = ir.Constant(scalar.type, 0.0)
        for lane in range(lanes):
            result = builder.fadd(result, builder.extract_element(total, ir.Constant(_I64, lane)))
        return result

    return x(types.int64, x), codegen


@numba.njit(cache=True)
def run_alone(iterations: int, x: Any) -> Any:
    """Run the loop once; the sum is of no interest."""
    return _fma_loop(iterations, x)  # type: ignore[call-arg]  # numba supplies the context


@numba.njit(parallel=True, cache=True)
def run_fma(threads: int, iterations: int, x: Any) -> Any:
    """Run the loop once on each of ``threads`` threads; the sum is of no interest."""
    total = x
    for _ in numba.prange(threads):
        total += _fma_loop(iterations, x)  # type: ignore[call-arg]  # numba supplies the context
    return total


def flop_per_iteration(bits: int) -> int:
    """Return the FLOP of one iteration on one thread for elements of ``bits`` bits."""
    return 2 * CHAINS * (vector_bits() // bits)
