"""The kernels in the kernel: what is done with A, B and C once they are in place, a few vectors of sums at a time.

Intrinsics, as in :mod:`~matmulbench.ladder.tiled.vectors`. The sizes of a tile are literal numbers, known when
compiling, so that its sums live in registers from the first to the last step along k.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from matmulbench.ladder.tiled.vectors import I64, LINE, Emitter, emitted, fma, splat, vector_registers

_ROWS = 8  # about as many as a tile has
_BLOCKS_AHEAD = 4  # of m-vectorised tiles: a block takes less time than memory
_DOTS_ROWS = (8, 1) if vector_registers() == 32 else (4, 1)  # two columns of sums, and what they are made of
_LATENCY = 8  # sums that must be under way for an FMA to begin in every cycle: latency (4) x units (2)


@emitted
def panel(
    typing_context: Any, shapes: Any, unroll: Any, zero: Any,
    vectors: Any, product: Any, last: Any, add: Any, far: Any,
) -> Any:  # fmt: skip
    """Do a :class:`~matmulbench.ladder.tiled.blocks.Product` that is ``vectors`` vectors wide, tile by tile.

    C = A B, or with ``add`` C += A B. B's rows must be contiguous. Of the last vector the first ``last`` lanes are used
    and touched. The literal ``shapes`` says for each width how many rows a tile has, and those for the rows left over:
    ``"6,5,2,1x4 8,2,1x3"``; ``unroll`` steps along k are written out. ``zero`` names the element type. What lies
    ``far`` bytes after B's rows is fetched meanwhile; if 0, A's next rows.
    """
    widths = [one.split("x") for one in shapes.literal_value.split()]
    least_unroll = unroll.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, zero, vectors, product, last, add, far = args
        emit = Emitter(builder, zero.type)
        m, k, _, *matrices = emit.unpack(product)
        matrices = [emit.unpack(matrix) for matrix in matrices]
        whole = builder.icmp_signed("==", last, ir.Constant(I64, emit.lanes))

        def all_tiles(heights: str, width: int, last: Any) -> None:
            def block(i: Any, rows: int) -> None:
                _tile(emit, rows, width, least_unroll, i, k, matrices, last, add, far)

            emit.row_blocks(m, [int(height) for height in heights.split(",")], block)

        for heights, width in widths:
            with builder.if_then(builder.icmp_signed("==", vectors, ir.Constant(I64, int(width)))):
                if vector_registers() == 32:
                    all_tiles(heights, int(width), last)
                    continue
                for is_whole in emit.either(whole):  # a mask takes one of 16 registers, and more of AVX2
                    all_tiles(heights, int(width), None if is_whole else last)
        return context.get_dummy_value()

    return types.void(shapes, unroll, zero, types.int64, product, *[types.int64] * 3), codegen


def _tile(
    emit: Emitter, n_rows: int, n_vectors: int, least_unroll: int,
    i: Any, k: Any, matrices: list[Any], last: Any, add: Any, far: Any,
) -> None:  # fmt: skip
    """Emit one tile, from row ``i`` of A and C on; see :func:`panel`."""
    builder = emit.builder
    (a, a_row, a_step), (b, b_step, _), (c, c_row, _) = matrices
    width = n_rows * n_vectors
    chains = max(1, -(-_LATENCY // width))  # sums of their own
    unroll = max(chains, least_unroll)
    masks = [None] * (n_vectors - 1) + [emit.mask(last) if last else None]
    number = emit.constants(max(2 * n_rows, unroll) + 1)
    beside = emit.constants(n_vectors, emit.lanes * emit.size)
    # Meanwhile A's next rows are fetched, which lie one after the other or beside each other; or what is far.
    by_rows = builder.icmp_signed("<", a_step, a_row)
    ahead_step = builder.select(by_rows, builder.mul(a_step, number[n_rows]), a_step)
    is_far = builder.icmp_signed("!=", far, number[0])
    ahead_step = builder.select(is_far, b_step, ahead_step)
    first = emit.at(a, builder.mul(i, a_row))
    a_rows = [emit.at(first, builder.mul(number[r], a_row)) for r in range(n_rows)]
    line = builder.mul(i, ir.Constant(I64, LINE // _ROWS))
    a_next = emit.at(first, builder.mul(a_row, number[n_rows]))
    ahead = builder.select(is_far, emit.at(b, far, line), a_next)
    corner = emit.at(c, builder.mul(i, c_row))
    for r in range(n_rows):
        for j in range(n_vectors):
            emit.prefetch(emit.at(corner, builder.mul(number[r + n_rows], c_row), beside[j]), write=True)

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
        apart = [sums[chain * width : (chain + 1) * width] for chain in range(chains)]
        for u in range(unroll):
            apart[u % chains] = step(builder.add(p, number[u]), apart[u % chains])
        return [total for chain in apart for total in chain]

    *sums, p = emit.loop(number[0], k, unroll, [emit.zero] * (width * chains), steps)
    while len(sums) > width:
        pairs = zip(sums[:width], sums[width : 2 * width], strict=True)
        sums = [builder.fadd(x, y) for x, y in pairs] + sums[2 * width :]
    if unroll > 1:
        *sums, _ = emit.loop(p, k, 1, sums, step)
    places = [
        (emit.at(corner, builder.mul(number[r], c_row), beside[j]), masks[j])
        for r in range(n_rows)
        for j in range(n_vectors)
    ]
    for adds in emit.either(builder.icmp_signed("!=", add, number[0])):
        for total, place in zip(sums, places, strict=True):
            emit.store(builder.fadd(emit.load(*place), total) if adds else total, *place)


@emitted
def dots(typing_context: Any, columns: Any, zero: Any, product: Any, add: Any) -> Any:
    """Do a product of the literal number of ``columns``, A's rows and B's columns contiguous: C = A B or C += A B.

    The vectors lie along k: no lane is idle where columns are few.
    """
    n_columns = columns.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, zero, product, add = args
        emit = Emitter(builder, zero.type)
        m, k, _, *matrices = emit.unpack(product)
        (a, a_row, _), (b, _, b_column), (c, c_row, c_column) = [emit.unpack(matrix) for matrix in matrices]
        number = emit.constants(max(*_DOTS_ROWS, n_columns))
        b_columns = [emit.at(b, builder.mul(number[j], b_column)) for j in range(n_columns)]
        size = ir.Constant(I64, emit.size)
        adding = builder.icmp_signed("!=", add, number[0])

        def block(i: Any, n_rows: int) -> None:
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
                address = emit.at(corner, builder.mul(number[r], c_row), builder.mul(number[j], c_column))
                pointer = builder.inttoptr(address, zero.type.as_pointer())
                before = builder.select(adding, builder.load(pointer), ir.Constant(zero.type, 0.0))
                builder.store(builder.fadd(before, emit.sum(total)), pointer)

        emit.row_blocks(m, _DOTS_ROWS, block)
        return context.get_dummy_value()

    return types.void(columns, zero, product, types.int64), codegen


@emitted
def m_vectorised(typing_context: Any, groups: Any, columns: Any, zero: Any, product: Any) -> Any:
    """C = A B for at most ``columns`` columns, with vectors along the rows of C, for which A is transposed.

    Whole blocks of ``groups`` vectors' rows only. A's rows must be contiguous; B is packed, ``columns`` elements a row.
    """
    n_groups, n_columns = groups.literal_value, columns.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, zero, product = args
        emit = Emitter(builder, zero.type)
        m, k, last, *matrices = emit.unpack(product)
        (a, a_row, _), (b, _, _), (c, c_row, _) = [emit.unpack(matrix) for matrix in matrices]
        lanes, piece = emit.lanes, emit.piece
        n_rows = n_groups * lanes
        number, beside = emit.constants(n_rows), emit.constants(n_columns, emit.size)
        starts = range(0, n_columns, lanes)
        masks = [emit.mask(builder.sub(last, ir.Constant(I64, start))) for start in starts]
        size, b_step = (ir.Constant(I64, count * emit.size) for count in (1, n_columns))
        kept = [cgutils.alloca_once(builder, emit.vector, piece) for _ in range(n_groups)]  # type: ignore[no-untyped-call]

        def block(i: Any, _: int) -> None:
            first = emit.at(a, builder.mul(i, a_row))
            rows = [emit.at(first, builder.mul(number[r], a_row)) for r in range(n_rows)]
            corner = emit.at(c, builder.mul(i, c_row))
            blocks_on = ir.Constant(I64, _BLOCKS_AHEAD * n_rows)
            ahead, corner_ahead = (
                emit.at(place, builder.mul(blocks_on, row)) for place, row in ((first, a_row), (corner, c_row))
            )
            for r in range(n_rows):
                emit.prefetch(emit.at(corner_ahead, builder.mul(number[r], c_row)), write=True)

            def transposed(p: Any, mask: Any = None) -> list[list[Any]]:
                along = [emit.at(row, builder.mul(p, size)) for row in rows]
                return [emit.load_transposed(along[g * lanes : (g + 1) * lanes], mask) for g in range(n_groups)]

            def step(p: Any, xs: list[Any], sums: list[Any]) -> list[Any]:
                """Do one column of A, a vector for each group."""
                b_row = emit.at(b, builder.mul(p, b_step))
                ys = (splat(builder, emit.load_scalar(emit.at(b_row, offset)), lanes) for offset in beside)
                pairs = [(x, y) for y in ys for x in xs]
                return [fma(builder, x, y, total) for (x, y), total in zip(pairs, sums, strict=True)]

            def steps(p: Any, sums: list[Any]) -> list[Any]:
                along = builder.mul(p, ir.Constant(I64, n_rows * emit.size))
                for line in range(0, n_rows * piece * emit.size, LINE):
                    emit.prefetch(emit.at(ahead, along, ir.Constant(I64, line)))
                for q, xs in enumerate(zip(*transposed(p), strict=True)):
                    sums = step(builder.add(p, number[q]), list(xs), sums)
                return sums

            *sums, p = emit.loop(number[0], k, piece, [emit.zero] * (n_groups * n_columns), steps)
            rest = builder.sub(k, p)
            with builder.if_then(builder.icmp_signed(">", rest, number[0])):
                for place, vectors in zip(kept, transposed(p, emit.mask(rest, piece)), strict=True):
                    for q, vector in enumerate(vectors):
                        builder.store(vector, builder.gep(place, [number[q]]))

            def one_more(q: Any, sums: list[Any]) -> list[Any]:
                xs = [builder.load(builder.gep(place, [q])) for place in kept]
                return step(builder.add(p, q), xs, sums)

            *sums, _ = emit.loop(number[0], rest, 1, sums, one_more)
            for g in range(n_groups):
                of_group = [*sums[g::n_groups], *[emit.zero] * (-n_columns % lanes)]
                for start, mask in zip(starts, masks, strict=True):
                    for r, row in enumerate(emit.transpose(of_group[start : start + lanes])):
                        place = emit.at(corner, builder.mul(number[g * lanes + r], c_row), beside[start])
                        emit.store(row, place, mask)

        emit.row_blocks(m, [n_rows], block)
        return context.get_dummy_value()

    return types.void(groups, columns, zero, product), codegen
