"""Tiles: a product written in Python that runs at the roof of the machine.

**Why tiles.** The compiled triple loop reads two numbers from memory for every multiplication. A tile of, say, 6 x 64
elements of C needs 6 numbers of A and 64 of B for its next 384 multiplications: 11 for each number read.

**Why registers.** Those 384 sums are 24 vectors of 16. They stay in the processor's registers from the first to the
last step along k, so that nothing is stored until the tile is done; 24 sums that do not wait for each other also hide
how long each multiply-add takes. What is left of a step is one load for each vector of B and one broadcast for each
row of A: little enough to hide behind the arithmetic. :mod:`~matmulbench.ladder.tiled.tiles` emits that step.

**Why blocks.** A panel of B, a few vectors wide, is used by all rows of A in turn. Cut along k into blocks, it stays
in the second cache, and so does the block of A that all panels meet. Tiles add to C, block after block.

**Why packing.** Only B's rows need to be contiguous. Where they are not (a transposed view), and where many rows
will use them, a panel is first copied into one piece: k x n copies for m x k x n multiplications. The memory for it is
kept from one call to the next.

**Edges.** Rows that fill no tile are done by smaller tiles. Columns that fill no vector are done with the vector's
other lanes masked or, if there is enough to do, with vectors along k: 50 columns are 3 vectors of 16, and 2 that
would cost as much as 16. Where A is stored by columns and they fill vectors better than B's rows, C is made transposed;
where there are ten columns at most, vectors stand upright, along the rows of C, and A is turned in registers for them.

**Calls.** A product of a few microseconds takes less time than Python needs to look at its operands. So Python calls
compiled code with the tensors as they are: see :mod:`~matmulbench.ladder.tiled.exchange`.

Threads share out rows or columns of C, never a sum: with the same number of threads the same operands give the same
bits. After Goto & van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34, 2008, and Van Zee &
van de Geijn, *BLIS*, ACM TOMS 41, 2015.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import llvmlite.binding as llvm
import numba
import numpy as np
import torch
from numba import types

from matmulbench.ladder.operands import sizes
from matmulbench.ladder.tiled.exchange import (
    FLOAT32,
    FLOAT64,
    argument,
    new_matrix,
    none,
    python_function,
    to_python,
    view,
)
from matmulbench.ladder.tiled.tiles import dots, tiles, upright
from matmulbench.ladder.tiled.vectors import (
    FORCED_BITS,
    LINE,
    address,
    call,
    fetch,
    move,
    turn,
    vector_bits,
    vector_registers,
)

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("numba-tiled needs Python's global lock: all calls share the memory for what they prepare")

# numba's cache on disk sees changes of this file alone, so that those of what is emitted have to show here: the test of
# this digest says what it must be.
EMITTED = "4eb6ac3e3819"

VECTOR = vector_bits() // 8  # bytes
WIDEST = 4 if vector_registers() == 32 else 2  # vectors of a tile
ROWS_OF_2 = 8 if vector_registers() == 32 else 6  # so many that no sum is spilled to memory
UPRIGHT = 2 if vector_registers() == 32 else 1  # vectors of an upright tile
NARROW = 10  # columns of C at most, for upright tiles
BLOCK_K, BLOCK_M = 256, 128  # so that a block of A and one of B's panels stay in the second cache
NEAR_K = 64  # steps of a block so that a panel of B, and A's rows for it, stay in the first cache
DEEP = 1024  # steps along k of a block, where those of A are neighbours
SMALL = 4096  # elements of B that stay in the first cache as they are
MANY_ROWS = 256  # make it worth while to pack panels that could be used in place
FEW_ROWS = 32  # are not worth preparing anything for
TURNED = 2**16  # elements of C that are turned at once
# Bytes of memory that a thread keeps for what it prepares: C turned, single columns of B, panels of B. To get it anew
# for each product, page by page, would take up to a third of the time.
FOR_TURNED, FOR_COLUMNS, FOR_PANELS = 2**20, 2**17, 2**23
KEPT = FOR_TURNED + FOR_COLUMNS + FOR_PANELS
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
    """What a thread works with: addresses of functions for an element type, and of memory; bytes of an element."""

    panel: int
    dots: int
    upright: int
    copy: int
    size: int
    for_turned: int
    for_columns: int
    for_panels: int


def _panel_of(zero: Any) -> Any:
    def panel(
        vectors: int, m: int, k: int, a: int, a_row: int, a_step: int, b: int, b_step: int,
        c: int, c_row: int, last: int, add: int, far: int,
    ) -> None:  # fmt: skip
        if vectors == 4 and m % 6 and m % 5 == 0:  # no rows are left over
            tiles(5, 4, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
        elif vectors == 4:
            i = tiles(6, 4, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            i = tiles(2, 4, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            tiles(1, 4, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
        elif vectors == 3:
            i = tiles(8, 3, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            i = tiles(2, 3, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            tiles(1, 3, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
        elif vectors == 2:
            i = tiles(ROWS_OF_2, 2, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            i = tiles(2, 2, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            tiles(1, 2, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
        else:
            i = tiles(8, 1, zero, 0, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            i = tiles(5, 1, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            i = tiles(2, 1, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)
            tiles(1, 1, zero, i, m, k, a, a_row, a_step, b, b_step, c, c_row, last, add != 0, far)

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


def _upright_of(zero: Any) -> Any:
    def all_upright(m: int, k: int, a: int, a_row: int, b: int, c: int, c_row: int, last: int) -> None:
        upright(UPRIGHT, NARROW, zero, m, k, a, a_row, b, c, c_row, last)

    return all_upright


def _copy_of(zero: Any) -> Any:
    size, lanes = zero.itemsize, VECTOR // zero.itemsize

    def copy(rows: int, columns: int, to: int, to_row: int, source: int, row: int, column: int) -> None:
        if column == size:
            for i in range(rows):
                for j in range(0, columns, lanes):
                    move(zero, to + i * to_row + j * size, source + i * row + j * size, columns - j)
        elif row == size:
            for j in range(0, columns, lanes):
                for i in range(0, rows, lanes):
                    here, there = to + i * to_row + j * size, source + i * size + j * column
                    turn(zero, min(lanes, rows - i), min(lanes, columns - j), here, to_row, there, column)
        else:
            for i in range(rows):
                for j in range(columns):
                    move(zero, to + i * to_row + j * size, source + i * row + j * column, 1)

    return copy


@_jit
def _parts(size: int, thread: int) -> Parts:
    kept = address("matmulbench_kept") + thread * KEPT
    at = kept, kept + FOR_TURNED, kept + FOR_TURNED + FOR_COLUMNS
    if size == 4:
        return Parts(
            address("matmulbench_panel_4"), address("matmulbench_dots_4"),
            address("matmulbench_upright_4"), address("matmulbench_copy_4"), 4, *at,
        )  # fmt: skip
    return Parts(
        address("matmulbench_panel_8"), address("matmulbench_dots_8"),
        address("matmulbench_upright_8"), address("matmulbench_copy_8"), 8, *at,
    )  # fmt: skip


@_jit
def _from(x: Matrix, i: int, j: int) -> Matrix:
    """Return ``x`` from row ``i`` and column ``j`` on."""
    return Matrix(x.at + i * x.row + j * x.column, x.row, x.column)


@_jit
def _turned(x: Matrix) -> Matrix:
    """Return the transposed view."""
    return Matrix(x.at, x.column, x.row)


@_jit
def _panel(
    parts: Parts, vectors: int, m: int, k: int, a: Matrix, b: Matrix, c: Matrix, last: int, add: bool, far: int
) -> None:
    """C = A B or C += A B for ``vectors`` vectors' width of B and C, ``last`` elements of the last vector."""
    call(parts.panel, (vectors, m, k, a.at, a.row, a.column, b.at, b.row, c.at, c.row, last, int(add), far))


@_jit
def _dots(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix, add: bool) -> None:
    """C = A B or C += A B, where A's rows and B's columns are contiguous."""
    call(parts.dots, (m, k, n, a.at, a.row, b.at, b.column, c.at, c.row, c.column, int(add)))


@_jit
def _fetch(size: int, rows: int, columns: int, x: Matrix) -> None:
    """Ask for a matrix that is stored by rows or by columns to be brought to the cache."""
    runs, length, to_next = (columns, rows, x.column) if x.row < x.column else (rows, columns, x.row)
    for run in range(runs):
        for line in range(0, length * size, LINE):
            fetch(x.at + run * to_next + line)


@_jit
def _upright(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B for few columns, where A's rows are contiguous, and B's are packed, NARROW elements each."""
    call(parts.upright, (m, k, a.at, a.row, b.at, c.at, c.row, n))


@_jit
def _copy(parts: Parts, rows: int, columns: int, target: Matrix, source: Matrix) -> None:
    """Copy a matrix to where its rows are contiguous."""
    call(parts.copy, (rows, columns, target.at, target.row, source.at, source.row, source.column))


@_jit
def _in_place(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B, panel by panel, nothing prepared; B's rows must be contiguous."""
    size = parts.size
    lanes = VECTOR // size
    for j in range(0, n, WIDEST * lanes):
        width = min(WIDEST, -(-(n - j) // lanes))
        last = min(lanes, n - j - (width - 1) * lanes)
        _panel(parts, width, m, k, a, _from(b, 0, j), _from(c, 0, j), last, False, 0)


@_jit
def _is_narrow(n: int, lanes: int) -> bool:
    """Whether so few columns leave more lanes idle, lying along C's rows, than an upright tile wastes."""
    return NARROW // 2 < n <= NARROW and 4 * n <= 3 * lanes * -(-n // lanes)


@_jit
def _narrow(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B for few columns, with vectors along the rows of C."""
    size = parts.size
    packed = Matrix(parts.for_columns, NARROW * size, size)
    _copy(parts, k, n, packed, b)
    rows = UPRIGHT * VECTOR // size
    whole = m // rows * rows
    _upright(parts, whole, k, n, a, packed, c)
    _in_place(parts, m - whole, k, n, _from(a, whole, 0), packed, _from(c, whole, 0))


@_jit
def _multiply(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B on one thread: as it stands or, if A is stored by columns and that fills vectors better, turned."""
    size = parts.size
    lanes = VECTOR // size
    if a.row != size or k < lanes or n > TURNED // lanes or n * -(-m // lanes) >= m * -(-n // lanes):
        _straight(parts, m, k, n, a, b, c)
    elif n == 1 and c.row == size:
        _straight(parts, 1, k, m, _turned(b), _turned(a), _turned(c))
    else:
        columns = min(m, TURNED // n // lanes * lanes + lanes)
        c_turned = Matrix(parts.for_turned, columns * size, size)
        for first in range(0, m, columns):
            here = min(columns, m - first)
            _straight(parts, n, k, here, _turned(b), _turned(_from(a, first, 0)), c_turned)
            _copy(parts, here, n, _from(c, first, 0), _turned(c_turned))


@_jit
def _straight(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B with vectors along the rows of B and C, or along k: choose the path."""
    size = parts.size
    lanes = VECTOR // size
    along_k = a.column == size and b.row == size
    if along_k and (n == 1 or (m < FEW_ROWS and b.column != size and k >= lanes)):
        _dots(parts, m, k, n, a, b, c, False)
    elif a.column == size and k <= DEEP and m >= 2 * FEW_ROWS and _is_narrow(n, lanes):
        _narrow(parts, m, k, n, a, b, c)
    elif b.column == size and k <= DEEP and (m < MANY_ROWS or k * n <= SMALL) and not _pays(parts, m, k, n, a):
        _in_place(parts, m, k, n, a, b, c)
    else:
        columns = FOR_PANELS // (DEEP * size)
        for j in range(0, n, columns):
            _in_blocks(parts, m, k, min(columns, n - j), a, _from(b, 0, j), _from(c, 0, j))


@_jit
def _pays(parts: Parts, m: int, k: int, n: int, a: Matrix) -> bool:
    """Whether to do the columns that fill no vector by vectors along k."""
    lanes = VECTOR // parts.size
    rest = n % lanes
    return rest > 0 and 4 * rest <= 3 * lanes and m >= FEW_ROWS and k >= 256 and a.column == parts.size


@_jit
def _in_blocks(parts: Parts, m: int, k: int, n: int, a: Matrix, b: Matrix, c: Matrix) -> None:
    """C = A B, block by block along k and m."""
    size = parts.size
    lanes = VECTOR // size
    along_k = _pays(parts, m, k, n, a)
    rest = n % lanes if along_k else 0
    wide = n - rest  # columns done in panels
    vectors = -(-wide // lanes)
    panels = -(-vectors // WIDEST)
    packing = b.column != size or m >= MANY_ROWS
    block_k = DEEP if a.column == size else BLOCK_K
    streaming = k > block_k and not packing  # B is read once, from memory: a panel of it need not stay for long
    if streaming:
        block_k = NEAR_K
    for p in range(0, k, block_k):
        steps = min(block_k, k - p)
        add = p > 0
        if streaming:
            _fetch(size, m, min(block_k, k - p - steps), _from(a, 0, p + steps))
        b_columns = Matrix(parts.for_columns, size, steps * size)
        if along_k:
            _copy(parts, rest, steps, _turned(b_columns), _turned(_from(b, p, wide)))
        for first in range(0, m, BLOCK_M):
            rows = min(BLOCK_M, m - first)
            done = 0  # vectors
            for panel in range(panels):
                width = (vectors - done) // (panels - panel)
                j = done * lanes
                here = min(width * lanes, wide - j)
                b_panel = _from(b, p, j)
                if packing:
                    b_panel = Matrix(parts.for_panels + steps * j * size, width * VECTOR, size)
                    if first == 0:
                        _copy(parts, steps, here, b_panel, _from(b, p, j))
                last = here - (width - 1) * lanes
                far = 0
                if streaming:  # to the next panel
                    far = width * VECTOR if panel < panels - 1 else block_k * b.row - j * size
                _panel(parts, width, rows, steps, _from(a, first, p), b_panel, _from(c, first, j), last, add, far)
                done += width
            if along_k:
                _dots(parts, rows, steps, rest, _from(a, first, p), b_columns, _from(c, first, wide), add)


def _share(
    thread: int, threads: int, size: int, m: int, k: int, n: int,
    a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int, c: int,
) -> None:  # fmt: skip
    """Do one thread's share of C's rows or, if few, columns."""
    parts = _parts(size, thread)
    of_a = Matrix(a, a_row * size, a_column * size)
    of_b = Matrix(b, b_row * size, b_column * size)
    of_c = Matrix(c, n * size, size)
    by_rows = m > n or n < 64 * threads
    unit = VECTOR // size if by_rows else WIDEST * VECTOR // size
    share = -(-(m if by_rows else n) // (unit * threads)) * unit
    first = thread * share
    if by_rows:
        _multiply(parts, max(0, min(share, m - first)), k, n, _from(of_a, first, 0), of_b, _from(of_c, first, 0))
    else:
        _multiply(parts, m, k, max(0, min(share, n - first)), of_a, _from(of_b, 0, first), _from(of_c, 0, first))


def _all_shares(
    threads: int, size: int, m: int, k: int, n: int,
    a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int, c: int,
) -> None:  # fmt: skip
    for thread in numba.prange(threads):
        all_of_it = thread, threads, size, m, k, n, a, a_row, a_column, b, b_row, b_column, c
        call(address("matmulbench_share"), all_of_it)


_together = cast("Callable[..., None]", numba.njit(parallel=True, **_OPTIONS)(_all_shares))


# numba.get_num_threads() itself keeps a function that calls it out of the cache on disk.
_get_num_threads = types.ExternalFunction("get_num_threads", types.int32())


def _product(unused: int, arguments: int, count: int) -> Any:
    """Return the product of two tensors, or None of those that need a closer look."""
    kind, a, m, k, a_row, a_column = view(argument(arguments, 0))
    b_kind, b, b_rows, n, b_row, b_column = view(argument(arguments, 1))
    if kind != b_kind or (kind != FLOAT32 and kind != FLOAT64) or k != b_rows or k == 0:
        return none()
    handle, c = new_matrix(kind, m, n)
    if handle == 0:
        return none()
    size = 4 if kind == FLOAT32 else 8
    threads = _get_num_threads() if m * k * n >= THREADING else 1
    if threads == 1:
        all_of_it = 0, 1, size, m, k, n, a, a_row, a_column, b, b_row, b_column, c
        call(address("matmulbench_share"), all_of_it)
    else:
        _together(threads, size, m, k, n, a, a_row, a_column, b, b_row, b_column, c)
    return to_python(handle)


_KEPT: list[Any] = []  # what the addresses belong to: code and memory must not go while they can be used


def _compiled(function: Any, result: Any, count: int) -> Any:
    """Compile ``function``, which takes ``count`` integers, or find it in the cache on disk."""
    compiled = numba.cfunc(result(*[types.int64] * count), **_OPTIONS)(function)
    _KEPT.append(compiled)
    return compiled


def _compile(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """Compile everything for both dtypes, then multiply."""
    global _fast
    numba.get_num_threads()  # starts the threads
    for zero in (np.float32(0), np.float64(0)):
        for name, make, count in (
            ("panel", _panel_of, 13),
            ("dots", _dots_of, 11),
            ("upright", _upright_of, 8),
            ("copy", _copy_of, 7),
        ):
            part = _compiled(make(zero), types.void, count)
            llvm.add_symbol(f"matmulbench_{name}_{zero.itemsize}", part.address)
    threads = cast("Any", numba.config).NUMBA_NUM_THREADS  # as many as there can be
    kept = np.empty(threads * KEPT + VECTOR, np.uint8)  # pages are the system's until they are written to
    llvm.add_symbol("matmulbench_kept", -(-kept.ctypes.data // VECTOR) * VECTOR)
    _KEPT.append(kept)
    llvm.add_symbol("matmulbench_share", _compiled(_share, types.void, 13).address)
    _fast = product = python_function("product", _compiled(_product, types.int64, 3))
    return cast("torch.Tensor | None", product(a, b))


_fast: Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None] = _compile


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), both float32 or both float64, of any strides.

    Raises
    ------
    ValueError
        if the inner sizes differ.
    TypeError
        if the dtypes differ or are others, or an operand is no tensor in the CPU's memory.
    """
    c = _fast(a, b)
    return _unusual(a, b) if c is None else c


def _unusual(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Say what is wrong with the operands, or return the product of none."""
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name} is a {type(x).__name__}; a torch tensor is needed")
    m, k, n = sizes(a, b)
    if a.dtype != b.dtype:
        raise TypeError(f"dtypes differ: a is {a.dtype}, b is {b.dtype}")
    if a.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype {a.dtype}; float32 or float64 is needed")
    c = torch.empty(m, n, dtype=a.dtype)  # says so where there is no memory
    if k:
        raise TypeError(f"operands on {a.device} and {b.device}; the CPU's memory is needed")
    return c.zero_()
