"""Tiles: a product written in Python that runs at the roof of the machine.

**Why tiles.** The compiled triple loop reads two numbers from memory for every multiplication. A tile of, say, 6 x 64
elements of C needs 6 numbers of A and 64 of B for its next 384 multiplications: 11 for each number read.

**Why registers.** Those 384 sums are 24 vectors of 16. They stay in the processor's registers from the first to the
last step along k, so that nothing is stored until the tile is done; 24 sums that do not wait for each other also hide
how long each multiply-add takes. What is left of a step is one load for each vector of B and one broadcast for each
row of A: little enough to hide behind the arithmetic. :mod:`~matmulbench.ladder.vectors` emits that step.

**Why blocks.** A panel of B, a few vectors wide, is used by all rows of A in turn. Cut along k into blocks, it stays
in the second cache, and so does the block of A that all panels meet. Tiles add to C, block after block.

**Why packing.** Only B's rows need to be contiguous. Where they are not (a transposed view), and where many rows
will use them, a panel is first copied into one piece: k x n copies for m x k x n multiplications.

**Edges.** Rows that fill no tile are done by smaller tiles. Columns that fill no vector are done with the vector's
other lanes masked, or, if there is enough to do, with vectors that lie along k (A's rows are contiguous) or along m
(A's columns are): 50 columns are 3 vectors of 16, and 2 that would cost as much as 16.

After Goto & van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34, 2008, and Van Zee &
van de Geijn, *BLIS*, ACM TOMS 41, 2015. Threads share out
rows or columns of C, never a sum: with the same number of threads the same operands give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import torch
from numba import types

from matmulbench.ladder.operands import sizes
from matmulbench.ladder.vectors import FORCED_BITS, call, dots, move, tiles, vector_bits, vector_registers

VECTOR = vector_bits() // 8  # bytes
WIDEST = 4 if vector_registers() == 32 else 2  # vectors of a tile
ROWS_OF_2 = 8 if vector_registers() == 32 else 6  # so many that no sum is spilled to memory
BLOCK_K, BLOCK_M = 256, 128  # so that a block of A and one of B's panels stay in the second cache
DEEP = 1024  # steps along k that need no block
SMALL = 4096  # elements of B that stay in the first cache as they are
MANY_ROWS = 256  # make it worth while to pack panels that could be used in place
FEW_ROWS = 32  # are not worth preparing anything for
THREADING = 250_000  # multiplications; below, waking a thread takes longer than it saves

_F = TypeVar("_F", bound=Callable[..., Any])

# A width that is forced for a test must not be found in the machine's own cache.
_OPTIONS: dict[str, Any] = {"cache": not FORCED_BITS, "error_model": "numpy"}
_jit = cast("Callable[[_F], _F]", numba.njit(**_OPTIONS))


class Matrix(NamedTuple):
    """Where a matrix lies: the address of its first element, and the bytes to the next row and the next column."""

    at: int
    row: int
    column: int


class Parts(NamedTuple):
    """What is compiled for an element type: the addresses of two functions, and the bytes of an element."""

    panel: int
    dots: int
    size: int


def _panel_of(zero: Any) -> Any:
    def panel(
        vectors: int, m: int, k: int, a: int, a_row: int, a_step: int, b: int, b_step: int,
        c: int, c_row: int, last: int, add: int,
    ) -> None:  # fmt: skip
        if vectors == 4:
            i = tiles(6, 4, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            i = tiles(2, 4, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            tiles(1, 4, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
        elif vectors == 3:
            i = tiles(8, 3, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            i = tiles(2, 3, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            tiles(1, 3, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
        elif vectors == 2:
            i = tiles(ROWS_OF_2, 2, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            i = tiles(2, 2, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            tiles(1, 2, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
        else:
            i = tiles(8, 1, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            i = tiles(5, 1, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            i = tiles(2, 1, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)
            tiles(1, 1, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0)

    return panel


def _dots_of(zero: Any) -> Any:
    def all_dots(
        m: int, k: int, n: int, a: int, a_row: int, b: int, b_column: int, c: int, c_row: int, c_column: int, add: int
    ) -> None:
        for j in range(0, n - 1, 2):
            i = dots(8, 2, zero, 0, m, k, a, a_row, b + j * b_column, b_column, c + j * c_column, c_row, add != 0)
            dots(1, 2, zero, i, m, k, a, a_row, b + j * b_column, b_column, c + j * c_column, c_row, add != 0)
        if n % 2:
            j = n - 1
            i = dots(8, 1, zero, 0, m, k, a, a_row, b + j * b_column, b_column, c + j * c_column, c_row, add != 0)
            dots(1, 1, zero, i, m, k, a, a_row, b + j * b_column, b_column, c + j * c_column, c_row, add != 0)

    return all_dots


_COMPILED: dict[torch.dtype, Parts] = {}
_KEPT: list[Any] = []  # what the addresses belong to: code must not go while it can be called


def _compile(zero: Any) -> Parts:
    """Compile the two functions for elements of ``zero``'s type, or find them in the cache on disk."""
    panel, all_dots = (
        numba.cfunc(types.void(*[types.int64] * count), **_OPTIONS)(function)
        for function, count in ((_panel_of(zero), 12), (_dots_of(zero), 11))
    )
    _KEPT.extend((panel, all_dots))
    return Parts(cast(int, panel.address), cast(int, all_dots.address), zero.itemsize)


@_jit
def _from(x: Matrix, i: int, j: int) -> Matrix:
    """Return ``x`` from row ``i`` and column ``j`` on."""
    return Matrix(x.at + i * x.row + j * x.column, x.row, x.column)


@_jit
def _turned(x: Matrix) -> Matrix:
    """Return the transposed view."""
    return Matrix(x.at, x.column, x.row)


@_jit
def _panel(parts: Parts, vectors: int, m: int, k: int, a: Matrix, b: Matrix, c: Matrix, last: int, add: bool) -> None:
    """C = A B or C += A B for ``vectors`` vectors' width of B and C, ``last`` elements of the last vector."""
    call(parts.panel, (vectors, m, k, a.at, a.row, a.column, b.at, b.row, c.at, c.row, last, int(add)))


@_jit
def _dots(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix, add: bool) -> None:
    """C = A B or C += A B, where A's rows and B's columns are contiguous."""
    call(parts.dots, (m, k, n, a.at, a.row, b.at, b.column, c.at, c.row, c.column, int(add)))


@_jit
def _copy(size: int, rows: int, columns: int, target: Matrix, source: Matrix) -> None:
    for i in range(rows):
        to, origin = target.at + i * target.row, source.at + i * source.row
        if size == 4:
            for j in range(columns):
                move(4, to + j * target.column, origin + j * source.column)
        else:
            for j in range(columns):
                move(8, to + j * target.column, origin + j * source.column)


@_jit
def _buffer(count: int, size: int) -> Any:
    return np.empty(count * size + VECTOR, np.uint8)


@_jit
def _aligned(buffer: Any) -> int:
    return int(buffer.ctypes.data + VECTOR - 1) // VECTOR * VECTOR


@_jit
def _in_place(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix, add: bool) -> None:
    """C = A B or C += A B, panel by panel, nothing prepared; B's rows must be contiguous."""
    size = parts.size
    lanes = VECTOR // size
    for j in range(0, n, WIDEST * lanes):
        width = min(WIDEST, -(-(n - j) // lanes))
        last = min(lanes, n - j - (width - 1) * lanes)
        _panel(parts, width, m, k, a, _from(b, 0, j), _from(c, 0, j), last, add)


@_jit
def _multiply(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B on one thread: choose the path."""
    size = parts.size
    lanes = VECTOR // size
    along_k = a.column == size and b.row == size
    if n == 1 and a.row == size and c.row == size:
        _in_place(parts, 1, k, m, _turned(b), _turned(a), _turned(c), False)
    elif along_k and (n == 1 or (m < FEW_ROWS and b.column != size and k >= lanes)):
        _dots(parts, m, k, n, a, b, c, False)
    elif b.column == size and k <= DEEP and (m < MANY_ROWS or k * n <= SMALL) and not _pays(parts, m, k, n, a):
        _in_place(parts, m, k, n, a, b, c, False)
    else:
        _in_blocks(parts, m, k, n, a, b, c)


@_jit
def _pays(parts: Parts, m: int, k: int, n: int, a: Matrix) -> bool:
    """Whether to do the columns that fill no vector by vectors along k or m."""
    lanes = VECTOR // parts.size
    rest = n % lanes
    if not rest or 4 * rest > 3 * lanes or m < FEW_ROWS:
        return False
    return k >= 256 if a.column == parts.size else a.row == parts.size and k >= 32 and m >= 8 * lanes


@_jit
def _in_blocks(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B, block by block along k and m."""
    size = parts.size
    lanes = VECTOR // size
    rest = n % lanes
    other = _pays(parts, m, k, n, a)
    along_k, along_m = other and a.column == size, other and a.column != size
    wide = n - rest if along_k or along_m else n  # columns done in panels
    vectors = -(-wide // lanes)
    panels = -(-vectors // WIDEST)
    packing = b.column != size or m >= MANY_ROWS
    block_k = k if k <= DEEP and a.column == size else BLOCK_K
    packed = _buffer(min(k, block_k) * vectors * lanes if packing else 0, size)
    columns = _buffer(block_k * rest if along_k else 0, size)
    turned = _buffer(rest * m if along_m else 0, size)
    c_turned = Matrix(_aligned(turned), m * size, size)
    for p in range(0, k, block_k):
        steps = min(block_k, k - p)
        add = p > 0
        b_columns = Matrix(_aligned(columns), size, steps * size)
        if along_k:
            _copy(size, rest, steps, _turned(b_columns), _turned(_from(b, p, wide)))
        for first in range(0, m, BLOCK_M):
            rows = min(BLOCK_M, m - first)
            done = 0  # vectors
            for panel in range(panels):
                width = (vectors - done) // (panels - panel)
                j = done * lanes
                here = min(width * lanes, wide - j)
                b_panel = _from(b, p, j)
                if packing:
                    b_panel = Matrix(_aligned(packed) + steps * j * size, width * VECTOR, size)
                    if first == 0:
                        _copy(size, steps, here, b_panel, _from(b, p, j))
                last = here - (width - 1) * lanes
                _panel(parts, width, rows, steps, _from(a, first, p), b_panel, _from(c, first, j), last, add)
                done += width
            if along_k:
                _dots(parts, rows, steps, rest, _from(a, first, p), b_columns, _from(c, first, wide), add)
        if along_m:
            a_turned, b_turned = _turned(_from(a, 0, p)), _turned(_from(b, p, wide))
            _in_place(parts, rest, steps, m, b_turned, a_turned, c_turned, add)
    if along_m:
        _copy(size, m, rest, _from(c, 0, wide), _turned(c_turned))


@_jit
def _share(
    thread: int, threads: int, panel: int, dots: int, size: int, m: int, k: int, n: int,
    a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int, c: int,
) -> None:  # fmt: skip
    """Do one thread's share of C's rows or, if few, columns. Integers alone: numba takes those over soonest."""
    parts = Parts(panel, dots, size)
    of_a = Matrix(a, a_row * size, a_column * size)
    of_b = Matrix(b, b_row * size, b_column * size)
    of_c = Matrix(c, n * size, size)
    by_rows = m >= n or m >= 64 * threads
    unit = 8 if by_rows else WIDEST * VECTOR // size
    share = -(-(m if by_rows else n) // (unit * threads)) * unit
    first = thread * share
    if by_rows:
        _multiply(parts, max(0, min(share, m - first)), k, n, _from(of_a, first, 0), of_b, _from(of_c, first, 0))
    else:
        _multiply(parts, m, k, max(0, min(share, n - first)), of_a, _from(of_b, 0, first), _from(of_c, 0, first))


def _all_shares(
    threads: int, panel: int, dots: int, size: int, m: int, k: int, n: int,
    a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int, c: int,
) -> None:  # fmt: skip
    for thread in numba.prange(threads):
        _share(thread, threads, panel, dots, size, m, k, n, a, a_row, a_column, b, b_row, b_column, c)


_together = cast("Callable[..., None]", numba.njit(parallel=True, **_OPTIONS)(_all_shares))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), both float32 or both float64, of any strides.

    Raises
    ------
    ValueError
        if the inner sizes differ.
    TypeError
        if the dtypes differ, or are others.
    """
    m, k = a.shape
    k_b, n = b.shape
    dtype = a.dtype
    parts = _COMPILED.get(dtype)
    if parts is None or k != k_b or not k or b.dtype is not dtype:
        return _first_or_unusual(a, b)
    c = torch.empty(m, n, dtype=dtype)
    work = *parts, m, k, n, a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride(), c.data_ptr()
    if m * k * n < THREADING or (threads := numba.get_num_threads()) == 1:
        _share(0, 1, *work)
    else:
        _together(threads, *work)
    return c


def _first_or_unusual(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Do what is not worth asking for at every call: check the operands, and compile for their dtype."""
    m, k, n = sizes(a, b)
    if a.dtype != b.dtype:
        raise TypeError(f"dtypes differ: a is {a.dtype}, b is {b.dtype}")
    if a.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype {a.dtype}; float32 or float64 is needed")
    if not k:
        return torch.zeros(m, n, dtype=a.dtype)
    _COMPILED[a.dtype] = _compile(np.float32(0) if a.dtype == torch.float32 else np.float64(0))
    return matmul(a, b)
