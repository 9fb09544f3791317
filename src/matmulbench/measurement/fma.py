"""A loop of nothing but multiply-adds on registers: the fastest arithmetic that the machine has."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import types

from matmulbench.ladder.tiled.vectors import I64, Emitter, emitted, fma, splat, vector_bits

# By dtype: LLVM's name of the processor's feature, the instruction, and how many products it adds to 32 bits.
_DOT_INSTRUCTIONS = {"bfloat16": ("avx512bf16", "vdpbf16ps", 2), "int8": ("avx512vnni", "vpdpbusd", 4)}
CHAINS = 12  # independent sums: more than latency (4 cycles) x two units, fewer than the registers there are

Loop = Callable[[int, int, Any], Any]  # (threads, iterations, x); what it returns is of no interest


@emitted
def _chains(typing_context: Any, instruction: Any, iterations: Any, x: Any) -> Any:
    """Do ``iterations`` times :data:`CHAINS` of the literal ``instruction``, the FMA if it is empty.

    Returns a sum of all, so that none can be dropped.
    """
    name = instruction.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, count, scalar = args
        emit = Emitter(builder, scalar.type)
        factor = splat(builder, scalar, emit.lanes)

        def step(total: Any) -> Any:
            if not name:
                return fma(builder, factor, factor, total)
            kind = ir.FunctionType(total.type, [total.type] * 3)  # LLVM has no types for these
            return builder.asm(kind, f"{name} $2, $1, $0", "=v,v,v,0", (factor, factor, total), False)

        starts = [ir.Constant(emit.vector, [float(chain)] * emit.lanes) for chain in range(CHAINS)]
        *sums, _ = emit.loop(ir.Constant(I64, 0), count, 1, starts, lambda p, sums: [step(total) for total in sums])
        return emit.sum(reduce(builder.fadd, sums))

    return x(instruction, types.int64, x), codegen


@numba.njit(cache=True)
def run_alone(iterations: int, x: Any) -> Any:
    """Run the loop of FMAs once; the sum is of no interest."""
    return _chains("", iterations, x)


def dot_instruction(dtype: str) -> tuple[str, int] | None:
    """Return the processor's instruction that adds products of narrow numbers, and how many to each sum of 32 bits."""
    feature, name, products = _DOT_INSTRUCTIONS.get(dtype, ("", "", 0))
    known = vector_bits() == 512 and llvm.get_host_cpu_features().get(feature)
    return (name, products) if known else None


def make_loop(instruction: str = "") -> Loop:
    """Make what runs the loop of an instruction, by default the FMA, once on each of so many threads."""
    llvm.initialize_native_asmparser()

    @numba.njit(parallel=True, cache=True)
    def run(threads: int, iterations: int, x: Any) -> Any:
        total = x
        for _ in numba.prange(threads):
            total += _chains(instruction, iterations, x)
        return total

    return run


def flop_per_iteration(bits: int) -> int:
    """Return the FLOP of one iteration on one thread for elements of ``bits`` bits."""
    return 2 * CHAINS * (vector_bits() // bits)
