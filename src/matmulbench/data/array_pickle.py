"""Read MNIST's arrays from a pickle that may have been written by anyone.

A pickle is a program for a small stack machine. Of its instructions, only those are carried out that arrays in tuples
or lists need (protocols 0 to 5, from Python 2 or 3), and stand-ins take the place of the few things that such a pickle
names: nothing is imported, and nothing called. Instructions and bytes are limited, and with them time and memory.
"""

from __future__ import annotations

import pickle
import pickletools
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

READS = 20_000  # one or more for each instruction; six arrays take some 1,000
BYTES = 480_000_000  # as float64, MNIST has 439 million
_SHORT = 255  # characters of a text that may be a name; a longer one stands for bytes
_KINDS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f4", "f8"}


class _DType:
    """Stands for a dtype; its byte order is set after it is made."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """Stands for an array."""

    state: tuple[Any, ...] = (None, None, None, None)

    def __setstate__(self, state: Any) -> None:
        self.state = state[1:]

    def read(self) -> npt.NDArray[Any]:
        """Make the array."""
        shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _DType) or dtype.code not in _KINDS or dtype.order not in ("<", ">", "=", "|"):
            raise UnpicklingError("an array in it is not of plain numbers")
        flat: npt.NDArray[Any] = np.frombuffer(_as_bytes(data), dtype.order + dtype.code)
        return flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> Any:
    return kind()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> _Array:
    array = _Array()
    array.state = (shape, dtype, order == "F", data)
    return array


def _encode(text: Any, encoding: Any) -> Any:
    """Return the text that stands for bytes: they are made of it in the end, once."""
    return text


def _as_bytes(data: Any) -> Any:
    return data.encode("latin-1") if isinstance(data, str) else data


_STAND_INS = {"numpy.ndarray": _Array, "numpy.dtype": _DType, "_codecs.encode": _encode} | {
    f"numpy.{core}.{module}.{stand_in.__name__}": stand_in
    for core in ("core", "_core")  # as numpy 1 and numpy 2 write it
    for module, stand_in in (("multiarray", _reconstruct), ("numeric", _frombuffer))
}
_ALL = pickle._Unpickler.dispatch
_CODES = {instruction.name: ord(instruction.code) for instruction in pickletools.opcodes}

_NEEDED = """
    PROTO STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 PUT BINPUT LONG_BINPUT MEMOIZE GET
    BINGET LONG_BINGET EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS GLOBAL STACK_GLOBAL REDUCE
    BUILD
"""


class _Instructions(dict[int, Any]):
    """What carries out each instruction that arrays need."""

    def __missing__(self, code: int) -> None:
        name = {code: name for name, code in _CODES.items()}[code]
        raise UnpicklingError(f"it has the instruction {name}, which arrays do not need")


class _Reader(pickle._Unpickler):
    """Python's own unpickler: the one in C takes memory for what a pickle merely claims."""

    dispatch = _Instructions({_CODES[name]: _ALL[_CODES[name]] for name in _NEEDED.split()})
    dispatch[_CODES["BYTEARRAY8"]] = _ALL[_CODES["BINBYTES8"]]
    dispatch[_CODES["FRAME"]] = lambda self: self.read(8)  # what is in a frame can be read piece by piece, too

    def find_class(self, module: str, name: str) -> Any:
        if stand_in := _STAND_INS.get(f"{module}.{name}"):
            return stand_in
        raise UnpicklingError(f"it asks for {ascii(f'{module}.{name}'[:100])[:100]}, and only numpy arrays are let in")

    def _decode_string(self, value: bytes) -> str | bytes:
        return value if len(value) > _SHORT else value.decode("latin-1")


class _Source:
    """A file of which ``BYTES`` can be read, in ``READS`` pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left, self.reads = file, BYTES, 0

    def read(self, size: int) -> bytes:
        self._spend(size)
        data = self.file.read(size)
        if len(data) < size:
            raise UnpicklingError("it is cut short")
        return data

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        self._spend(len(line))
        if not line.endswith(b"\n"):
            raise UnpicklingError("it is cut short")
        return line

    def _spend(self, size: int) -> None:
        self.left, self.reads = self.left - size, self.reads + 1
        if self.left < 0:
            raise UnpicklingError(f"it has more than {BYTES} bytes: save MNIST as float32, with protocol=4")
        if self.reads > READS:
            raise UnpicklingError("it has more instructions than six arrays need")


def load_pairs(file: BinaryIO) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Read the three pairs (x, y) of numpy arrays of a pickle; ``file`` stands at its start.

    Raises
    ------
    UnpicklingError
        if the pickle needs anything else, is too large, cut short or damaged.
    """
    try:
        sets = _Reader(_Source(file)).load()
        match sets:
            case [[_Array(), _Array()], [_Array(), _Array()], [_Array(), _Array()]]:
                return [(x.read(), y.read()) for x, y in sets]
    except (UnpicklingError, OSError, EOFError):
        raise
    except Exception as error:  # what is no array's may bring about almost any
        raise UnpicklingError(f"it is damaged, or no pickle of arrays ({type(error).__name__})") from None
    raise UnpicklingError("expected are three pairs (x, y) of arrays: train, valid and test")
