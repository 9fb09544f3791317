"""Read MNIST's arrays from a pickle that may have been written by anyone.

A pickle is a program for a small stack machine. This reader carries out only the instructions that arrays in tuples or
lists need (protocols 0 to 5, from Python 2 or 3). It imports nothing and calls nothing that the pickle names: what
arrays need has stand-ins here. Instructions and bytes are both limited, and with them time (seconds) and memory (1 GB).
"""

from __future__ import annotations

import codecs
import pickletools
from itertools import islice
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

INSTRUCTIONS = 5_000  # six arrays take some 300
BYTES = 480_000_000  # as float64, MNIST has 439 million
_SHORT = 255  # characters of a text that may be a name; a longer one stands for bytes

_PUSH = {"NONE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8"}
_PUSH |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_GLOBALS = {"numpy ndarray", "numpy dtype", "_codecs encode"} | {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")  # as numpy 1 and numpy 2 write it
    for name in ("multiarray _reconstruct", "numeric _frombuffer")
}
_KINDS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f4", "f8"}


class _Source:
    """A file of which ``BYTES`` can be read; ``text`` is what the last line of text stands for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left, self.code = file, BYTES, b""
        self.text: str | bytearray = ""

    def read(self, size: int) -> bytes:
        self._spend(size)
        data = self.file.read(size)
        if len(data) < size:
            raise UnpicklingError("it is cut short")
        if size == 1:
            self.code = data
        elif size > _SHORT and self.code in b"X\x8d" and np.frombuffer(data, np.uint8).max() > 0xC3:
            # BINUNICODE; beyond latin-1 it is no array's, and would take up to four bytes a character.
            raise UnpicklingError("a text in it has characters that stand for no byte")
        return data

    def readline(self) -> bytes:
        if self.code in b"SV":
            self._read_text()
            return b"''\n"
        line = self.file.readline(100)
        if not line.endswith(b"\n"):
            raise UnpicklingError("it is cut short")
        return line

    def _read_text(self) -> None:
        """Read a line of text in protocol 0, piece by piece: its escapes take up to six characters for a byte."""
        decoder = codecs.getincrementaldecoder("unicode_escape" if self.code == b"S" else "raw_unicode_escape")()
        text, line = bytearray(), b""
        while not line.endswith(b"\n"):
            line = self.file.readline(2**20)
            piece = decoder.decode(line.removesuffix(b"\n"), final=not line).encode("latin-1")
            if not line or len(decoder.getstate()[0]) > 10:
                raise UnpicklingError("it is cut short")
            self._spend(max(len(piece), len(line) // 3))
            text += piece
        if self.code == b"S":
            text = text[1:-1]  # without its quotes
        self.text = text if len(text) > _SHORT else text.decode("latin-1")

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise UnpicklingError(f"it has more than {BYTES} bytes: save MNIST as float32, with protocol=4")


class _Global(str):
    """What arrays need of numpy, by name."""


class _DType:
    """Stands for a dtype; its byte order is set after it is made."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="


class _Array:
    """Stands for an array; ``value`` is set once shape, dtype and bytes are known."""

    value: npt.NDArray[Any]

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> _Array:
        if not isinstance(dtype, _DType) or dtype.code not in _KINDS or dtype.order not in ("<", ">", "=", "|"):
            raise UnpicklingError("an array in it is not of plain numbers")
        flat: npt.NDArray[Any] = np.frombuffer(_as_bytes(data), dtype.order + dtype.code)
        self.value = flat.reshape(shape, order="F" if fortran else "C")
        return self


def load_pairs(file: BinaryIO) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Read the three pairs (x, y) of numpy arrays of a pickle; ``file`` stands at its start.

    Raises
    ------
    UnpicklingError
        if the pickle needs anything else, is too large, cut short or damaged.
    """
    try:
        sets = _interpret(_Source(file))
    except (UnpicklingError, OSError, EOFError):
        raise
    except Exception as error:  # a damaged pickle may bring about almost any
        raise UnpicklingError(f"it is damaged ({type(error).__name__})") from None
    try:
        (a, b), (c, d), (e, f) = sets
        return [(a.value, b.value), (c.value, d.value), (e.value, f.value)]
    except (AttributeError, TypeError, ValueError):
        raise UnpicklingError("expected are three pairs (x, y) of arrays: train, valid and test") from None


def _interpret(source: _Source) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop_from(start: int) -> tuple[Any, ...]:
        items = tuple(stack[start:])
        del stack[start:]
        return items

    for instruction, argument, _ in islice(pickletools.genops(source), INSTRUCTIONS):  # type: ignore[arg-type]
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in _PUSH:
                long = isinstance(argument, str) and len(argument) > _SHORT
                stack.append(_as_bytes(argument) if long else argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "STRING" | "UNICODE":
                stack.append(source.text)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(pop_from(marks.pop()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(pop_from(len(stack) - int(name[-1])))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append([*pop_from(marks.pop())])
            case "APPEND" | "APPENDS" as name:
                items = pop_from(len(stack) - 1 if name == "APPEND" else marks.pop())
                stack[-1] += items
            case "GLOBAL":
                stack.append(_global(str(argument)))
            case "STACK_GLOBAL":
                stack.append(_global(" ".join(pop_from(len(stack) - 2))))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "STOP":
                return stack.pop()
            case name:
                raise UnpicklingError(f"it has the instruction {name}, which arrays do not need")
    raise UnpicklingError(f"it has more than {INSTRUCTIONS} instructions; six arrays take some 300")


def _as_bytes(data: Any) -> Any:
    """Return ``data``, or the bytes that a text stands for, as Python 2 and protocols below 3 write them."""
    return data.encode("latin-1") if isinstance(data, str) else data


def _global(wanted: str) -> _Global:
    if wanted not in _GLOBALS:
        named = ascii(wanted[:100].replace(" ", "."))[:100]
        raise UnpicklingError(f"it asks for {named}, and only numpy arrays are let in")
    return _Global(wanted.split()[-1])


def _call(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case _Global("dtype"), (str() as code, *_):
            return _DType(code)
        case _Global("_reconstruct"), (_Global("ndarray"), (0,), _):
            return _Array()
        case _Global("_frombuffer"), (data, dtype, shape, "C" | "F" as order, *_):
            return _Array().fill(shape, dtype, order == "F", data)
        case _Global("encode"), (str() | bytes() | bytearray() as text, "latin1" | "latin-1"):
            return _as_bytes(text)
    raise UnpicklingError("it makes something other than arrays of numbers")


def _build(target: Any, state: Any) -> None:
    match target, state:
        case _DType(), (_, str() as order, *_):
            target.order = order
        case _Array(), (_, shape, dtype, fortran, data):
            target.fill(shape, dtype, fortran, data)
        case _:
            raise UnpicklingError("it makes something other than arrays of numbers")
