"""A project's own settings: the table ``[tool.matmulbench]`` of its ``pyproject.toml``.

Precedence: defaults < this table < environment < command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matmulbench.arguments import kernel_specs, read_workloads, thread_counts
from matmulbench.errors import UsageError, unknown

TABLE = "[tool.matmulbench]"


def load_config() -> dict[str, Any]:
    """Read the table from the nearest ``pyproject.toml`` that has it, in the current folder or one above.

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
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("matmulbench")
        except (OSError, ValueError) as error:
            raise UsageError(f"{os.path.relpath(path)} cannot be read: {error}") from None
        if table is not None:
            try:
                return _options(table, folder)
            except UsageError as error:
                raise UsageError(f"{os.path.relpath(path)}, {TABLE}: {error}") from None
    return {}


def _options(table: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"expected a table, found {table!r}")
    options = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
        option, example, read = _KEYS[key]
        several = isinstance(example, list)
        values = value if several and isinstance(value, list) else [value]
        kind = type(example[0] if several else example)
        if not values or any(type(one) is not kind for one in values):  # a bool is an int to isinstance
            form = f"{example[0]!r} or {example}" if several else repr(example)
            raise UsageError(f"{key}: expected a value such as {form}, found {value!r}")
        try:
            found = [read(one, folder) for one in values]
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
        options[option] = ",".join(found) if option == "threads" else found if several else found[0]
    return options


def _kernel(spec: str, folder: Path) -> str:
    place, _, function = spec.rpartition(":")
    if place.endswith(".py"):
        spec = f"{_path(place, folder)}:{function}"
    kernel_specs(spec)
    return spec


def _path(value: str, folder: Path) -> str:
    """Return a path in the table as it would be typed here."""
    return os.path.relpath(folder / os.path.expanduser(value))


# The option that each key stands for, an example of its value, and what turns a value into what is typed.
_KEYS: dict[str, tuple[str, Any, Callable[[Any, Path], str]]] = {
    "kernels": ("kernel", ["my.py:matmul"], _kernel),
    "workloads": ("workload", ["5x784x10"], lambda text, _: str(*read_workloads(text))),
    "threads": ("threads", [1, 2], lambda count, _: str(*thread_counts(count))),
    "baseline": ("baseline", "torch", _kernel),
    "data_dir": ("data_dir", "data/mnist", _path),
}
OPTIONS = frozenset(option for option, _, _ in _KEYS.values())
