"""A project's own settings: the table ``[tool.matmulbench]`` of its ``pyproject.toml``.

Precedence: defaults < this table < environment < command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError, unknown
from matmulbench.ladder.plugins import find_kernel
from matmulbench.workload import Workload

TABLE = "[tool.matmulbench]"


def load_config(start: Path | None = None) -> dict[str, Any]:
    """Read the table from the nearest ``pyproject.toml`` that has it, in the folder ``start`` or one above.

    Parameters
    ----------
    start
        the folder to begin at; by default the current one.

    Returns
    -------
    dict
        what the table sets, by the name of the option that it stands for, in the form that is typed there: ``kernel``
        and ``workload`` (lists), ``threads``, ``baseline``, ``data_dir``. Paths in the table are relative to its file;
        here they are relative to the current folder. Empty where there is no table.

    Raises
    ------
    UsageError
        if the file cannot be read, or a key or value is wrong; the message names file, key and value.
    """
    start = (start or Path()).resolve()
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("matmulbench")
        except (OSError, ValueError) as error:
            raise UsageError(f"{_shown(path)} cannot be read: {error}") from None
        if table is not None:
            try:
                return _options(table, folder)
            except UsageError as error:
                raise UsageError(f"{_shown(path)}, {TABLE}: {error}") from None
    return {}


def _options(table: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"expected a table, found {table!r}")
    options = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
        option, read = _KEYS[key]
        try:
            options[option] = read(value, folder)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
    return options


def _kernels(value: Any, folder: Path) -> list[str]:
    return [_kernel(one, folder) for one in _texts(value, "my.py:matmul")]


def _kernel(value: Any, folder: Path) -> str:
    spec = _text(value, "my.py:matmul")
    place, _, function = spec.rpartition(":")
    if place.endswith(".py"):
        spec = f"{_shown(folder / os.path.expanduser(place))}:{function}"
    find_kernel(spec)
    return spec


def _workloads(value: Any, folder: Path) -> list[str]:
    return [str(Workload.parse(text)) for text in _texts(value, "5x784x10")]


def _threads(value: Any, folder: Path) -> str:
    counts = value if isinstance(value, list) else [value]
    if not counts or not all(type(count) is int for count in counts):  # a bool is an int to isinstance
        raise UsageError(f"expected a count or a list of counts, such as 1 or [1, 2], found {value!r}")
    return ",".join(map(str, counts))


def _data_dir(value: Any, folder: Path) -> str:
    return _shown(folder / os.path.expanduser(_text(value, "data/mnist")))


def _texts(value: Any, example: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise UsageError(f'expected a list of texts, such as ["{example}"], found {value!r}')
    return [_text(one, example) for one in value]


def _text(value: Any, example: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f'expected a text, such as "{example}", found {value!r}')
    return value


def _shown(path: Path) -> str:
    """Return the path as it would be typed here: a name that is the same on every machine."""
    return os.path.relpath(path)


_KEYS: dict[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "kernels": ("kernel", _kernels),
    "workloads": ("workload", _workloads),
    "threads": ("threads", _threads),
    "baseline": ("baseline", _kernel),
    "data_dir": ("data_dir", _data_dir),
}
