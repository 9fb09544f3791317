"""Tensors as compiled code sees them, and compiled code as Python calls it.

To read sizes, strides and addresses of two tensors in Python and to make a third takes longer than a small product.
DLPack's C exchange API (https://dmlc.github.io/dlpack, version 1.3) gives the same to compiled code in a tenth of the
time; torch offers it as ``torch.Tensor.__dlpack_c_exchange_api__``. Objects and addresses are ``int64`` here.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types

from matmulbench.ladder.tiled.vectors import I64, call, emitted, jit, on_stack, words

_VERSION = 1
_ALLOCATE, _TO_PYTHON, _VIEW = 2, 4, 5  # places in DLPackExchangeAPI, in words; the version is the first
# A DLTensor, as dlpack.h lays it out where pointers have 64 bits, has six words: data; device type and number;
# dimensions and dtype; shape; strides; offset in bytes. Two that share a word have half of it each.
_HEADER = object.__basicsize__  # bytes
_HALF = 2**32 - 1
_MANAGED = 32  # where the DLTensor begins in a DLManagedTensorVersioned
_CPU = 1
_METH_FASTCALL = 0x80
_HUGE_PAGES: int = getattr(mmap, "MADV_HUGEPAGE", 0)  # Linux's, as others have it on their own or not at all
_HUGE_FROM = 1 << 22  # bytes, as numpy has it
_PAGE = mmap.PAGESIZE

# DLDataTypes: the code of floats or bfloat, bits, lanes.
FLOAT32, FLOAT64, BFLOAT16 = (code | bits << 8 | 1 << 16 for code, bits in ((2, 32), (2, 64), (4, 16)))


@numba.cfunc(types.void(types.int64, types.int64, types.int64), cache=True)
def _ignore(context: int, kind: int, message: int) -> None:
    """Take the news that there is no memory: the address of a tensor that was not made says it too."""


class ExchangeApi(NamedTuple):
    """The addresses of torch's functions, of what takes the message of an error, and of ``madvise``, or 0."""

    view: int
    allocate: int
    to_python: int
    ignore: int
    advise: int


def _exchange_api() -> ExchangeApi:
    """Ask torch for its functions.

    Raises
    ------
    ImportError
        if this torch has no such functions, or only those of another version.
    """
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        raise ImportError(f"torch {torch.__version__} has no DLPack C exchange API; a newer one has")
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = cast(int, pointer(capsule, b"dlpack_exchange_api"))
    if (version := ctypes.c_uint32.from_address(address).value) != _VERSION:
        raise ImportError(f"torch {torch.__version__} has version {version} of DLPack's C exchange API, not {_VERSION}")
    table = (ctypes.c_uint64 * (_VIEW + 1)).from_address(address)
    advise = ctypes.cast(ctypes.CDLL(None).madvise, ctypes.c_void_p).value if _HUGE_PAGES else 0
    return ExchangeApi(table[_VIEW], table[_ALLOCATE], table[_TO_PYTHON], cast(int, _ignore.address), advise or 0)


EXCHANGE = _exchange_api()


@jit
def view(function: int, tensor: int) -> tuple[int, int, int, int, int, int]:
    """Look at a tensor by torch's ``function``.

    Returns its DLDataType, address, rows and columns, and the elements to the next row and the next column: all 0 where
    it is no matrix in the CPU's memory.
    """
    out = on_stack((0, 0, 0, 0, 0, 0))
    if call(function, (tensor, out)) != 0:
        clear_error()
        return 0, 0, 0, 0, 0, 0
    data, device, ndim_and_dtype, shape, strides, offset = words(out, 6)
    if device & _HALF != _CPU or ndim_and_dtype & _HALF != 2:
        return 0, 0, 0, 0, 0, 0
    rows, columns = words(shape, 2)
    to_row, to_column = words(strides, 2)
    return ndim_and_dtype >> 32, data + offset, rows, columns, to_row, to_column


@jit
def new_matrix(allocate: int, ignore: int, advise: int, dtype: int, rows: int, columns: int) -> tuple[int, int]:
    """Make a matrix of a DLDataType; return what :func:`to_python` takes, 0 if there is no memory, and its address.

    A large one is to have huge pages where the system leaves that to programs: each page is a fault when it is first
    written to, and 4 KiB of a result take less time to compute than that.
    """
    shape = on_stack((rows, columns))
    like = on_stack((0, _CPU, dtype << 32 | 2, shape, 0, 0))
    made = on_stack((0,))
    if call(allocate, (like, made, 0, ignore)) != 0:
        return 0, 0
    (handle,) = words(made, 1)
    (data,) = words(handle + _MANAGED, 1)
    size = rows * columns * (dtype >> 8 & 0xFF) // 8
    if advise != 0 and size >= _HUGE_FROM:
        first = -(-data // _PAGE) * _PAGE
        call(advise, (first, data + size - first, _HUGE_PAGES))
    return handle, data


@jit
def numbers_of(array: int) -> int:
    """Return the address of what a numpy array holds: the first field behind the header, in numpy's C API."""
    return words(array + _HEADER, 1)[0]  # type: ignore[no-any-return]


@jit
def to_python(function: int, handle: int) -> int:
    """Turn a new matrix into an object that Python owns; 0 with an exception set, if that fails."""
    made = on_stack((0,))
    call(function, (handle, made))
    return words(made, 1)[0]  # type: ignore[no-any-return]


@emitted
def clear_error(typing_context: Any) -> Any:
    """Forget Python's exception."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.get_python_api(builder).err_clear()
        return context.get_dummy_value()

    return types.void(), codegen


@emitted
def none(typing_context: Any) -> Any:
    """Return Python's None, which the caller owns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(context.get_python_api(builder).make_none(), I64)

    return types.int64(), codegen


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_DEFINED: list[_MethodDef] = []  # must outlive the functions


def python_function(name: str, compiled: Any, table: npt.NDArray[np.int64]) -> Callable[..., Any]:
    """Return a function of Python's whose body is ``compiled``.

    That is a numba ``cfunc`` (int64 self, int64 arguments, int64 count) -> int64 and returns an object that the caller
    owns, or 0 with an exception set. ``arguments`` is where those of the arguments stand (METH_FASTCALL in Python's C
    API), ``self`` is ``table``: what the compiled function needs, which it finds by :func:`numbers_of`.
    """
    definition = _MethodDef(name.encode(), compiled.address, _METH_FASTCALL, None)
    _DEFINED.append(definition)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    return cast("Callable[..., Any]", make(ctypes.addressof(definition), table, None))
