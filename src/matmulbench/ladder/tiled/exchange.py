"""Tensors as compiled code sees them, and compiled code as Python calls it.

To read sizes, strides and addresses of two tensors in Python and to make a third takes longer than a small product.
DLPack's C exchange API (https://dmlc.github.io/dlpack, version 1.3) gives the same to compiled code in a tenth of the
time; torch offers it as ``torch.Tensor.__dlpack_c_exchange_api__``. Objects and addresses are ``int64`` here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, cast

import llvmlite.binding as llvm
import numba
import torch
from llvmlite import ir
from numba.core import cgutils, types

from matmulbench.ladder.tiled.vectors import I64, emitted

_I32 = ir.IntType(32)
_POINTER = ir.IntType(8).as_pointer()
_VERSION = 1
_ALLOCATE, _TO_PYTHON, _VIEW = 2, 4, 5  # places in DLPackExchangeAPI, in words; the version is the first
# Places in a DLTensor, in bytes, as dlpack.h lays it out where pointers have 64 bits; in all it has six words.
_DATA, _DEVICE, _NDIM, _DTYPE, _SHAPE, _STRIDES, _OFFSET = 0, 8, 16, 20, 24, 32, 40
_WORDS = 6
_MANAGED = 32  # where the DLTensor begins in a DLManagedTensorVersioned
_CPU = 1
_METH_FASTCALL = 0x80

FLOAT32, FLOAT64 = (2 | bits << 8 | 1 << 16 for bits in (32, 64))  # a DLDataType: code of floats, bits, lanes


@numba.cfunc(types.void(types.int64, types.int64, types.int64), cache=True)
def _ignore(context: int, kind: int, message: int) -> None:
    """Take the news that there is no memory: the address of a tensor that was not made says it too."""


def _find_exchange_api() -> None:
    """Tell LLVM where torch's functions are.

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
    words = (ctypes.c_uint64 * (_VIEW + 1)).from_address(address)
    for name, place in (("allocate", _ALLOCATE), ("to_python", _TO_PYTHON), ("view", _VIEW)):
        llvm.add_symbol(f"matmulbench_{name}", words[place])
    llvm.add_symbol("matmulbench_ignore", _ignore.address)


_find_exchange_api()


def _function(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]


def _field(builder: Any, structure: Any, offset: int, kind: Any) -> Any:
    """Return the address of what lies ``offset`` bytes into ``structure``."""
    place = builder.gep(structure, [ir.Constant(I64, offset)])
    return builder.bitcast(place, kind.as_pointer())


def _integers(count: int) -> Any:
    return types.UniTuple(types.int64, count)  # type: ignore[no-untyped-call]


def _on_stack(builder: Any, words: int) -> Any:
    place = cgutils.alloca_once(builder, ir.ArrayType(I64, words))  # type: ignore[no-untyped-call]
    return builder.bitcast(place, _POINTER)


@emitted
def view(typing_context: Any, tensor: Any) -> Any:
    """Look at a tensor: its DLDataType, address, rows and columns, and the elements to the next row and column.

    All are 0 where it is no matrix in the CPU's memory.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out = _on_stack(builder, _WORDS)

        def load(offset: int, kind: Any) -> Any:
            return builder.load(_field(builder, out, offset, kind))

        found = [cgutils.alloca_once_value(builder, ir.Constant(I64, 0)) for _ in range(6)]  # type: ignore[no-untyped-call]
        failed = builder.call(
            _function(builder, "matmulbench_view", _I32, _POINTER, _POINTER), (builder.inttoptr(args[0], _POINTER), out)
        )
        with builder.if_else(builder.icmp_signed("==", failed, ir.Constant(_I32, 0))) as (then, otherwise):
            with then:
                two = builder.icmp_signed("==", load(_NDIM, _I32), ir.Constant(_I32, 2))
                here = builder.icmp_signed("==", load(_DEVICE, _I32), ir.Constant(_I32, _CPU))
                with builder.if_then(builder.and_(two, here)):
                    builder.store(builder.zext(load(_DTYPE, _I32), I64), found[0])
                    builder.store(builder.add(load(_DATA, I64), load(_OFFSET, I64)), found[1])
                    for place, pair in ((2, _SHAPE), (4, _STRIDES)):
                        first = load(pair, _POINTER)
                        builder.store(builder.load(_field(builder, first, 0, I64)), found[place])
                        builder.store(builder.load(_field(builder, first, 8, I64)), found[place + 1])
            with otherwise:
                context.get_python_api(builder).err_clear()
        return context.make_tuple(builder, signature.return_type, [builder.load(one) for one in found])

    return _integers(6)(types.int64), codegen


@emitted
def new_matrix(typing_context: Any, dtype: Any, rows: Any, columns: Any) -> Any:
    """Make a matrix of a DLDataType; return what :func:`to_python` takes, 0 if there is no memory, and its address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dtype, rows, columns = args
        shape, like, made = (_on_stack(builder, words) for words in (2, _WORDS, 1))
        builder.store(rows, _field(builder, shape, 0, I64))
        builder.store(columns, _field(builder, shape, 8, I64))
        for place in range(_WORDS):
            builder.store(ir.Constant(I64, 0), _field(builder, like, 8 * place, I64))
        builder.store(ir.Constant(_I32, _CPU), _field(builder, like, _DEVICE, _I32))
        builder.store(ir.Constant(_I32, 2), _field(builder, like, _NDIM, _I32))
        builder.store(builder.trunc(dtype, _I32), _field(builder, like, _DTYPE, _I32))
        builder.store(shape, _field(builder, like, _SHAPE, _POINTER))
        allocate = _function(builder, "matmulbench_allocate", _I32, *[_POINTER] * 4)
        ignore = builder.bitcast(_function(builder, "matmulbench_ignore", ir.VoidType()), _POINTER)
        failed = builder.call(allocate, (like, made, ir.Constant(_POINTER, None), ignore))
        handle, at = (cgutils.alloca_once_value(builder, ir.Constant(I64, 0)) for _ in "ha")  # type: ignore[no-untyped-call]
        with builder.if_then(builder.icmp_signed("==", failed, ir.Constant(_I32, 0))):
            managed = builder.load(_field(builder, made, 0, _POINTER))
            builder.store(builder.ptrtoint(managed, I64), handle)
            builder.store(builder.load(_field(builder, managed, _MANAGED + _DATA, I64)), at)
        return context.make_tuple(builder, signature.return_type, [builder.load(handle), builder.load(at)])

    return _integers(2)(types.int64, types.int64, types.int64), codegen


@emitted
def to_python(typing_context: Any, handle: Any) -> Any:
    """Turn a new matrix into an object that Python owns; 0 with an exception set, if that fails."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = _on_stack(builder, 1)
        builder.store(ir.Constant(I64, 0), _field(builder, made, 0, I64))
        turn = _function(builder, "matmulbench_to_python", _I32, _POINTER, _POINTER)
        builder.call(turn, (builder.inttoptr(args[0], _POINTER), made))
        return builder.load(_field(builder, made, 0, I64))

    return types.int64(types.int64), codegen


@emitted
def none(typing_context: Any) -> Any:
    """Return Python's None, which the caller owns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        api = context.get_python_api(builder)
        return builder.ptrtoint(api.make_none(), I64)

    return types.int64(), codegen


@emitted
def argument(typing_context: Any, arguments: Any, place: Any) -> Any:
    """Return the argument at ``place`` of those that a :func:`python_function` was called with."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arguments = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load(builder.gep(arguments, [args[1]]))

    return types.int64(types.int64, types.int64), codegen


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_DEFINED: list[_MethodDef] = []  # must outlive the functions


def python_function(name: str, compiled: Any) -> Callable[..., Any]:
    """Return a function of Python's whose body is ``compiled``.

    That is a numba ``cfunc`` (int64 self, int64 arguments, int64 count) -> int64 and returns an object that the caller
    owns, or 0 with an exception set; it looks at its arguments with :func:`argument` (METH_FASTCALL in Python's C API).
    """
    definition = _MethodDef(name.encode(), compiled.address, _METH_FASTCALL, None)
    _DEFINED.append(definition)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    return cast("Callable[..., Any]", make(ctypes.addressof(definition), None, None))
