"""Kernels by name: the ladder's, an installed package's, or anyone's ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path

from matmulbench.errors import UsageError, unknown
from matmulbench.ladder import LADDER, Kernel

GROUP = "matmulbench.kernels"


def kernels() -> list[str]:
    """Return the names that are known: the ladder in its order, then those that installed packages offer."""
    ladder = [rung.name for rung in LADDER]
    return ladder + sorted({entry.name for entry in entry_points(group=GROUP)} - set(ladder))


def availability() -> list[dict[str, str]]:
    """Return for each known kernel its ``name``, what it is ``about``, and its ``status`` with the reason."""
    ideas = {rung.name: rung.idea for rung in LADDER}
    rows = []
    for name in kernels():
        try:
            load_kernel(name)
        except Exception as error:  # whatever an import may raise is the reason why this kernel is not to be had
            status = f"unavailable: {error}"
        else:
            status = "available"
        rows.append({"name": name, "about": ideas.get(name, find_kernel(name)), "status": status})
    return rows


def find_kernel(spec: str) -> str:
    """Return where the kernel ``spec`` is, as ``module:function`` or ``/path/file.py:function``; imports nothing.

    Parameters
    ----------
    spec
        a name from :func:`kernels`, ``package.module:function`` or ``path/to/file.py:function``.

    Raises
    ------
    UsageError
        if the name is unknown or the file does not exist; the message names near matches.
    """
    for rung in LADDER:
        if rung.name == spec:
            return rung.target
    for entry in entry_points(group=GROUP):
        if entry.name == spec:
            return entry.value
    place, colon, function = spec.rpartition(":")
    if not colon:
        raise unknown("kernel", spec, kernels(), "Your own is named as path/to/file.py:function.")
    if not function.isidentifier():
        raise UsageError(f"kernel {spec!r}: {function!r} is no function name; expected path/to/file.py:function")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise UsageError(f"kernel {spec!r}: there is no file {place!r}")
        return f"{path.resolve()}:{function}"
    return spec


def load_kernel(spec: str) -> Kernel:
    """Import the kernel ``spec`` and return its function.

    Raises
    ------
    UsageError
        if :func:`find_kernel` does not know it.
    ImportError
        if its module, or something that the module needs, cannot be imported.
    AttributeError
        if the module has no such function; the message names those that it has.
    """
    place, _, function = find_kernel(spec).rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    try:
        kernel: Kernel = getattr(module, function)
    except AttributeError:
        offered = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise AttributeError(f"{spec}: no function {function!r}; there are {', '.join(offered) or 'none'}") from None
    if not callable(kernel):
        raise AttributeError(f"{spec}: {function!r} is a {type(kernel).__name__}, not a function")
    return kernel


def _import_file(path: Path) -> object:
    name = f"matmulbench_kernel_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec
    assert module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # pickling and numba's cache look modules up here
    sys.path.insert(0, str(path.parent))  # a kernel may import its neighbours
    try:
        module_spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
