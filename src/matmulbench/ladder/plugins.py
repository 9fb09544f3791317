"""Kernels by name: the ladder's, an installed package's, or anyone's ``file.py:function``.

A kernel of numpy arrays is named with ``@numpy`` behind it, or says so itself with an attribute
``operands = "numpy"``; one of tensors on a GPU with ``@cuda``, or ``device = "cuda"``. The name carries it through
every process and into every table: what the way to numpy and back costs is part of what is timed.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import operator
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points, requires
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from matmulbench.errors import UsageError, unknown
from matmulbench.ladder import CUDA_LADDER, LADDER, LADDERS, RUNGS, Kernel
from matmulbench.ladder.devices import DEVICES, mirrored, unmirrored

GROUP = "matmulbench.kernels"
OPERANDS = ("torch", "numpy")
# What multiplies and what prepares, by what was made of both; an attribute might be a kernel's own.
_PARTS: WeakKeyDictionary[Kernel, tuple[Kernel, Callable[[Any], Any]]] = WeakKeyDictionary()
_IMPORTED_AS = {"scikit-learn": "sklearn", "py-cpuinfo": "cpuinfo"}


def kernels(device: str = "cpu") -> list[str]:
    """Return the names that are known: the device's ladder in its order; on the CPU, what installed packages offer."""
    if device != "cpu":
        return [rung.name for rung in LADDERS.get(device, ())]
    ladder = [rung.name for rung in LADDER]
    return ladder + sorted({entry.name for entry in entry_points(group=GROUP)} - set(ladder))


def find_kernel(spec: str) -> str:
    """Return where the kernel ``spec`` is, as ``module:function`` or ``/path/file.py:function``; imports nothing.

    Parameters
    ----------
    spec
        a name from :func:`kernels`, ``package.module:function`` or ``path/to/file.py:function``; ``@numpy`` behind it
        says that the kernel takes arrays, ``@cuda`` that it takes tensors on a GPU.

    Raises
    ------
    UsageError
        if the name is unknown or the file does not exist; the message names near matches.
    """
    name, operands = split_spec(spec)
    if operands is not None and operands not in (*OPERANDS, *DEVICES):
        raise unknown("operands", operands, (*OPERANDS, *DEVICES), f"In kernel {spec!r}, behind the @.")
    for rung in RUNGS:
        if rung.name == name:
            return rung.target
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return f"{entry.module}:{entry.attr}"
    if ":" not in name and not name.endswith(".py"):
        names = dict.fromkeys([*(rung.name for rung in RUNGS), *kernels()])
        module, dot, function = name.rpartition(".")
        example = f"{module}:{function}" if dot and module else "path/to/file.py:function"
        raise unknown("kernel", spec, names, f"Your own is named as {example}.")
    return find_function(name, spec)


def find_function(name: str, spec: str | None = None, kind: str = "kernel") -> str:
    """Return where the function ``name`` is, as :func:`find_kernel` does, of a ``module:function`` alone.

    A function of a class is ``module:Class.function``, as in entry points.

    ``spec`` and ``kind`` are what an error names: as what it was typed, and what it should be.
    """
    what = f"{kind} {spec or name!r}"
    # A drive has a colon, too.
    place, _, function = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    if not place.endswith(".py"):
        if not (_is_dotted(place) and _is_dotted(function)):
            raise UsageError(f"{what}: expected path/to/file.py:function or package.module:function")
        if source := source_of(place):
            _check_defined(function.partition(".")[0], source, what)
        return name
    if function and not _is_dotted(function):
        raise UsageError(f"{what}: {function!r} is no function name; expected path/to/file.py:function")
    path = None
    with suppress(RuntimeError, ValueError):  # ~ of nobody, and a NUL, are in the name of no file
        path = (_here() / Path(place).expanduser()).resolve()
    if not (path and path.is_file()):
        raise UsageError(f"{what}: there is no file {place!r}")
    if not function:
        there = _functions(_parsed(path))
        advice = f"it has: {', '.join(there)}; name it as {place}:{there[0]}" if there else "there is none in it"
        raise UsageError(f"{what}: which function? {advice}")
    _check_defined(function.partition(".")[0], path, what)
    return f"{path}:{function}"


def _is_dotted(name: str) -> bool:
    return all(map(str.isidentifier, name.split(".")))


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), path.name)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"file {str(path)!r} cannot be read as Python: {error}") from None


def _functions(module: ast.Module) -> list[str]:
    """Return the names of the functions that a file defines; it is not run."""
    return [each.name for each in module.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]


def _check_defined(function: str, path: Path, what: str) -> None:
    """Raise UsageError if ``function`` is no name that the file can give to anything; it is not run.

    What a loop or a call at the top of a file defines can only be known by running it. One that is no Python says so
    when it is imported, as one does that raises something then.
    """
    try:
        module = _parsed(path)
    except UsageError:
        return
    running = [each for each in module.body if isinstance(each, ast.For | ast.While | ast.With | ast.Match | ast.Expr)]
    nodes = list(ast.walk(module))
    names = {getattr(node, "name", None) or getattr(node, "id", None) for node in nodes}
    names |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    open_ended = names & {function, "*", "globals", "vars", "exec", "eval", "setattr", "__getattr__"}
    if open_ended or any(not isinstance(getattr(each, "value", None), ast.Constant) for each in running):
        return
    there = _functions(module)
    near = difflib.get_close_matches(function, there, n=3) or there
    raise UsageError(f"{what}: no function {function!r}; it has: {', '.join(near) or 'none'}")


def source_of(module: str) -> Path | None:
    """Return the file of a module of the user's project; None if it is installed, or found by importing alone."""
    top = module.partition(".")[0]
    installed = [place for place in sys.path if "site-packages" in place]
    if top in sys.stdlib_module_names or importlib.machinery.PathFinder.find_spec(top, installed):
        return None
    places = [folder.joinpath(*module.split(".")) for folder in _project()]
    files = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")]
    return next((path for path in files if path.is_file()), None)


def with_operands(spec: str, operands: str | None, device: str = "cpu") -> str:
    """Return ``spec`` with what it takes behind it, if it is a kernel of one's own that does not say so itself.

    Raises
    ------
    UsageError
        if there are no such operands on ``device``.
    """
    if device != "cpu":
        if operands == "numpy":
            raise UsageError(f"operands 'numpy' are not on device {device!r}: expected torch")
        operands = device
    own = ":" in spec and not split_spec(spec)[1]
    return f"{spec}@{operands}" if operands and own else spec


def load_kernel(spec: str | Callable[..., Any]) -> Kernel:
    """Import the kernel ``spec``, if it is a name, and return its function, which takes tensors whatever it takes.

    Raises
    ------
    UsageError
        if :func:`find_kernel` does not know it, or its module has no such function; the message names those that it
        has.
    ImportError
        if its module, or something that the module needs, cannot be imported, or it works on a GPU and there is none.
    """
    kernel, said = (load_function(spec), split_spec(spec)[1]) if isinstance(spec, str) else (spec, None)
    if not callable(kernel):
        raise UsageError(f"kernel {spec!r}: expected a name or a function")
    operands = said if said in OPERANDS else getattr(kernel, "operands", "torch")
    device = said if said in DEVICES else getattr(kernel, "device", "cpu")
    if operands not in OPERANDS:
        raise unknown("operands", str(operands), OPERANDS, f"Kernel {spec!r} declares them.")
    if device not in DEVICES:
        raise unknown("device", str(device), DEVICES, f"Kernel {spec!r} declares it.")
    if operands == "numpy" and device != "cpu":
        raise UsageError(f"kernel {spec!r}: operands on device {device!r} are torch's, it says 'numpy'")
    setup = getattr(kernel, "setup", None)
    if setup and not parts(kernel)[1]:
        kernel = _with_setup(kernel, setup, operands == "numpy")
    elif operands == "numpy":
        kernel = _on_tensors(kernel)
    if operands == "numpy":  # now it takes tensors
        kernel.operands, kernel.returns = "torch", "numpy.ndarray"  # type: ignore[attr-defined]
    there = DEVICES[device]
    if there is None or unmirrored(kernel):
        return kernel
    there.require()
    whole = mirrored(kernel, there.place, there.drain)
    whole.device = device  # type: ignore[attr-defined]
    return whole


def _with_setup(kernel: Callable[..., Any], setup: Callable[..., Any], takes_arrays: bool) -> Kernel:
    """Make one kernel of two parts, which :func:`parts` gives back."""
    multiply = _on_tensors(kernel, prepares=True) if takes_arrays else kernel
    prepare: Callable[[Any], Any] = (lambda b: setup(b.numpy())) if takes_arrays else setup

    @functools.wraps(kernel)
    def both(a: Any, b: Any) -> Any:
        return multiply(a, prepare(b))

    _PARTS[both] = multiply, prepare
    return both


def parts(kernel: Kernel) -> tuple[Kernel, Callable[[Any], Any] | None]:
    """Return what multiplies by a prepared b and what prepares it, of a kernel with ``setup``; else itself and None."""
    return _PARTS.get(kernel, (kernel, None)) if isinstance(kernel, FunctionType) else (kernel, None)


def over_batches(kernel: Kernel) -> Kernel:
    """Return what multiplies ``a`` (batch, m, k) by ``b`` (batch, k, n): a loop over ``kernel``.

    Itself, if it says with an attribute ``batched = True`` that it takes them.
    """
    import torch

    if getattr(kernel, "batched", False):
        return kernel
    multiply, setup = parts(kernel)

    def loop(a: torch.Tensor, b: Any) -> torch.Tensor:
        return torch.stack(list(map(multiply, a, b)))

    return _with_setup(loop, lambda b: list(map(setup, b)), False) if setup else loop


def load_function(spec: str, kind: str = "kernel") -> Callable[..., Any]:
    """Import and return any function named as a kernel is; raises what :func:`load_kernel` does, of a ``kind``."""
    found = find_kernel(spec) if kind == "kernel" else find_function(spec, kind=kind)
    place, _, name = found.rpartition(":")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except ModuleNotFoundError as error:
        absent = error.name or place
        own = f"{place}.".startswith(f"{absent}.")
        remedy = "a file is named as path/to/file.py:function" if own else f"install {absent} beside matmulbench"
        if found in {rung.target for rung in CUDA_LADDER}:
            remedy = "pip install 'matmulbench[cuda]'"
        raise ModuleNotFoundError(f"{error}; {remedy}", name=error.name) from error
    except ImportError as error:
        if "relative import" in str(error):
            remedy = f"name it as package.module:{name} from the folder above its package"
            error.msg += f"; {remedy}, or put an __init__.py into each folder of that"
        raise
    try:
        function: Callable[..., Any] = operator.attrgetter(name)(module)  # which follows dots
    except AttributeError:
        offered = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{kind} {spec!r}: no function {name!r}; it has: {', '.join(offered) or 'none'}") from None
    if not callable(function):
        raise UsageError(f"{kind} {spec!r}: {name!r} is no function, its type is {type(function).__name__}")
    return function


def split_spec(spec: str) -> tuple[str, str | None]:
    """Part a spec from the operands behind it; an @ before the function's name belongs to a folder."""
    place, colon, function = spec.rpartition(":")
    function, at, operands = function.partition("@")
    return place + colon + function, operands if at else None


def arity_advice(kernel: Callable[..., Any], error: TypeError) -> str | None:
    """Say what is wrong with a kernel that raised ``error`` because it does not take two operands; None if it does.

    A signature alone says little: a ufunc may take a third argument, and need not.
    """
    remedy = "Give all else a default, or wrap it in a function of two operands"
    if inspect.isclass(kernel):
        return f"it is a class, expected a function. Name an object of it, as by `multiply = {kernel.__name__}()`"
    try:
        signature = inspect.signature(kernel)
    except (TypeError, ValueError):  # written in C, most often
        return f"expected (a, b), and c returned. {remedy}" if "argument" in str(error) else None
    try:
        signature.bind(None, None)
    except TypeError as mismatch:
        taken = signature.replace(
            return_annotation=signature.empty,
            parameters=[each.replace(annotation=each.empty) for each in signature.parameters.values()],
        )
        return f"it takes {taken}, expected (a, b), and c returned: {mismatch}. {remedy}"
    return None


def _on_tensors(kernel: Callable[..., Any], prepares: bool = False) -> Kernel:
    """Let a kernel of arrays take tensors, by way of the memory that the two share; b as it is, if it ``prepares``."""
    import numpy as np
    import torch

    warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # by torch, of a result that may not be

    @functools.wraps(kernel)
    def on_tensors(a: torch.Tensor, b: Any) -> torch.Tensor:
        c: Any = kernel(a.numpy(), b if prepares else b.numpy())
        try:
            # Whatever else it returns, verification has the words for it.
            return torch.from_numpy(c) if isinstance(c, np.ndarray) else c
        except ValueError:  # torch has no negative strides
            return torch.from_numpy(c.copy())

    return on_tensors


def _import_module(name: str) -> ModuleType:
    if name.partition(".")[0] not in sys.modules:
        _search_project()
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file under its real name, as a program of its own would be, with what lies beside it.

    A file of a package is imported as part of it. A name that a library has already is not taken from it.
    """
    root = import_root(path)
    parts = path.relative_to(root).with_suffix("").parts
    in_package = len(parts) > 1 and all(map(str.isidentifier, parts))
    alias = "matmulbench_kernel_" + re.sub(r"\W", "_", path.stem)
    name = ".".join(parts) if in_package else path.stem if path.stem.isidentifier() else alias
    loaded = sys.modules.get(name)
    if loaded and getattr(loaded, "__file__", None) == str(path) and _loaded.get(path) == path.stat().st_mtime_ns:
        return loaded
    _make_way(root)
    _loaded[path] = path.stat().st_mtime_ns
    if in_package:
        sys.modules.pop(name, None)
        module = importlib.import_module(name)
        if module.__file__ != str(path):
            raise ImportError(f"{path} is not what Python finds as {name}: that is {module.__file__}")
        return module
    if name in sys.modules:
        name = alias
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec
    assert module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # pickling and numba's cache look modules up here
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def import_root(path: Path) -> Path:
    """Return the folder from which a file is imported: its own, or the one that holds its outermost package."""
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    return root


_searched: set[str] = set()  # users' folders
_loaded: dict[Path, int] = {}  # users' files, and when they were changed last


def _make_way(root: Path) -> None:
    """Let ``root`` be searched after Python's own modules; let go of what another user's folder had so named."""
    _search(root)
    theirs = {str(path.parent) for path in _loaded} - {str(root)}
    for beside in root.iterdir():
        module = sys.modules.get(beside.stem)
        if module and os.path.dirname(getattr(module, "__file__", None) or "") in theirs:
            del sys.modules[beside.stem]


@functools.cache
def _needed() -> list[str]:
    """Return the names by which the libraries that this package requires are imported."""
    names = [re.split(r"[^\w-]", each)[0] for each in requires("matmulbench") or () if "extra ==" not in each]
    return [_IMPORTED_AS.get(name, name.replace("-", "_")) for name in names]


def _search(folder: Path) -> None:
    """Put ``folder`` before the installed packages and other users' folders, but behind Python's own library.

    What the suite needs stays what is installed: it is imported first where a file of that name would hide it.
    """
    for name in _needed():
        hiding = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
        if name not in sys.modules and hiding and hiding.origin:
            with suppress(ImportError):
                importlib.import_module(name)
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    behind = (i for i, place in enumerate(sys.path) if "site-packages" in place or place in _searched)
    sys.path.insert(next(behind, len(sys.path)), str(folder))
    _searched.add(str(folder))


_home: list[Path] = []


def stand_here() -> None:
    """Let names be those of files as seen from this folder, even if a user's code goes to another one."""
    _home[:] = [Path.cwd()]


def _here() -> Path:
    return _home[0] if _home else Path.cwd()


def _project() -> list[Path]:
    """Return the folders of the project that the user's folder belongs to, and that folder itself."""
    here = _here()
    project = next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").is_file()), here)
    return list(dict.fromkeys([project, project / "src", here]))


def _search_project() -> None:
    """Let the user's project be searched for ``package.module:function``."""
    for folder in _project():
        if str(folder) not in sys.path and folder.is_dir():
            _search(folder)
