"""Loops of nothing but loads and stores: the fastest traffic with each level of the memory."""

from __future__ import annotations

import mmap
from time import perf_counter
from typing import Any

import numba
import numpy as np
import psutil
from llvmlite import ir
from numba.core import types

from matmulbench.ladder.tiled.vectors import I64, Emitter, emitted
from matmulbench.results.machine import caches
from matmulbench.results.schema import Level

# How many arrays are read, how many written, and whether what is written goes past the caches. Which is fastest differs
# by level and by processor.
_WAYS = ((1, 0, False), (4, 0, False), (2, 1, False), (2, 1, True), (0, 1, True))
_AT_ONCE = 8  # vectors of a step, over all arrays
_STEP = 1024  # bytes: whole steps of any way
_CACHES_UNKNOWN = 2**28  # bytes of the arrays where the system does not say what caches there are
_TRY_S, _WAY_S = 0.001, 0.01  # how long a try lasts at least, and all tries of a way at one size


@emitted
def _sweep(typing_context: Any, way: Any, x: Any, address: Any, size: Any) -> Any:
    """Go once through ``size`` bytes in the literal ``way``; return a sum of what was read, lest it be dropped."""
    reads, writes, past = _WAYS[way.literal_value]
    arrays = reads + writes

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, scalar, address, size = args
        emit = Emitter(builder, scalar.type)
        length = builder.and_(builder.udiv(size, ir.Constant(I64, arrays)), ir.Constant(I64, -_STEP))
        starts = [emit.at(address, builder.mul(length, number)) for number in emit.constants(arrays)]
        step = _AT_ONCE // arrays * emit.lanes * emit.size

        def body(place: Any, sums: list[Any]) -> list[Any]:
            grown = []
            for offset in emit.constants(_AT_ONCE // arrays, emit.lanes * emit.size):
                loaded = [emit.load(emit.at(start, place, offset)) for start in starts[:reads]]
                for start in starts[reads:]:
                    total = builder.fadd(*loaded) if loaded else emit.zero
                    store = builder.store(
                        total, builder.inttoptr(emit.at(start, place, offset), emit.vector.as_pointer())
                    )
                    store.align = emit.lanes * emit.size
                    if past:
                        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
                grown += [] if writes else loaded
            return [builder.fadd(total, vector) for total, vector in zip(sums, grown, strict=True)]

        nothing = [] if writes else [emit.zero] * (_AT_ONCE // arrays * reads)
        *sums, _ = emit.loop(ir.Constant(I64, 0), length, step, nothing, body)
        total = emit.zero
        for vector in sums:
            total = builder.fadd(total, vector)
        return emit.sum(total)

    return x(way, x, types.int64, types.int64), codegen


@numba.njit(parallel=True, cache=True)
def _run(way: int, threads: int, passes: int, x: Any, address: int, size: int) -> Any:
    """Go ``passes`` times through ``size`` bytes on each of ``threads`` threads; the sum is of no interest."""
    total = x
    for thread in numba.prange(threads):
        start = address + thread * size
        for _ in range(passes):
            if way == 0:
                total += _sweep(0, x, start, size)
            elif way == 1:
                total += _sweep(1, x, start, size)
            elif way == 2:
                total += _sweep(2, x, start, size)
            elif way == 3:
                total += _sweep(3, x, start, size)
            else:
                total += _sweep(4, x, start, size)
    return total


def measure_levels(threads: int) -> tuple[Level, ...]:
    """Measure the bandwidth of each cache that ``threads`` threads have, and of memory; seconds if caches are large."""
    held = caches(threads)
    sizes, nearer = [], 0
    for level, size in held.items():
        # Well inside the level. Of a cache that is shared with strangers the smaller one may be all there is to be had.
        sizes.append((f"L{level}", size, {size // 2, min(4 * nearer, size // 2)} - {0}))
        nearer = size
    room = psutil.virtual_memory().available // 4
    beyond = min(2 * nearer or _CACHES_UNKNOWN, room)  # a sweep through twice a cache finds nothing left of the last
    buffer = np.ones(beyond + mmap.PAGESIZE, np.int8)  # written to: pages that never were are all one and the same
    address = -(-buffer.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    found: list[Level] = []
    read = mixed = 0.0
    for name, size, working_sets in reversed([*sizes, ("DRAM", None, {beyond})]):
        rates = [max(_gbs(way, threads, address, one) for one in working_sets) for way in range(len(_WAYS))]
        # What comes from farther away passes through here, too: where less was measured, that is noise.
        read = max([read, *(rate for rate, (_, writes, _) in zip(rates, _WAYS, strict=True) if not writes)])
        mixed = max([mixed, *rates])
        found.insert(0, Level(name, size, read, mixed))
    return tuple(found)


def _gbs(way: int, threads: int, address: int, working_set: int) -> float:
    """Return the GB/s of the fastest of many tries."""
    size, x, passes = working_set // threads // _STEP * _STEP, np.float32(0), 1
    reads, writes, _ = _WAYS[way]
    moved = size // (reads + writes) // _STEP * _STEP * (reads + writes) * threads

    def seconds() -> float:
        start = perf_counter()
        _run(way, threads, passes, x, address, size)
        return perf_counter() - start

    # The least of three: the first compiles and fills the cache, and any may be interrupted.
    while (best := min(seconds() for _ in range(3))) < _TRY_S:
        passes *= 2
    end = perf_counter() + _WAY_S
    while perf_counter() < end:
        best = min(best, seconds())
    return moved * passes / best / 1e9
