"""What users pass, on the command line or in Python, checked and turned into the one form that a job holds."""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib.machinery import PathFinder
from numbers import Real
from pathlib import Path
from typing import Any

import psutil

from matmulbench.dtypes import DTYPES
from matmulbench.errors import UsageError, check_known, printable
from matmulbench.isolation.system import cores as usable_cores
from matmulbench.isolation.system import quoted
from matmulbench.ladder.devices import DEVICES
from matmulbench.ladder.plugins import find_kernel, kernels, with_operands
from matmulbench.workload import Workload

WEEK_S = 604800
_numbers = itertools.count()
_names: dict[str, str] = {}  # of functions that were passed as such, by their spec


def kernel_specs(
    given: str | Callable[..., Any] | Iterable[str | Callable[..., Any]], device: str = "cpu"
) -> tuple[str, ...]:
    """Return the specs of kernels, given as one or several names or functions; each is known to exist.

    On a ``device``, the user's kernels work there.

    Raises
    ------
    UsageError
        if a name or the device is unknown (the message names near matches), or something else than a name or a
        function is given.
    """
    check_known("device", device, DEVICES)
    several = _several("kernels", given, "name or function")
    specs = dict.fromkeys(with_operands(spec_of(one), None, device) for one in several)
    for spec in specs:
        find_kernel(spec)
    return tuple(specs)


def _several(what: str, given: Any, expected: str) -> list[Any]:
    """Return what was given, one thing or several, as a list; raise UsageError if it is empty."""
    single = isinstance(given, str) or callable(given) or not isinstance(given, Iterable)
    several = [given] if single else list(given)
    if not several:
        raise UsageError(f"{what}: none is named; expected at least one {expected}")
    return several


def spec_of(given: Any, kind: str = "kernel") -> str:
    """Return a name as it is; write a function, by value, into a file that other processes can import.

    Raises
    ------
    UsageError
        if ``given`` is neither, or the function cannot be pickled.
    """
    if isinstance(given, str):
        return given
    if not callable(given):
        raise UsageError(f"{kind} {printable(repr(given), 60)}: expected a name or a function")
    import cloudpickle

    name = getattr(given, "__name__", type(given).__name__)
    module = sys.modules.get(getattr(given, "__module__", None) or "")
    by_value = module is not None and _is_here_alone(module.__name__)
    try:
        if by_value:
            cloudpickle.register_pickle_by_value(module)
        content = cloudpickle.dumps(given)
    except Exception as error:
        raise UsageError(
            f"{kind} {name}: it cannot be sent to a process of its own ({printable(str(error), 200)}); "
            f"write it into a file and name it as path/to/file.py:function"
        ) from None
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    path = Path(_folder().name, str(next(_numbers)), "passed.py")
    path.parent.mkdir()
    path.write_text(
        f"import pickle, sys\n"
        f"sys.path += [each for each in {[os.path.abspath(each) for each in sys.path]!r} if each not in sys.path]\n"
        f"function = pickle.loads({content!r})\n",
        encoding="utf-8",
    )
    operands = getattr(given, "operands", None)  # numba's functions are pickled without it
    spec = f"{path}:function@{operands}" if operands else f"{path}:function"
    _names[spec] = name
    return spec


def _is_here_alone(module: str) -> bool:
    """Whether another process would not find ``module``: a test runner loads files that are on no path."""
    top = module.partition(".")[0]
    return top not in {"__main__", *sys.stdlib_module_names} and PathFinder.find_spec(top) is None


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="matmulbench-")  # removed at exit


def renaming(specs: Iterable[str]) -> Callable[[str], str]:
    """Return a function that replaces, in a text, the files that functions were written into by the functions' names.

    Functions of one name are told apart by a number.
    """
    names: dict[str, str] = {}
    for spec in filter(_names.__contains__, specs):
        taken = {*kernels(), *names.values()}
        choices = (_names[spec] + f" ({i})" * (i > 1) for i in itertools.count(1))
        names[spec] = next(name for name in choices if name not in taken)

    def rename(text: str) -> str:
        for spec, name in names.items():
            # A finding is repeated where the function is: in Python.
            command = rf"matmulbench verify {re.escape(quoted(spec))}"
            text = re.sub(rf"{command} --case ([^\s`]+)", rf"matmulbench.verify({name}, case='\1')", text)
            text = re.sub(rf"{command} --dtype ([^\s`]+)", rf"matmulbench.verify({name}, '\1')", text)
            text = text.replace(repr(spec), name).replace(spec, name)
        return text

    return rename


def read_workloads(given: Any, dtype: str = "float32") -> tuple[Workload, ...]:
    """Return workloads, given as one or several texts (``5x784x10``), tuples or :class:`Workload`.

    A tuple is (m, k, n) or (batch, m, k, n). ``dtype`` is that of those which say none.

    Raises
    ------
    UsageError
        if one has another form, or its operands and result do not fit into this machine's memory.
    """
    check_known("dtype", dtype, DTYPES)
    sizes = isinstance(given, tuple) and all(isinstance(size, int) for size in given)
    several = _several("workloads", [given] if sizes else given, "such as 5x784x10")
    return tuple(_workload(one, dtype) for one in several)


def _workload(given: Any, dtype: str) -> Workload:
    if not isinstance(given, str | tuple | Workload):
        raise UsageError(f"workload {printable(repr(given), 60)}: expected a text such as 5x784x10")
    text = str(given)
    if isinstance(given, tuple):
        text = "".join(f"{size}*" for size in given[:-3]) + "x".join(map(str, given[-3:]))
    workload = given if isinstance(given, Workload) else Workload.parse(text, dtype)
    if min(workload.batch, workload.m, workload.k, workload.n) < 1:
        raise UsageError(f"workload {text!r}: expected sizes from 1")
    check_memory(f"workload {text!r}", workload)
    return workload


def check_memory(what: str, workload: Workload) -> None:
    """Raise UsageError if operands and product are larger than this machine's memory."""
    memory = psutil.virtual_memory().total
    if workload.bytes > memory:
        raise UsageError(f"{what} takes {workload.bytes:.3g} bytes, this machine has {memory:.3g}")


def thread_counts(given: str | int | Iterable[int], cores: int | None = None) -> tuple[int, ...]:
    """Return thread counts, given as one, several or a text such as ``1,2``.

    Raises
    ------
    UsageError
        if one is no number from 1 to ``cores``, by default those of this machine.
    """
    several = given.split(",") if isinstance(given, str) else given if isinstance(given, Iterable) else [given]
    most, whose = (cores, "each machine") if cores else (len(usable_cores()), "this machine")
    known = {str(count): count for count in range(1, most + 1)}
    counts = list(map(str, several))
    if not counts or not known.keys() >= set(counts):
        text = printable(str(given), 60)
        example = "such as 1,2" if most > 1 else "of which this process may use one"
        raise UsageError(f"threads {text!r}: expected counts from 1 to {most}, the cores of {whose}, {example}")
    return tuple(dict.fromkeys(known[count] for count in counts))


def dtype_names(given: Any) -> tuple[str, ...]:
    """Return the names of dtypes, given as one or several names, or as numpy and torch have them."""
    several = _several("dtypes", given, f"of {', '.join(DTYPES)}")
    names = (one if isinstance(one, str) else getattr(one, "__name__", str(one)) for one in several)
    return tuple(name.removeprefix("torch.") for name in names)


def check_seconds(name: str, value: float) -> None:
    """Raise UsageError unless ``value`` is a number of seconds above 0, and of a week at most."""
    number = isinstance(value, Real)
    if not number or not 0 < value <= WEEK_S:
        raise UsageError(
            f"{name} {f'{value:g}' if number else repr(value)}: expected seconds above 0, at most {WEEK_S}"
        )
