"""A loop of nothing but fused multiply-adds on registers: the fastest arithmetic that the machine has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from matmulbench.ladder.tiled.vectors import fma, splat, vector_bits

# By dtype: LLVM's name of the processor's feature, the instruction, and how many products it adds to 32 bits.
_DOT_INSTRUCTIONS = {"bfloat16": ("avx512bf16", "vdpbf16ps", 2), "int8": ("avx512vnni", "vpdpbusd", 4)}
CHAINS = 12  # independent sums: more than latency (4 cycles) x two units, fewer than the registers there are
_I64 = ir.IntType(64)


Step = Callable[[Any, Any, Any], Any]  # (builder, factor, sum) -> the larger sum


def _chains(builder: Any, count: Any, factor: Any, step: Step) -> Any:
    """Emit ``count`` iterations of :data:`CHAINS` times ``step``; return a sum of all, so that none can be dropped."""
    vector = factor.type
    entry, loop, done = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(_I64)
    sums = [builder.phi(vector) for _ in range(CHAINS)]
    grown = [step(builder, factor, total) for total in sums]
    index.add_incoming(ir.Constant(_I64, 0), entry)
    following = builder.add(index, ir.Constant(_I64, 1))
    index.add_incoming(following, loop)
    for chain, (total, larger) in enumerate(zip(sums, grown, strict=True)):
        total.add_incoming(ir.Constant(vector, [float(chain)] * vector.count), entry)
        total.add_incoming(larger, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    total = grown[0]
    for larger in grown[1:]:
        total = builder.fadd(total, larger)
    result = ir.Constant(vector.element, 0.0)
    for lane in range(vector.count):
        result = builder.fadd(result, builder.extract_element(total, ir.Constant(_I64, lane)))
    return result


@intrinsic
def _fma_loop(typing_context: Any, iterations: Any, x: Any) -> Any:
    """Run ``iterations`` times :data:`CHAINS` vector FMAs."""
    lanes = vector_bits() // x.bitwidth

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, scalar = args
        factor = splat(builder, scalar, lanes)
        return _chains(builder, count, factor, lambda builder, factor, total: fma(builder, factor, factor, total))

    return x(types.int64, x), codegen


def dot_instruction(dtype: str) -> tuple[str, int] | None:
    """Return the processor's instruction that adds products of narrow numbers, and how many to each sum of 32 bits."""
    feature, name, products = _DOT_INSTRUCTIONS.get(dtype, ("", "", 0))
    known = vector_bits() == 512 and llvm.get_host_cpu_features().get(feature)
    return (name, products) if known else None


def dot_loop(instruction: str) -> Callable[[int, int, Any], Any]:
    """Make what :func:`run_fma` is, of an instruction that LLVM has no types for."""
    llvm.initialize_native_asmparser()

    @intrinsic
    def loop(typing_context: Any, iterations: Any, x: Any) -> Any:
        def step(builder: Any, factor: Any, total: Any) -> Any:
            kind = ir.FunctionType(total.type, [total.type] * 3)
            return builder.asm(kind, f"{instruction} $2, $1, $0", "=v,v,v,0", (factor, factor, total), False)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _chains(builder, args[0], splat(builder, args[1], vector_bits() // 32), step)

        return x(types.int64, x), codegen

    @numba.njit(parallel=True)
    def run(threads: int, iterations: int, x: Any) -> Any:
        total = x
        for _ in numba.prange(threads):
            total += loop(iterations, x)  # type: ignore[call-arg]  # numba supplies the context
        return total

    found: Callable[[int, int, Any], Any] = run
    return found


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
