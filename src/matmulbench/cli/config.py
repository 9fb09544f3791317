"""A project's own settings: the table ``[tool.matmulbench]`` of its ``pyproject.toml``.

Precedence: defaults < this table < environment < command line.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from matmulbench.arguments import kernel_specs, read_workloads, thread_counts
from matmulbench.errors import UsageError, unknown

TABLE = "[tool.matmulbench]"
# Of each key: the option that it stands for, and an example of its value.
_KEYS: dict[str, tuple[str, Any]] = {
    "kernels": ("kernel", ["my.py:matmul"]),
    "workloads": ("workload", ["5x784x10"]),
    "threads": ("threads", [1, 2]),
    "baseline": ("baseline", "torch"),
    "data_dir": ("data_dir", "data/mnist"),
}
OPTIONS = frozenset(option for option, _ in _KEYS.values())


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
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder no longer exists: change to another") from None
    for path in (folder / "pyproject.toml" for folder in (here, *here.parents)):
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("tool", {}).get("matmulbench")
        except (OSError, ValueError) as error:
            raise UsageError(f"{os.path.relpath(path)} cannot be read: {error}") from None
        if isinstance(table, dict):
            return dict(_option(path, key, value) for key, value in table.items())
        if table is not None:
            raise UsageError(f"{os.path.relpath(path)}, {TABLE}: expected a table, found {table!r}")
    return {}


def _option(path: Path, key: str, value: Any) -> tuple[str, Any]:
    """Return the option that a key of the table in the file ``path`` stands for, and its value as it would be typed."""
    where = f"{os.path.relpath(path)}, {TABLE}: "
    if key not in _KEYS:
        raise UsageError(f"{where}{unknown('key', key, _KEYS)}")
    option, example = _KEYS[key]
    several = isinstance(example, list)
    values = value if several and isinstance(value, list) else [value]
    kind = type(example[0] if several else example)
    if not values or any(type(one) is not kind for one in values):  # a bool is an int to isinstance
        form = f"{example[0]!r} or {example}" if several else repr(example)
        raise UsageError(f"{where}{key}: expected a value such as {form}, found {value!r}")
    try:
        match key:
            case "threads":
                thread_counts(text := ",".join(map(str, values)))
                return option, text
            case "workloads":
                read_workloads(values)
            case "kernels" | "baseline":
                values = [_kernel_from_here(spec, path.parent) for spec in values]
                kernel_specs(values)
            case "data_dir":
                values = [_path_from_here(value, path.parent)]
    except UsageError as error:
        raise UsageError(f"{where}{key}: {error}") from None
    return option, values if several else values[0]


def _kernel_from_here(spec: str, folder: Path) -> str:
    file, _, function = spec.rpartition(":")
    return f"{_path_from_here(file, folder)}:{function}" if file.endswith(".py") else spec


def _path_from_here(path: str, folder: Path) -> str:
    """Return a path that is relative to ``folder`` as it would be typed in the current one."""
    found = folder / os.path.expanduser(path)
    try:
        return os.path.relpath(found)
    except ValueError:  # on another drive, to which no relative path leads
        return str(found)
