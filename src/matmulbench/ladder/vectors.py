"""Vectors for numba: the few things that ``numba-tiled`` says to LLVM directly.

numba compiles scalars, and leaves it to LLVM to find vectors. Here they are asked for: each function below is an
*intrinsic*, whose body is emitted where it is called. Addresses are ``int64``, strides are in bytes, and the sizes of a
tile are literal numbers, known when compiling, so that its sums live in registers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LATENCY = 8  # sums that must be under way for an FMA to begin in every cycle: latency (4) x units (2)

# numba supplies the first argument; to a type checker the call is one too short.
_emitted: Callable[[Callable[..., Any]], Any] = intrinsic(prefer_literal=True)

FORCED_BITS = int(os.environ.get("MATMULBENCH_VECTOR_BITS", "0"))  # for tests of other machines' widths


def vector_bits() -> int:
    """Return the width in bits of the widest vector that this processor multiplies."""
    if FORCED_BITS:
        return FORCED_BITS
    features = llvm.get_host_cpu_features()
    for feature, bits in (("avx512f", 512), ("avx", 256)):
        if features.get(feature):
            return bits
    return 128


def vector_registers() -> int:
    """Return how many vectors the processor holds: 32 with AVX-512 and on ARM (NEON), else 16."""
    features = llvm.get_host_cpu_features()
    return 32 if vector_bits() == 512 or features.get("neon") else 16


def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Emit x·y + z, rounded once, for vectors of one type."""
    kind = x.type
    name = f"llvm.fma.v{kind.count}{'f32' if isinstance(kind.element, ir.FloatType) else 'f64'}"
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, ir.FunctionType(kind, [kind] * 3), name
    )
    return builder.call(function, (x, y, z))


def splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """Emit a vector of ``lanes`` times ``scalar``."""
    kind = ir.VectorType(scalar.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


class _Emitter:
    """Loads, stores and loops of one intrinsic; the element type is ``scalar``'s."""

    def __init__(self, builder: Any, scalar: Any) -> None:
        self.builder, self.scalar = builder, scalar
        self.size = 4 if isinstance(scalar, ir.FloatType) else 8
        self.lanes = vector_bits() // (8 * self.size)
        self.vector = ir.VectorType(scalar, self.lanes)
        self.zero = ir.Constant(self.vector, None)

    def at(self, address: Any, *offsets: Any) -> Any:
        """Return ``address`` moved by the sum of ``offsets``, in bytes."""
        for offset in offsets:
            address = self.builder.add(address, offset)
        return address

    def constants(self, count: int, factor: int = 1) -> list[Any]:
        """Return the first ``count`` multiples of ``factor``, from 0 on."""
        return [ir.Constant(_I64, i * factor) for i in range(count)]

    def load_scalar(self, address: Any) -> Any:
        return self.builder.load(self.builder.inttoptr(address, self.scalar.as_pointer()))

    def mask(self, count: Any) -> Any:
        """Return which lanes lie before ``count``."""
        kind = ir.VectorType(_I64, self.lanes)
        lanes = ir.Constant(kind, list(range(self.lanes)))
        return self.builder.icmp_signed("<", lanes, splat(self.builder, count, self.lanes))

    def load(self, address: Any, mask: Any = None) -> Any:
        """Load a vector; lanes outside ``mask`` are neither read nor anything but 0."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            loaded = self.builder.load(pointer)
            loaded.align = self.size
            return loaded
        function = self._masked("load", self.vector, [pointer.type, _I32, mask.type, self.vector])
        return self.builder.call(function, (pointer, ir.Constant(_I32, self.size), mask, self.zero))

    def store(self, value: Any, address: Any, mask: Any = None) -> None:
        """Store a vector; memory outside ``mask`` is left alone."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, pointer).align = self.size
        else:
            function = self._masked("store", ir.VoidType(), [self.vector, pointer.type, _I32, mask.type])
            self.builder.call(function, (value, pointer, ir.Constant(_I32, self.size), mask))

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{what}.v{self.lanes}f{8 * self.size}.p0"
        return cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            self.builder.module, ir.FunctionType(result, arguments), name
        )

    def sum(self, vector: Any) -> Any:
        """Return the sum of the lanes: halves added until one is left."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            half = [ir.Constant(ir.VectorType(_I32, lanes), [*range(start, start + lanes)]) for start in (0, lanes)]
            undefined = ir.Constant(vector.type, ir.Undefined)
            low, high = (self.builder.shuffle_vector(vector, undefined, part) for part in half)
            vector = self.builder.fadd(low, high)
        return self.builder.extract_element(vector, ir.Constant(_I32, 0))

    def row_blocks(self, start: Any, stop: Any, rows: int, body: Any) -> Any:
        """Emit ``for i in range(start, stop, rows): body(i)``; whole blocks only. Return the first row left over."""
        builder, step = self.builder, ir.Constant(_I64, rows)
        row = cgutils.alloca_once_value(builder, start)  # type: ignore[no-untyped-call]
        head, inside, done = (builder.append_basic_block(name) for name in ("rows", "block", "rest"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.load(row)
        following = builder.add(i, step)
        builder.cbranch(builder.icmp_signed("<=", following, stop), inside, done)
        builder.position_at_end(inside)
        body(i)
        builder.store(following, row)
        builder.branch(head)
        builder.position_at_end(done)
        return i

    def prefetch(self, address: Any) -> None:
        """Ask for the cache line at ``address``, which may be anywhere."""
        pointer = self.builder.inttoptr(address, _I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            self.builder.module, kind, "llvm.prefetch.p0"
        )
        self.builder.call(function, (pointer, *(ir.Constant(_I32, value) for value in (0, 3, 1))))

    def loop(self, start: Any, stop: Any, step: int, sums: list[Any], body: Any) -> list[Any]:
        """Emit ``for p in range(start, stop, step): sums = body(p, sums)``; whole steps only. Return sums and p."""
        builder = self.builder
        step_value = ir.Constant(_I64, step)
        entry = builder.block
        head, inside, done = (builder.append_basic_block(name) for name in ("head", "inside", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        p = builder.phi(_I64)
        totals = [builder.phi(self.vector) for _ in sums]
        following = builder.add(p, step_value)
        builder.cbranch(builder.icmp_signed("<=", following, stop), inside, done)
        builder.position_at_end(inside)
        grown = body(p, totals)
        p.add_incoming(start, entry)
        p.add_incoming(following, builder.block)
        for total, first, larger in zip(totals, sums, grown, strict=True):
            total.add_incoming(first, entry)
            total.add_incoming(larger, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        return [*totals, p]


@_emitted
def tiles(
    typing_context: Any, rows: Any, vectors: Any, zero: Any, start: Any, m: Any,
    k: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_row: Any, last: Any, add: Any,
) -> Any:  # fmt: skip
    """Multiply blocks of ``rows`` rows of A, from row ``start`` on, by ``vectors`` vectors' width of B.

    C = A B, or with ``add`` C += A B. Returns the first row that is left: fewer than ``rows`` before ``m``.
    ``a_row`` and ``a_step`` lead to A's next row and to its next column, ``b_step`` to B's next row, whose elements
    must be neighbours, and ``c_row`` to C's. Of the last vector the first ``last`` lanes are used and touched.
    ``zero`` names the element type.
    """
    n_rows, n_vectors = rows.literal_value, vectors.literal_value
    width = n_rows * n_vectors
    unroll = max(1, -(-_LATENCY // width))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, zero, start, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add = args
        emit = _Emitter(builder, zero.type)
        masks = [None] * (n_vectors - 1) + [emit.mask(last)]
        number = emit.constants(max(n_rows, unroll) + 1)
        beside = emit.constants(n_vectors, emit.lanes * emit.size)
        # Meanwhile the next block's rows are fetched: they lie one after the other, or beside each other.
        by_rows = builder.icmp_signed("<", a_step, a_row)
        ahead_step = builder.select(by_rows, builder.mul(a_step, number[n_rows]), a_step)
        rows_on = builder.mul(a_row, number[n_rows])

        def block(i: Any) -> None:
            first = emit.at(a, builder.mul(i, a_row))
            a_rows = [emit.at(first, builder.mul(number[r], a_row)) for r in range(n_rows)]
            ahead = emit.at(first, rows_on)

            def step(p: Any, sums: list[Any]) -> list[Any]:
                emit.prefetch(emit.at(ahead, builder.mul(p, ahead_step)))
                b_row = emit.at(b, builder.mul(p, b_step))
                row = [emit.load(emit.at(b_row, beside[j]), masks[j]) for j in range(n_vectors)]
                offset = builder.mul(p, a_step)
                grown = []
                for r in range(n_rows):
                    x = splat(builder, emit.load_scalar(emit.at(a_rows[r], offset)), emit.lanes)
                    grown += [fma(builder, x, row[j], sums[r * n_vectors + j]) for j in range(n_vectors)]
                return grown

            def steps(p: Any, sums: list[Any]) -> list[Any]:
                apart = [sums[u * width : (u + 1) * width] for u in range(unroll)]
                return [total for u in range(unroll) for total in step(builder.add(p, number[u]), apart[u])]

            *sums, p = emit.loop(number[0], k, unroll, [emit.zero] * (width * unroll), steps)
            while len(sums) > width:
                pairs = zip(sums[:width], sums[width : 2 * width], strict=True)
                sums = [builder.fadd(x, y) for x, y in pairs] + sums[2 * width :]
            if unroll > 1:
                *sums, _ = emit.loop(p, k, 1, sums, step)
            corner = emit.at(c, builder.mul(i, c_row))
            places = [
                (emit.at(corner, builder.mul(number[r], c_row), beside[j]), masks[j])
                for r in range(n_rows)
                for j in range(n_vectors)
            ]
            with builder.if_else(add) as (then, otherwise):
                with then:
                    for total, place in zip(sums, places, strict=True):
                        emit.store(builder.fadd(emit.load(*place), total), *place)
                with otherwise:
                    for total, place in zip(sums, places, strict=True):
                        emit.store(total, *place)

        return emit.row_blocks(start, m, n_rows, block)

    return types.int64(rows, vectors, zero, *[types.int64] * 11, types.boolean), codegen


@_emitted
def dots(
    typing_context: Any, rows: Any, columns: Any, zero: Any, start: Any, m: Any,
    k: Any, a: Any, a_row: Any, b: Any, b_column: Any, c: Any, c_row: Any, add: Any,
) -> Any:  # fmt: skip
    """Multiply blocks of ``rows`` rows of A, from row ``start`` on, by ``columns`` columns of B, all stored along k.

    C = A B, or with ``add`` C += A B. Returns the first row that is left. ``a_row``, ``b_column`` and ``c_row`` lead
    to A's next row, B's next column and C's next row. The vectors lie along k: no lane is idle where columns are few.
    """
    n_rows, n_columns = rows.literal_value, columns.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, zero, start, m, k, a, a_row, b, b_column, c, c_row, add = args
        emit = _Emitter(builder, zero.type)
        number, beside = emit.constants(max(n_rows, n_columns)), emit.constants(n_columns, emit.size)
        b_columns = [emit.at(b, builder.mul(number[j], b_column)) for j in range(n_columns)]
        size = ir.Constant(_I64, emit.size)

        def block(i: Any) -> None:
            first = emit.at(a, builder.mul(i, a_row))
            a_rows = [emit.at(first, builder.mul(number[r], a_row)) for r in range(n_rows)]

            def step(p: Any, sums: list[Any], mask: Any = None) -> list[Any]:
                along = builder.mul(p, size)
                xs = [emit.load(emit.at(row, along), mask) for row in a_rows]
                ys = [emit.load(emit.at(column, along), mask) for column in b_columns]
                pairs = [(x, y) for x in xs for y in ys]
                return [fma(builder, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)]

            *sums, p = emit.loop(number[0], k, emit.lanes, [emit.zero] * (n_rows * n_columns), step)
            sums = step(p, sums, emit.mask(builder.sub(k, p)))
            corner = emit.at(c, builder.mul(i, c_row))
            for place, total in enumerate(sums):
                r, j = divmod(place, n_columns)
                address = emit.at(corner, builder.mul(number[r], c_row), beside[j])
                pointer = builder.inttoptr(address, zero.type.as_pointer())
                before = builder.select(add, builder.load(pointer), ir.Constant(zero.type, 0.0))
                builder.store(builder.fadd(before, emit.sum(total)), pointer)

        return emit.row_blocks(start, m, n_rows, block)

    return types.int64(rows, columns, zero, *[types.int64] * 9, types.boolean), codegen


@_emitted
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the function at ``address``, which takes a tuple of integers and returns nothing.

    numba would copy a function that is called by name into its caller, and compile it there once more.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, packed = args
        values = cgutils.unpack_tuple(builder, packed)  # type: ignore[no-untyped-call]
        kind = ir.FunctionType(ir.VoidType(), [_I64] * len(values))
        builder.call(builder.inttoptr(address, kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen


@_emitted
def move(typing_context: Any, size: Any, target: Any, source: Any) -> Any:
    """Copy one element of ``size`` bytes, 4 or 8, from one address to another."""
    kind = ir.IntType(8 * size.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, target, source = args
        value = builder.load(builder.inttoptr(source, kind.as_pointer()))
        builder.store(value, builder.inttoptr(target, kind.as_pointer()))
        return context.get_dummy_value()

    return types.void(size, types.int64, types.int64), codegen
