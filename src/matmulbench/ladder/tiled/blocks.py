"""How a product is cut into panels and blocks, which path it takes, and what is packed for it: compiled by numba.

The idea is told in :mod:`~matmulbench.ladder.tiled.kernel`. The work itself, of a panel at a time, is done by functions
whose addresses a thread finds among its :class:`Tools`.
"""

from __future__ import annotations

from typing import NamedTuple

from matmulbench.ladder.tiled.vectors import LINE, call, fetch, jit, vector_bits, vector_registers

VECTOR = vector_bits() // 8  # bytes
NARROW_VECTORS = 2 if vector_registers() == 32 else 1  # vectors of an m-vectorised tile
NARROW = 10  # columns of C at most, for m-vectorised tiles
DEEP = 1024  # steps along k of a block at most
SMALL = 4096  # elements of B that stay in the first cache as they are
PACKED_ROWS = 8  # of B at a time
# Bytes between neighbours of A, each on a page of its own, from which on its blocks are packed, for so many columns; on
# processors with 32 registers that is left to plans, for it was never measured there.
FAR, WIDE = (4096 if vector_registers() < 32 else 2**62), 256
FEW_ROWS = 32  # are not worth preparing anything for
DEEP_RATIO = 16  # k over the larger of m and n, from which on threads share out steps along it,
STEPS_EACH = 128  # if each thread has so many for every thread
TRANSPOSED = 2**16  # elements of C that are transposed at once
# Bytes of memory that a thread keeps for what it prepares: C transposed or not yet rounded, single columns of B, panels
# of B, blocks of A, sums. To get it anew for each product, page by page, would take up to a third of the time.
FOR_RESULTS, FOR_COLUMNS, FOR_PANELS, FOR_BLOCKS, FOR_SUMS = 2**22, 2**17, 2**23, 2**22, 2**19
AT_COLUMNS, AT_PANELS = FOR_RESULTS, FOR_RESULTS + FOR_COLUMNS
AT_BLOCKS = AT_PANELS + FOR_PANELS
AT_SUMS = AT_BLOCKS + FOR_BLOCKS
KEPT = AT_SUMS + FOR_SUMS


class Matrix(NamedTuple):
    """Where a matrix lies: the address of its first element, and the bytes to the next row and the next column."""

    at: int
    row: int
    column: int


class Product(NamedTuple):
    """C = A B, or C += A B, of (m, k) and (k, n)."""

    m: int
    k: int
    n: int
    a: Matrix
    b: Matrix
    c: Matrix


class Tools(NamedTuple):
    """What a thread works with: memory, the address of a 1, functions for an element type, its bytes, and the plan.

    Of bfloat16 the elements are float32's, which ``copy`` widens and ``round`` rounds; else ``round`` is 0.
    """

    kept: int
    one: int
    panel: int
    dots: int
    m_vectorised: int
    copy: int
    round: int
    size: int
    widest: int
    k_block: int
    k_block_strided: int
    k_block_streamed: int
    m_block: int
    pack_b_rows: int
    pack_a: int
    transpose: int
    prefetch: int
    columns_each: int
    threading: int


@jit
def offset(x: Matrix, i: int, j: int) -> Matrix:
    """Return ``x`` from row ``i`` and column ``j`` on."""
    return Matrix(x.at + i * x.row + j * x.column, x.row, x.column)


@jit
def _transposed(x: Matrix) -> Matrix:
    """Return the transposed view."""
    return Matrix(x.at, x.column, x.row)


@jit
def part(of: Product, i: int, j: int, m: int, n: int) -> Product:
    """Return what makes ``m`` rows of C from row ``i`` on, and ``n`` columns from column ``j`` on."""
    return Product(m, of.k, n, offset(of.a, i, 0), offset(of.b, 0, j), offset(of.c, i, j))


@jit
def _steps(of: Product, first: int, k: int) -> Product:
    """Return ``k`` steps of a product, from step ``first`` on."""
    return Product(of.m, k, of.n, offset(of.a, 0, first), offset(of.b, first, 0), of.c)


@jit
def _with(of: Product, a: Matrix, b: Matrix) -> Product:
    """Return the product with operands that were copied."""
    return Product(of.m, of.k, of.n, a, b, of.c)


@jit
def _into(of: Product, c: Matrix) -> Product:
    """Return the product with another place for its result."""
    return Product(of.m, of.k, of.n, of.a, of.b, c)


@jit
def _fetch(size: int, rows: int, columns: int, x: Matrix) -> None:
    """Ask for a matrix that is stored by rows or by columns to be brought to the cache."""
    runs, length, to_next = (columns, rows, x.column) if x.row < x.column else (rows, columns, x.row)
    for run in range(runs):
        for line in range(0, length * size, LINE):
            fetch(x.at + run * to_next + line)


@jit
def _panel(tools: Tools, width: int, of: Product, add: bool, far: int) -> None:
    """C = A B or C += A B, ``width`` vectors wide, ``far`` as :func:`tiles.panel` has it; B's rows are contiguous."""
    last = of.n - (width - 1) * (VECTOR // tools.size)
    call(tools.panel, (width, of, last, int(add), far))


@jit
def _copy(tools: Tools, rows: int, columns: int, to: Matrix, source: Matrix) -> Matrix:
    """Copy a matrix to where its rows are contiguous; return the copy."""
    call(tools.copy, (rows, columns, to, source))
    return to


@jit
def _in_place(tools: Tools, of: Product) -> None:
    """C = A B, panel by panel, nothing prepared; B's rows must be contiguous."""
    lanes = VECTOR // tools.size
    for j in range(0, of.n, tools.widest * lanes):
        here = min(tools.widest * lanes, of.n - j)
        _panel(tools, -(-here // lanes), part(of, 0, j, of.m, here), False, 0)


@jit
def _is_narrow(n: int, lanes: int) -> bool:
    """Whether so few columns leave more lanes idle, lying along C's rows, than an m-vectorised tile wastes."""
    return NARROW // 2 < n <= NARROW and 4 * n <= 3 * lanes * -(-n // lanes)


@jit
def _narrow(tools: Tools, of: Product) -> None:
    """C = A B for few columns, with vectors along the rows of C."""
    size = tools.size
    packed = _copy(tools, of.k, of.n, Matrix(tools.kept + AT_COLUMNS, NARROW * size, size), of.b)
    rows = NARROW_VECTORS * VECTOR // size
    whole = of.m // rows * rows
    ready = _with(of, of.a, packed)
    call(tools.m_vectorised, (part(ready, 0, 0, whole, of.n),))
    _in_place(tools, part(ready, whole, 0, of.m - whole, of.n))


@jit
def _multiply(tools: Tools, of: Product) -> None:
    """C = A B on one thread: direct or, if A is stored by columns and that fills vectors better, transposed."""
    size, m, n = tools.size, of.m, of.n
    lanes = VECTOR // size
    other = Product(n, of.k, m, _transposed(of.b), _transposed(of.a), _transposed(of.c))
    fills_better = n * -(-m // lanes) < m * -(-n // lanes)
    if tools.round:
        _widened(tools, of)
    elif not tools.transpose or of.a.row != size or of.k < lanes or n > TRANSPOSED // lanes or not fills_better:
        _direct(tools, of)
    elif n == 1 and of.c.row == size:
        _direct(tools, other)
    else:
        columns = min(m, TRANSPOSED // n // lanes * lanes + lanes)
        made = Matrix(tools.kept, columns * size, size)
        for first in range(0, m, columns):
            some = part(other, 0, first, n, min(columns, m - first))
            _direct(tools, _into(some, made))
            _copy(tools, some.n, n, _transposed(some.c), _transposed(made))


@jit
def _widened(tools: Tools, of: Product) -> None:
    """C = A B of bfloat16, part by part: in float32, then rounded."""
    size = tools.size
    columns = max(1, min(of.n, FOR_PANELS // (DEEP * size)))
    rows = FOR_RESULTS // (columns * size)
    made = Matrix(tools.kept, columns * size, size)
    for j in range(0, of.n, columns):
        for i in range(0, of.m, rows):
            some = part(of, i, j, min(rows, of.m - i), min(columns, of.n - j))
            _in_blocks(tools, _into(some, made))
            call(tools.round, (some.m, some.n, some.c, made))


@jit
def _direct(tools: Tools, of: Product) -> None:
    """C = A B with vectors along the rows of B and C, or along k: choose the path."""
    m, k, n, a, b, _ = of
    size = tools.size
    lanes = VECTOR // size
    along_k = a.column == size and b.row == size
    if along_k and (n == 1 or (m < FEW_ROWS and b.column != size and k >= lanes)):
        call(tools.dots, (of, 0))
    elif a.column == size and k <= DEEP and m >= 2 * FEW_ROWS and _is_narrow(n, lanes):
        _narrow(tools, of)
    elif b.column == size and k <= DEEP and (m < tools.pack_b_rows or k * n <= SMALL) and not _pays(tools, of):
        _in_place(tools, of)
    else:
        columns = FOR_PANELS // (DEEP * size)
        for j in range(0, n, columns):
            _in_blocks(tools, part(of, 0, j, m, min(columns, n - j)))


@jit
def _pays(tools: Tools, of: Product) -> bool:
    """Whether to do the columns that fill no vector by vectors along k."""
    lanes = VECTOR // tools.size
    rest = of.n % lanes
    return rest > 0 and 4 * rest <= 3 * lanes and of.m >= FEW_ROWS and of.k >= 256 and _runs_along_k(tools, of)


@jit
def _packs_a(tools: Tools, of: Product) -> bool:
    """Whether to pack blocks of A: where the plan has it, or its neighbours are far apart and many columns use them."""
    return tools.pack_a > 0 or (of.n >= WIDE and max(of.a.row, of.a.column) >= FAR)


@jit
def _runs_along_k(tools: Tools, of: Product) -> bool:
    """Whether neighbours along k are neighbours in A's memory, or in its packed blocks."""
    return of.a.column == tools.size or _packs_a(tools, of)


@jit
def _panel_at(tools: Tools, number: int, panels: int, columns: int) -> tuple[int, int, int]:
    """Return where a panel of so many begins, and its vectors and columns; panels differ by a vector at most."""
    lanes = VECTOR // tools.size
    vectors = -(-columns // lanes)
    first = number * vectors // panels
    width = (number + 1) * vectors // panels - first
    return first * lanes, width, min(width * lanes, columns - first * lanes)


@jit
def _packed(tools: Tools, steps: int, j: int, width: int) -> Matrix:
    """Return where the panel from column ``j`` on is packed, ``width`` vectors wide."""
    return Matrix(tools.kept + AT_PANELS + steps * j * tools.size, width * VECTOR, tools.size)


@jit
def _pack(tools: Tools, b: Matrix, steps: int, columns: int, panels: int) -> None:
    """Pack a block of B, panel by panel; if stored by rows, a few of them at a time, for each may be another page."""
    height = PACKED_ROWS if b.column == tools.size else steps
    for p in range(0, steps, height):
        for number in range(panels):
            j, width, here = _panel_at(tools, number, panels, columns)
            to = offset(_packed(tools, steps, j, width), p, 0)
            _copy(tools, min(height, steps - p), here, to, offset(b, p, j))


@jit
def _in_blocks(tools: Tools, of: Product) -> None:
    """C = A B, block by block along k and m."""
    size, m, k, n = tools.size, of.m, of.k, of.n
    lanes = VECTOR // size
    rest = n % lanes if _pays(tools, of) else 0  # columns done along k
    wide = n - rest  # and in panels
    panels = -(-wide // (lanes * tools.widest))
    packing = of.b.column != size or m >= tools.pack_b_rows
    k_block = tools.k_block if _runs_along_k(tools, of) else tools.k_block_strided
    streaming = k > k_block and not packing  # B is read once, from memory: a panel of it need not stay for long
    if streaming:
        k_block = tools.k_block_streamed
    for p in range(0, k, k_block):
        steps = min(k_block, k - p)
        block = _steps(of, p, steps)
        add = p > 0
        if streaming and tools.prefetch:
            _fetch(size, m, min(k_block, k - p - steps), offset(block.a, 0, steps))
        rest_columns = Matrix(tools.kept + AT_COLUMNS, size, steps * size)
        if rest:
            _copy(tools, rest, steps, _transposed(rest_columns), _transposed(offset(block.b, 0, wide)))
        if packing:
            _pack(tools, block.b, steps, wide, panels)
        for first in range(0, m, tools.m_block):
            rows = min(tools.m_block, m - first)
            a = offset(block.a, first, 0)
            if _packs_a(tools, of):  # rows a multiple of 4 KB apart would meet in a few lines of the first cache
                a = _copy(tools, rows, steps, Matrix(tools.kept + AT_BLOCKS, steps * size + LINE, size), a)
            for number in range(panels):
                j, width, here = _panel_at(tools, number, panels, wide)
                b = _packed(tools, steps, j, width) if packing else offset(block.b, 0, j)
                far = 0
                if streaming and tools.prefetch:  # to the next panel
                    far = width * VECTOR if number < panels - 1 else k_block * b.row - j * size
                _panel(tools, width, _with(part(block, first, j, rows, here), a, b), add, far)
            if rest:
                call(tools.dots, (_with(part(block, first, wide, rows, rest), a, rest_columns), int(add)))


@jit
def by_steps(tools: Tools, of: Product, threads: int) -> bool:
    """Whether threads share out steps along k: each operand is read once, and to add up what they make takes little."""
    if threads == 1 or tools.round or of.m * of.n * tools.size > FOR_SUMS:
        return False
    return of.k >= max(DEEP_RATIO * of.m, DEEP_RATIO * of.n, STEPS_EACH * threads * threads)


@jit
def add_up(tools: Tools, of: Product, threads: int) -> None:
    """C is the sum of what the threads have made of it, or a row of ones times a matrix of these, a row each."""
    made = Matrix(tools.kept + AT_SUMS, KEPT, tools.size)
    _in_place(tools, Product(1, threads, of.m * of.n, Matrix(tools.one, 0, 0), made, Matrix(of.c.at, 0, tools.size)))


@jit
def multiply_share(tools: Tools, of: Product, thread: int, threads: int) -> None:
    """Do one thread's share of the steps along k, of C's rows or of its columns."""
    lanes = VECTOR // tools.size
    if by_steps(tools, of, threads):
        first, end = thread * of.k // threads, (thread + 1) * of.k // threads
        made = Matrix(tools.kept + AT_SUMS, of.n * tools.size, tools.size)
        _multiply(tools, _into(_steps(of, first, end - first), made))
    else:
        by_rows = of.m > of.n or of.n < tools.columns_each * threads
        unit = (1 if by_rows else tools.widest) * lanes
        length = of.m if by_rows else of.n
        here = -(-length // (unit * threads)) * unit
        first = min(thread * here, length)
        here = min(here, length - first)
        _multiply(tools, part(of, first, 0, here, of.n) if by_rows else part(of, 0, first, of.m, here))
