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
would cost as much as 16. Where A is stored by columns and they fill vectors better than B's rows, the transposed
product is done; where there are ten columns at most, vectors lie along the rows of C, and A is transposed in registers
for them.

**bfloat16.** A bfloat16 is the upper half of a float32. Panels of B and blocks of A are widened while they are packed,
and the tiles are float32's, as are all sums, kept in float32 from block to block along k. The result is rounded once,
to nearest, ties to even. Instructions for bfloat16, which some processors have and this does without, do two steps
along k at once.

**Calls.** A product of a few microseconds takes less time than Python needs to look at its operands. So Python calls
compiled code with the tensors as they are: see :mod:`~matmulbench.ladder.tiled.exchange`.

Threads share out rows or columns of C or, where k is much larger than these, the steps along k, and their sums are
added in order. So with the same number of threads the same operands give the same bits, as long as the *plan* is the
same: what is best on some processors only is looked up in a table, which
:mod:`~matmulbench.ladder.tiled.plan` describes and ``matmulbench tune`` fills.

After Goto & van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34, 2008, and Van Zee &
van de Geijn, *BLIS*, ACM TOMS 41, 2015.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
import torch
from numba import types

from matmulbench.ladder.operands import sizes
from matmulbench.ladder.tiled.blocks import (
    KEPT,
    NARROW,
    NARROW_VECTORS,
    VECTOR,
    Matrix,
    Product,
    Tools,
    add_up,
    by_steps,
    multiply_share,
    offset,
    part,
)
from matmulbench.ladder.tiled.exchange import (
    BFLOAT16,
    EXCHANGE,
    FLOAT32,
    FLOAT64,
    new_matrix,
    none,
    numbers_of,
    python_function,
    to_python,
    view,
)
from matmulbench.ladder.tiled.plan import DTYPES, SHAPES, Plan, current, make_plan
from matmulbench.ladder.tiled.tiles import dots, m_vectorised, panel
from matmulbench.ladder.tiled.vectors import (
    FORCED_BITS,
    call,
    jit,
    move,
    on_stack,
    transpose_block,
    vector_registers,
    words,
)

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("numba-tiled needs Python's global lock: all calls share the memory for what they prepare")

STREAMED = 16  # steps along k of a block of a streamed B, for each byte of an element: C is read and written for each
SMALL_PRODUCT = 2**22  # multiplications; up to here a product is of the class "small"
# The tile of a plan that names none, and how many rows the tiles of each width have: the first of them, then the next.
TILE = "6x4" if vector_registers() == 32 else "6x2"
HEIGHTS = (
    {4: "6,5,2,1", 3: "8,5,2,1", 2: "8,6,5,2,1", 1: "8,5,2,1"}
    if vector_registers() == 32
    else {3: "4,2,1", 2: "6,5,4,2,1", 1: "6,4,2,1"}
)

# A width that is forced for a test must not be found in the machine's own cache.
_KEPT_ON_DISK: dict[str, Any] = {"cache": not FORCED_BITS, "error_model": "numpy"}
_FILES = sorted(Path(__file__).parent.glob("*.py"))
_SOURCES = hashlib.sha256(b"".join(file.read_bytes() for file in _FILES)).hexdigest()[:12]


_typeof = cast("Callable[[Any], Any]", numba.typeof)
_MATRIX, _PRODUCT = _typeof(Matrix(0, 0, 0)), _typeof(Product(0, 0, 0, *[Matrix(0, 0, 0)] * 3))
_WORD, _CODE = types.int64, types.int32
_COPY = _CODE(_WORD, _WORD, _MATRIX, _MATRIX)
_PARTS = len(Tools._fields)
_BFLOAT16 = np.uint16  # as numba knows it; it has no such type


def _panel_of(dtype: str, shapes: str, unroll: int) -> Any:
    zero = np.dtype(dtype).type(0)

    def all_tiles(vectors: int, product: Product, last: int, add: int, far: int) -> int:
        panel(shapes, unroll, zero, vectors, product, last, add, far)
        return 0

    return all_tiles


def _dots_of(dtype: str) -> Any:
    zero = np.dtype(dtype).type(0)

    def all_dots(product: Product, add: int) -> int:
        for j in range(0, product.n - 1, 2):
            dots(2, zero, part(product, 0, j, product.m, 2), add)
        if product.n % 2:
            dots(1, zero, part(product, 0, product.n - 1, product.m, 1), add)
        return 0

    return all_dots


def _m_vectorised_of(dtype: str) -> Any:
    zero = np.dtype(dtype).type(0)

    def all_m_vectorised(product: Product) -> int:
        m_vectorised(NARROW_VECTORS, NARROW, zero, product)
        return 0

    return all_m_vectorised


def _copy_of(dtype: str, to_dtype: str) -> Any:
    from_zero, zero = (np.dtype(one).type(0) for one in (dtype, to_dtype))
    size, lanes = from_zero.itemsize, VECTOR // zero.itemsize

    def copy(rows: int, columns: int, to: Matrix, source: Matrix) -> int:
        if source.column == size:
            for i in range(rows):
                for j in range(0, columns, lanes):
                    move(zero, from_zero, offset(to, i, j).at, offset(source, i, j).at, columns - j)
        elif source.row == size:
            for j in range(0, columns, lanes):
                for i in range(0, rows, lanes):
                    here, there = offset(to, i, j).at, offset(source, i, j).at
                    height, width = min(lanes, rows - i), min(lanes, columns - j)
                    transpose_block(zero, from_zero, height, width, here, to.row, there, source.column)
        else:
            for i in range(rows):
                for j in range(columns):
                    move(zero, from_zero, offset(to, i, j).at, offset(source, i, j).at, 1)
        return 0

    return copy


def _round(rows: int, columns: int, to: Matrix, source: Matrix) -> int:
    """Round float32 to bfloat16."""
    for i in range(rows):
        for j in range(0, columns, VECTOR // 4):
            move(_BFLOAT16(0), np.float32(0), offset(to, i, j).at, offset(source, i, j).at, columns - j)
    return 0


def _renamed(function: Any) -> Any:
    """Give a function a name that changes with any file here: numba's cache on disk looks at one file alone."""
    function.__qualname__ += f"_{_SOURCES}"
    return function


@jit
def _tools(row: int, thread: int) -> Tools:
    """Return what stands in a row of the table, with the memory of one thread."""
    values = Tools(*words(row, _PARTS))
    return Tools(values[0] + thread * KEPT, *values[1:])


@jit
def _product_at(operands: int) -> Product:
    """Return the product whose numbers lie at ``operands``."""
    m, k, n, a, a_row, a_column, b, b_row, b_column, c, c_row, c_column = words(operands, 12)
    return Product(m, k, n, Matrix(a, a_row, a_column), Matrix(b, b_row, b_column), Matrix(c, c_row, c_column))


def _share(row: int, thread: int, threads: int, operands: int) -> int:
    """Do one thread's share of a product."""
    multiply_share(_tools(row, thread), _product_at(operands), thread, threads)
    return 0


@cast("Callable[[Any], Any]", numba.njit(parallel=True, **_KEPT_ON_DISK))
@_renamed
def _together(share: int, row: int, threads: int, operands: int) -> None:
    """Do the shares of all threads."""
    for thread in numba.prange(threads):
        call(share, (row, thread, threads, operands))


# numba.get_num_threads() itself keeps a function that calls it out of the cache on disk.
_get_num_threads: Any = types.ExternalFunction("get_num_threads", types.int32())


@jit
def _shape(m: int, k: int, n: int) -> int:
    """Return the class of a product, as a place in SHAPES."""
    if m * k * n <= SMALL_PRODUCT:
        return 0
    if k >= 4 * max(m, n):
        return 1
    return 2 if m >= 4 * n else 3


def _product(table: int, arguments: int, count: int) -> Any:
    """Return the product of two tensors, or None of those that need a closer look."""
    view_of, allocate, finish, ignore, advise, share, first_row = words(numbers_of(table), 7)
    left, right = words(arguments, 2)
    kind, a, m, k, a_row, a_column = view(view_of, left)
    b_kind, b, b_rows, n, b_row, b_column = view(view_of, right)
    if kind != b_kind or (kind != FLOAT32 and kind != FLOAT64 and kind != BFLOAT16) or k != b_rows or k == 0:
        return none()
    handle, c = new_matrix(allocate, ignore, advise, kind, m, n)
    if handle == 0:
        return none()
    size, of_dtype = (4, 0) if kind == FLOAT32 else (8, 1) if kind == FLOAT64 else (2, 2)
    row = first_row + (of_dtype * len(SHAPES) + _shape(m, k, n)) * 8 * _PARTS
    of_a, of_b = (a, a_row * size, a_column * size), (b, b_row * size, b_column * size)
    operands = on_stack((m, k, n, *of_a, *of_b, c, n * size, size))
    tools = _tools(row, 0)
    threads = _get_num_threads() if m * k * n >= tools.threading else 1
    if threads == 1:
        call(share, (row, 0, 1, operands))
    else:
        _together(share, row, threads, operands)
        of = _product_at(operands)
        if by_steps(tools, of, threads):
            add_up(tools, of, threads)
    return to_python(finish, handle)


@cache
def _compiled(signature: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Compile a function, or what it makes of ``arguments``, or find it in the cache on disk; its address is used."""
    return numba.cfunc(signature, **_KEPT_ON_DISK)(_renamed(function(*arguments) if arguments else function))


@cache
def _memory() -> Any:
    """Return the memory of all threads; its pages are the system's until they are written to."""
    threads = cast("Any", numba.config).NUMBA_NUM_THREADS  # as many as there can be
    return np.empty(threads * KEPT + VECTOR, np.uint8)


_ONES = {dtype: np.ones(1, dtype) for dtype in DTYPES}
_ROWS = np.zeros((len(DTYPES) + 1, len(SHAPES), _PARTS), np.int64)  # of Tools, those of bfloat16 last
_TABLE = np.zeros(len(EXCHANGE) + 2, np.int64)  # torch's functions, a share's, the address of the rows


def fits(options: tuple[str, ...]) -> bool:
    """Tell whether this processor has the registers for a tile, and would not leave half of them idle."""
    rows, width = map(int, (make_plan(options).tile or TILE).split("x"))
    return vector_registers() // 2 < rows * width + width + 1 <= vector_registers()


def use(dtype: str, shape: str, options: tuple[str, ...]) -> None:
    """Do products of a dtype and a class of shapes by the plan with ``options`` from now on.

    ``shape`` is one of :data:`~matmulbench.ladder.tiled.plan.SHAPES`; a tile that does not fit is passed over. Those of
    bfloat16 follow float32's plan, but that both operands are always packed.
    """
    plan = make_plan(options)
    tile = plan.tile if plan.tile and fits(options) else TILE
    rows, widest = map(int, tile.split("x"))
    heights = HEIGHTS if tile == TILE else HEIGHTS | {widest: f"{rows},{rows // 2},2,1"}
    shapes = " ".join(f"{heights[width]}x{width}" for width in range(widest, 0, -1))
    functions = (
        _compiled(_CODE(_WORD, _PRODUCT, _WORD, _WORD, _WORD), _panel_of, dtype, shapes, plan.unroll),
        _compiled(_CODE(_PRODUCT, _WORD), _dots_of, dtype),
        _compiled(_CODE(_PRODUCT), _m_vectorised_of, dtype),
    )
    kept = -(-_memory().ctypes.data // VECTOR) * VECTOR

    def tools(stored: str, round_rows: int, plan: Plan) -> list[int]:
        copy = _compiled(_COPY, _copy_of, stored, dtype)
        addresses = [function.address for function in (*functions, copy)]
        size = np.dtype(dtype).itemsize
        plan = plan._replace(k_block_streamed=plan.k_block_streamed or STREAMED * size)
        return [kept, _ONES[dtype].ctypes.data, *addresses, round_rows, size, widest, *plan[2:]]

    _ROWS[DTYPES.index(dtype), SHAPES.index(shape)] = tools(dtype, 0, plan)
    if dtype == "float32":
        round_rows = _compiled(_COPY, _round).address
        _ROWS[-1, SHAPES.index(shape)] = tools(_BFLOAT16.__name__, round_rows, plan._replace(pack_a=1, pack_b_rows=0))


def _compile(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """Compile everything for all dtypes, then multiply."""
    global _fast
    plans = current(numba.get_num_threads())  # starts the threads, too
    for dtype in DTYPES:
        for shape in SHAPES:
            use(dtype, shape, plans.get(f"{dtype} {shape}", ()))
    share = _compiled(_CODE(_WORD, _WORD, _WORD, _WORD), _share)
    _TABLE[:] = [*EXCHANGE, share.address, _ROWS.ctypes.data]
    compiled = _compiled(_WORD(_WORD, _WORD, _WORD), _product)
    _fast = product = python_function("product", compiled, _TABLE)
    return cast("torch.Tensor | None", product(a, b))


_fast: Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None] = _compile


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), both float32, both float64 or both bfloat16, of any strides.

    Products of bfloat16 are added in float32, and the sums rounded once, to nearest, ties to even.

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
    if a.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        raise TypeError(f"dtype {a.dtype}; float32, float64 or bfloat16 is needed")
    c = torch.empty(m, n, dtype=a.dtype)  # says so where there is no memory
    if k:
        raise TypeError(f"operands on {a.device} and {b.device}; the CPU's memory is needed")
    return c.zero_()
