"""Plans: what of the tiled kernel differs from machine to machine, and where the choice for this one is kept.

A plan is named by its options, so that no file can ask for what was never verified. ``matmulbench tune`` writes the
options that won; without them the heuristics serve, which are the plan of no options. FFTW's wisdom and ATLAS are the
models (Frigo & Johnson, Proc. IEEE 93, 2005; Whaley et al., Parallel Computing 27, 2001).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from matmulbench.errors import InputWarning, printable

VARIABLE = "MATMULBENCH_PLAN"  # in the environment: the plans as JSON, which no file overrules
DTYPES = ("float32", "float64")
SHAPES = ("small", "deep", "tall", "large")  # in the order of what :func:`kernel._shape` returns


class Plan(NamedTuple):
    """How products of one class of shape and one dtype are done.

    Attributes
    ----------
    tile
        rows x vectors of C that stay in registers; by default what the number of registers suggests.
    unroll
        steps along k that are written out one after the other.
    k_block, k_block_strided
        steps along k of a block, where those of A are neighbours and where they are not; at most 1024.
    k_block_streamed
        the same where B is read once, from memory; 0: by the size of an element.
    m_block
        rows of A of a block; at most 256.
    pack_b_rows
        rows of A from which on panels of B are packed that could be used in place.
    pack_a
        1 where blocks of A are always packed; else they are where its neighbours are far apart (``blocks.FAR``).
    transpose
        1 where the transposed product may be done instead.
    prefetch
        1 where the next panel of a streamed B is fetched meanwhile.
    columns_each
        columns of C for each thread from which on threads share out columns, not rows, of a C that is not tall.
    threading
        multiplications from which on several threads work: below, waking one takes longer than it saves.
    """

    tile: str = ""
    unroll: int = 1
    k_block: int = 1024
    k_block_strided: int = 256
    k_block_streamed: int = 0
    m_block: int = 128
    pack_b_rows: int = 256
    pack_a: int = 0
    transpose: int = 1
    prefetch: int = 1
    columns_each: int = 64
    threading: int = 250_000


_TILES: dict[str, dict[str, Any]] = {
    **{f"{tile} tiles": {"tile": tile} for tile in ("8x3", "9x3", "14x2", "4x3")},
    "k unrolled by 4": {"unroll": 4},
}
_IN_PLACE, _PACKED, _DIRECT = "B in place", "B packed", "direct"
_BLOCKS: dict[str, dict[str, Any]] = {
    _IN_PLACE: {"pack_b_rows": 2**40},
    _PACKED: {"pack_b_rows": 32},
    _DIRECT: {"transpose": 0},
    "A packed": {"pack_a": 1},
    "blocks 512x128": {"k_block": 512, "k_block_strided": 512},
    "blocks 384x192": {"k_block": 384, "k_block_strided": 384, "m_block": 192},
    "blocks 256x256": {"k_block": 256, "m_block": 256},
    "blocks 1024x256": {"k_block_strided": 1024, "m_block": 256},  # for a second cache of 2 MB
    "64 streamed": {"k_block_streamed": 64},
    "96 streamed": {"k_block_streamed": 96},  # for a first cache of 48 KB
    "128 streamed": {"k_block_streamed": 128},
    "not prefetched": {"prefetch": 0},
    "rows shared out": {"columns_each": 2**40},
    "threads from 100,000": {"threading": 100_000},
    "threads from 1,000,000": {"threading": 1_000_000},
}
OPTIONS = _TILES | _BLOCKS
_OF_BLOCKS = [name for name in _BLOCKS if name.startswith("blocks")]
STAGES: dict[str, tuple[list[str], ...]] = {
    "small": ([*_TILES], [_PACKED, _DIRECT, "rows shared out", "threads from 100,000", "threads from 1,000,000"]),
    "deep": ([*_TILES], [_PACKED, _DIRECT, "64 streamed", "96 streamed", "128 streamed", "not prefetched"]),
    "tall": ([*_TILES], [_IN_PLACE, "A packed", *_OF_BLOCKS]),
    "large": ([*_TILES], ["A packed", *_OF_BLOCKS, "rows shared out"]),
}
"""What is tried for each class of shape: first the options of one list, then those of the next with what won."""

Plans = dict[str, tuple[str, ...]]
"""Options by ``"dtype shape"``, such as ``{"float32 large": ("8x3 tiles", "A packed")}``."""


def make_plan(options: tuple[str, ...]) -> Plan:
    """Return the plan with ``options``, of :data:`OPTIONS`."""
    changed: dict[str, Any] = {}
    for option in options:
        changed |= OPTIONS[option]
    return Plan(**changed)


def current(threads: int) -> Plans:
    """Return the plans for ``threads`` threads: the environment's, else those that were tuned on this machine.

    Plans that cannot be used are passed over, with a warning in one line.
    """
    text, path = os.environ.get(VARIABLE), _path(threads)
    try:
        if text is not None:
            return _checked(json.loads(text))
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get("version") != version("matmulbench"):
            raise ValueError(f"they are not of version {version('matmulbench')}: `matmulbench tune` makes new ones")
        return _checked(content.get("plans"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        where = path if text is None else VARIABLE
        warnings.warn(
            f"numba-tiled's plans in {where} are ignored: {printable(str(error), 200)}", InputWarning, stacklevel=2
        )
        return {}


def as_text(plans: Plans) -> str:
    """Return plans as :data:`VARIABLE` has them."""
    return json.dumps(plans, sort_keys=True)


def keep(threads: int, plans: Plans) -> Path:
    """Write the plans for ``threads`` threads on this machine to the user's cache; return the file.

    Raises
    ------
    OSError
        if it cannot be written.
    """
    path = _path(threads)
    write_cache(path, {"version": version("matmulbench"), "machine": _machine(), "threads": threads, "plans": plans})
    return path


def write_cache(path: Path, content: Any) -> None:
    """Write ``content`` as JSON to a file of the user's cache; raises OSError, also where there is no home for one."""
    if not path.is_absolute():
        raise OSError("there is no home")
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(content, indent=1))
        beside.replace(path)  # whoever reads meanwhile finds the old one whole
    finally:
        beside.unlink(missing_ok=True)


def _checked(plans: Any) -> Plans:
    if not isinstance(plans, dict):
        raise ValueError("expected options by dtype and class of shapes")
    for key, options in plans.items():
        dtype, _, shape = key.partition(" ")
        if dtype not in DTYPES or shape not in SHAPES:
            raise ValueError(f"{key!r} is no dtype and class of shapes")
        if unknown := [option for option in options if option not in OPTIONS]:
            raise ValueError(f"{key}: option {unknown[0]!r} is unknown")
    return {key: tuple(options) for key, options in plans.items()}


def _path(threads: int) -> Path:
    import pooch

    machine = hashlib.sha256(repr(_machine()).encode()).hexdigest()[:12]
    return Path(pooch.os_cache("matmulbench")) / f"tiled-{machine}-{threads}.json"


def _machine() -> list[str]:
    """Return what tells this processor and its caches from others, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        lines = [platform.machine(), platform.processor()]
    kept = re.compile(r"vendor_id|cpu family|model|stepping|CPU ")
    processor = [" ".join(line.split()) for line in lines if kept.match(line) or ":" not in line]
    caches: list[str] = []
    with suppress(OSError):
        paths = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
        caches = [path.read_text().strip() for path in paths]
    return [*processor, *caches]
