"""Vectors for numba: the few things that ``numba-tiled`` says to LLVM directly.

numba compiles scalars, and leaves it to LLVM to find vectors. Here they are asked for: each function below is an
*intrinsic*, whose body is emitted where it is called. Addresses are ``int64``, strides are in bytes.

numba's cache on disk looks at the file that calls an intrinsic alone: names there carry a digest of all files here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line
_PIECE = 16  # bytes of a vector within which shuffling is cheapest
_I8, BFLOAT16, _I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))

_F = TypeVar("_F", bound=Callable[..., Any])
jit = cast("Callable[[_F], _F]", numba.njit(error_model="numpy"))

# numba supplies the first argument; to a type checker the call is one too short.
emitted: Callable[[Callable[..., Any]], Any] = intrinsic(prefer_literal=True)

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


def _call_llvm(builder: Any, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
    """Emit the call of an intrinsic of LLVM's own."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}")  # type: ignore[no-untyped-call]
    return builder.call(function, arguments)


def _named(kind: Any) -> str:
    """Return LLVM's name for a type of vectors, in the names of its intrinsics."""
    return f"v{kind.count}{'i' if kind.element == BFLOAT16 else 'f'}{8 * _size(kind.element)}"


def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Emit x·y + z, rounded once, for vectors of one type."""
    return _call_llvm(builder, f"fma.{_named(x.type)}", x.type, (x, y, z))


def splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """Emit a vector of ``lanes`` times ``scalar``."""
    kind = ir.VectorType(scalar.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def _size(scalar: Any) -> int:
    """Return the bytes of an element."""
    return {BFLOAT16: 2, ir.FloatType(): 4}.get(scalar, 8)


class Emitter:
    """Loads, stores and loops of one intrinsic; the element type is ``scalar``'s.

    A bfloat16 is the upper half of a float32. LLVM's integer of 16 bits, :data:`BFLOAT16`, names what is one in memory;
    in registers all are float32.
    """

    def __init__(self, builder: Any, scalar: Any) -> None:
        self.builder, self.scalar = builder, scalar
        self.size = _size(scalar)
        self.lanes = vector_bits() // (8 * self.size)
        self.piece = _PIECE // self.size
        self.vector = ir.VectorType(scalar, self.lanes)
        self.zero = ir.Constant(self.vector, None)

    def at(self, address: Any, *offsets: Any) -> Any:
        """Return ``address`` moved by the sum of ``offsets``, in bytes."""
        for offset in offsets:
            address = self.builder.add(address, offset)
        return address

    def unpack(self, value: Any) -> list[Any]:
        """Return what a tuple holds."""
        return cast("list[Any]", cgutils.unpack_tuple(self.builder, value))  # type: ignore[no-untyped-call]

    def constants(self, count: int, factor: int = 1) -> list[Any]:
        """Return the first ``count`` multiples of ``factor``, from 0 on."""
        return [ir.Constant(I64, i * factor) for i in range(count)]

    def load_scalar(self, address: Any) -> Any:
        """Load one element."""
        return self.builder.load(self.builder.inttoptr(address, self.scalar.as_pointer()))

    def mask(self, count: Any, lanes: int | None = None) -> Any:
        """Return which of a vector's lanes, or of the first ``lanes``, lie before ``count``."""
        lanes, whole = lanes or self.lanes, ir.IntType(8 * self.size)  # as wide as what is masked: AVX2 has no other
        numbers = ir.Constant(ir.VectorType(whole, lanes), list(range(lanes)))
        count = self.builder.trunc(count, whole) if self.size < 8 else count
        return self.builder.icmp_signed("<", numbers, splat(self.builder, count, lanes))

    def load(self, address: Any, mask: Any = None, lanes: int | None = None, stored: Any = None) -> Any:
        """Load a vector, or one of ``lanes``; lanes outside ``mask`` are neither read nor anything but 0.

        ``stored`` is the type in memory, if it is another: of bfloat16, which is widened.
        """
        scalar = stored or self.scalar
        kind = ir.VectorType(scalar, lanes or self.lanes)
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        if mask is None:
            loaded = self.builder.load(pointer)
            loaded.align = _size(scalar)
        else:
            name, align = f"masked.load.{_named(kind)}.p0", ir.Constant(_I32, _size(scalar))
            loaded = _call_llvm(self.builder, name, kind, (pointer, align, mask, ir.Constant(kind, None)))
        if scalar != BFLOAT16:
            return loaded
        bits = self.builder.zext(loaded, ir.VectorType(_I32, kind.count))
        return self.builder.bitcast(
            self.builder.shl(bits, ir.Constant(bits.type, [16] * kind.count)), ir.VectorType(self.scalar, kind.count)
        )

    def store(self, value: Any, address: Any, mask: Any = None, stored: Any = None) -> None:
        """Store a vector, as bfloat16 if it is so ``stored``; memory outside ``mask`` is left alone."""
        if stored == BFLOAT16:
            value = self._rounded(value)
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        size = _size(value.type.element)
        if mask is None:
            self.builder.store(value, pointer).align = size
        else:
            name, align = f"masked.store.{_named(value.type)}.p0", ir.Constant(_I32, size)
            _call_llvm(self.builder, name, ir.VoidType(), (value, pointer, align, mask))

    def _rounded(self, value: Any) -> Any:
        """Round a vector to the nearest bfloat16, a tie to the even one; NaN stays NaN.

        In integers: the processor's own instruction takes numbers below the smallest normal one for zero.
        """
        builder, whole = self.builder, ir.VectorType(_I32, self.lanes)

        def all_of(number: int) -> Any:
            return ir.Constant(whole, [number] * self.lanes)

        bits = builder.bitcast(value, whole)
        upper = builder.lshr(bits, all_of(16))
        half = builder.add(all_of(0x7FFF), builder.and_(upper, all_of(1)))
        rounded = builder.lshr(builder.add(bits, half), all_of(16))
        quiet = builder.or_(upper, all_of(0x40))  # a NaN whose lower half alone says so would become infinite
        chosen = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
        return builder.trunc(chosen, ir.VectorType(BFLOAT16, self.lanes))

    def sum(self, vector: Any) -> Any:
        """Return the sum of the lanes: halves added until one is left."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            low, high = (self._shuffled(vector, undefined, range(first, first + lanes)) for first in (0, lanes))
            vector = self.builder.fadd(low, high)
        return self.builder.extract_element(vector, ir.Constant(_I32, 0))

    def transpose(self, vectors: list[Any]) -> list[Any]:
        """Transpose a square of as many vectors as there are lanes.

        First within pieces of 128 bits, then piece by piece: each step is one instruction on x86, others would be two.
        """
        piece = self.piece

        def across(rows: list[Any], run: int) -> list[Any]:
            """Of each run take the first half, then the second."""
            if run == piece:
                return rows
            first = [x for x in range(2 * self.lanes) if x % run < run // 2]
            second = [x + run // 2 for x in first]
            return across(self._in_pairs(first, rows), run // 2) + across(self._in_pairs(second, rows), run // 2)

        transposed = [self._within_pieces(vectors[first : first + piece], 1) for first in range(0, self.lanes, piece)]
        by_place = [across([rows[place] for rows in transposed], self.lanes) for place in range(piece)]
        return [row for rows in zip(*by_place, strict=True) for row in rows]

    def load_transposed(self, rows: list[Any], mask: Any = None) -> list[Any]:
        """Load 128 bits of each of as many rows as there are lanes; return what lies in each column as a vector.

        Rows that are a piece apart are loaded beside each other: it remains to transpose within pieces.
        """
        pieces = [self.load(row, mask, self.piece) for row in rows]
        return self._within_pieces([self._joined(pieces[first :: self.piece]) for first in range(self.piece)], 1)

    def _joined(self, parts: list[Any]) -> Any:
        """Return one vector of several, a power of two."""
        while len(parts) > 1:
            parts = self._in_pairs(range(2 * parts[0].type.count), parts)
        return parts[0]

    def _in_pairs(self, lanes: Sequence[int], rows: list[Any]) -> list[Any]:
        return [self._shuffled(x, y, lanes) for x, y in zip(rows[::2], rows[1::2], strict=True)]

    def _shuffled(self, x: Any, y: Any, lanes: Sequence[int]) -> Any:
        """Return these lanes of two vectors, the second's counted on from the first's."""
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(lanes)), [*lanes]))

    def _within_pieces(self, rows: list[Any], width: int) -> list[Any]:
        """Transpose squares of pieces: interleave neighbours, ``width`` elements at a time, low halves, then high."""
        if len(rows) == 1:
            return rows
        lanes, piece = range(self.lanes), self.piece
        places = [lane % piece // (2 * width) * width + lane % width + lane // piece * piece for lane in lanes]
        low = [x + (self.lanes if lane // width % 2 else 0) for lane, x in zip(lanes, places, strict=True)]
        high = [x + piece // 2 for x in low]
        halves = (self._within_pieces(self._in_pairs(half, rows), 2 * width) for half in (low, high))
        return [row for half in halves for row in half]

    def row_blocks(self, stop: Any, heights: Sequence[int], body: Callable[[Any, int], None]) -> None:
        """Emit ``body(i, rows)`` for blocks of rows up to ``stop``: of the first of ``heights``, then of the next.

        Where the second, being nearly as high, leaves no rows over and the first does, it does all of them.
        """
        builder, zero = self.builder, ir.Constant(I64, 0)
        row: Any = zero
        second = heights[1] if len(heights) > 1 and 2 * heights[1] > heights[0] else None
        for rows in heights:
            end = stop
            if second and rows == heights[0]:
                over, none_over = (builder.srem(stop, ir.Constant(I64, height)) for height in (rows, second))
                fits = builder.icmp_signed("==", none_over, zero)
                better = builder.and_(builder.icmp_signed("!=", over, zero), fits)
                end = builder.select(better, zero, stop)

            def block(i: Any, nothing: list[Any], rows: int = rows) -> list[Any]:
                body(i, rows)
                return nothing

            (row,) = self.loop(row, end, rows, [], block)

    def either(self, condition: Any) -> Iterator[bool]:
        """Emit what a loop over this does twice: where ``condition`` holds, and where it does not."""
        with self.builder.if_else(condition) as branches:
            for branch, holds in zip(branches, (True, False), strict=True):
                with branch:
                    yield holds

    def prefetch(self, address: Any, write: bool = False) -> None:
        """Ask for the cache line at ``address``, which may be anywhere, to read it or to ``write`` to it."""
        pointer = self.builder.inttoptr(address, _I8.as_pointer())
        how = (ir.Constant(_I32, value) for value in (int(write), 3, 1))
        _call_llvm(self.builder, "prefetch.p0", ir.VoidType(), (pointer, *how))

    def loop(self, start: Any, stop: Any, step: int, sums: list[Any], body: Any) -> list[Any]:
        """Emit ``for p in range(start, stop, step): sums = body(p, sums)``; whole steps only. Return sums and p."""
        builder = self.builder
        step_value = ir.Constant(I64, step)
        entry = builder.block
        head, inside, done = (builder.append_basic_block(name) for name in ("head", "inside", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        p = builder.phi(I64)
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


@emitted
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the function at ``address`` with what the tuple ``arguments`` holds; return its 32-bit code.

    numba would copy a function that is called by name into its caller, and compile it there once more.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, packed = args
        values = cgutils.unpack_tuple(builder, packed)  # type: ignore[no-untyped-call]
        kind = ir.FunctionType(_I32, [value.type for value in values])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), values)

    return types.int32(types.int64, arguments), codegen


@emitted
def words(typing_context: Any, address: Any, count: Any) -> Any:
    """Return the literal ``count`` of integers that lie at ``address``."""
    kind = types.UniTuple(types.int64, count.literal_value)  # type: ignore[no-untyped-call]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.inttoptr(args[0], I64.as_pointer())
        loaded = [builder.load(builder.gep(first, [ir.Constant(I64, place)])) for place in range(len(kind))]
        return context.make_tuple(builder, kind, loaded)

    return kind(types.int64, count), codegen


@emitted
def on_stack(typing_context: Any, numbers: Any) -> Any:
    """Return the address of integers, given as a tuple, where :func:`words` finds them until the caller returns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[0])  # type: ignore[no-untyped-call]
        place = cgutils.alloca_once(builder, I64, len(values))  # type: ignore[no-untyped-call]
        for number, value in enumerate(values):
            builder.store(value, builder.gep(place, [ir.Constant(I64, number)]))
        return builder.ptrtoint(place, I64)

    return types.int64(numbers), codegen


@emitted
def move(typing_context: Any, zero: Any, from_zero: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy the first ``count`` elements of a vector from one address to another.

    The types are those of ``zero`` there and of ``from_zero`` here; one of them may be bfloat16.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero, from_zero, target, source, count = args
        emit = Emitter(builder, from_zero.type if zero.type == BFLOAT16 else zero.type)
        whole = builder.icmp_signed(">=", count, ir.Constant(I64, emit.lanes))
        for is_whole in emit.either(whole):
            mask = None if is_whole else emit.mask(count)
            emit.store(emit.load(source, mask, stored=from_zero.type), target, mask, zero.type)
        return context.get_dummy_value()

    return types.void(zero, from_zero, types.int64, types.int64, types.int64), codegen


@emitted
def fetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at ``address``, which may be anywhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        Emitter(builder, ir.FloatType()).prefetch(args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@emitted
def transpose_block(
    typing_context: Any, zero: Any, from_zero: Any, rows: Any, columns: Any,
    target: Any, target_row: Any, source: Any, source_column: Any,
) -> Any:  # fmt: skip
    """Copy a block whose columns are contiguous to where its rows will be.

    It has at most as many ``rows`` and ``columns`` as a vector has lanes, and is transposed in registers. The types are
    those of ``zero`` there and of ``from_zero`` here, which may be bfloat16.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero, from_zero, rows, columns, target, target_row, source, source_column = args
        emit = Emitter(builder, zero.type)
        number = emit.constants(emit.lanes + 1)
        nothing = number[0]

        def places(first: Any, step: Any, count: Any, length: Any, all_used: bool) -> Iterator[tuple[Any, Any]]:
            """Yield the addresses of as many vectors as there are lanes, and which of their elements are used."""
            for i in number[:-1]:
                if all_used:
                    yield emit.at(first, builder.mul(i, step)), None
                else:
                    used = builder.icmp_signed("<", i, count)
                    offset = builder.mul(builder.select(used, i, nothing), step)
                    yield emit.at(first, offset), emit.mask(builder.select(used, length, nothing))

        whole = builder.and_(*(builder.icmp_signed("==", count, number[-1]) for count in (rows, columns)))
        for is_whole in emit.either(whole):
            of_source = places(source, source_column, columns, rows, is_whole)
            columns_of = [emit.load(*place, stored=from_zero.type) for place in of_source]
            rows_of = emit.transpose(columns_of)
            for vector, place in zip(rows_of, places(target, target_row, rows, columns, is_whole), strict=True):
                emit.store(vector, *place)
        return context.get_dummy_value()

    return types.void(zero, from_zero, *[types.int64] * 6), codegen
