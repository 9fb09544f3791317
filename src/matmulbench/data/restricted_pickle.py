"""Read numpy arrays from a pickle that may have been written by anyone.

A pickle is a program. This reader lets it name three things, those that a numpy array needs, and gives it harmless
stand-ins for them: it cannot call anything else, nor ask for an array larger than the bytes that it brings.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

import numpy as np

from matmulbench.data.errors import DataError


class _ArrayType:
    """Stands for ``numpy.ndarray``, which would allocate any size if it were called."""


def _reconstruct(array_type: Any, shape: Any, kind: Any) -> np.ndarray[Any, Any]:
    """Make the empty array that a pickle then fills; numpy compares the size with the bytes that come."""
    if array_type is not _ArrayType or shape != (0,):
        raise pickle.UnpicklingError(f"an array is made from {array_type!r} with shape {shape!r}")
    return np.empty(0, np.uint8)


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    if code not in ("f4", "f8", "i4", "i8", "u1"):
        raise pickle.UnpicklingError(f"dtype {code!r}")
    kind: np.dtype[Any] = np.dtype(code, copy=True)  # a copy, for the pickle goes on to set its byte order
    return kind


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # as numpy 1 writes it
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # as numpy 2 does
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _dtype,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only numpy arrays are let in") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for a persistent object")


def load_arrays(content: bytes, name: str) -> Any:
    """Unpickle ``content``, made of numpy arrays, tuples, lists, numbers and text; ``name`` is for the message.

    Raises
    ------
    DataError
        if the pickle asks for anything else, or is damaged.
    """
    try:
        # latin-1 keeps byte for byte what a Python 2 pickle calls a string.
        return _Reader(io.BytesIO(content), encoding="latin-1").load()
    except Exception as error:  # a damaged pickle may raise almost any
        raise DataError(f"{name}: pickle: {type(error).__name__}: {error}") from None
