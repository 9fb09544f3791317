"""Devices that are not the CPU: what timing on one takes, and how its kernels come to take CPU tensors."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch

_DECLARED = ("accumulation", "batched", "device", "dtypes", "empty")  # what a kernel says of itself
# Those on a device by what was made of them; in an attribute a kernel could name another one to be timed.
_MIRRORED: WeakKeyDictionary[Callable[..., Any], Callable[..., Any]] = WeakKeyDictionary()
_UNSET, _LARGEST_UNSET = 3, 2**28  # blocks that are filled with NaN and freed before a call, of so many bytes at most


class Device:
    """A device that works off a queue, while the processor goes on: the NVIDIA GPU that torch takes.

    ``place`` is torch's name of it.
    """

    place = "cuda"

    def require(self) -> None:
        """Make it usable in this process; ImportError if there is none: its kernels are unavailable here."""
        import torch

        if sys.platform != "win32":
            with suppress(ImportError, OSError, ValueError):
                import resource

                # CUDA reserves as many addresses as there is memory in all, of which it takes little.
                _, hard = resource.getrlimit(resource.RLIMIT_AS)
                resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        if not torch.cuda.is_available():
            raise ImportError("no CUDA device, as far as torch sees")

    @functools.cached_property
    def cache_bytes(self) -> int:
        """What its last cache holds."""
        import torch

        return int(torch.cuda.get_device_properties().L2_cache_size)

    def mark(self) -> Any:
        """Put a mark into the queue, behind all that it holds; return it."""
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Return how many seconds after the mark ``start`` the device came to ``end``; both are behind it."""
        return float(start.elapsed_time(end)) / 1e3

    def drain(self) -> None:
        """Wait until the whole device has nothing left to do for this process, in whatever queue."""
        import torch

        torch.cuda.synchronize()

    @functools.cached_property
    def _buffer(self) -> torch.Tensor:
        import torch

        return torch.empty(2 * self.cache_bytes, dtype=torch.uint8, device=self.place)

    def flush(self) -> None:
        """Put all else out of its caches."""
        self._buffer.zero_()

    def clocks(self) -> list[int] | None:
        """Return the MHz of processors and memory, where they can be asked."""
        command = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader,nounits"]
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
            return [int(each) for each in said.splitlines()[0].split(",")]
        return None


DEVICES: dict[str, Device | None] = {"cpu": None, "cuda": Device()}
"""The devices by name; the CPU does at once what it is given."""


def on_device(kernel: Any, name: str) -> Any:
    """Return ``kernel``, as :func:`~matmulbench.ladder.plugins.load_kernel` does, as it is on the device ``name``.

    Raises
    ------
    ImportError
        if it works elsewhere: the time of copies would be taken for its own.
    """
    there = unmirrored(kernel)
    where = kernel.device if there else "cpu"
    if where != name:
        raise ImportError(f"it works on {where}, not on {name}: --device {where} has it timed there")
    return there or kernel


def unmirrored(kernel: Any) -> Callable[..., Any] | None:
    """Return the kernel on a device of which :func:`mirrored` made ``kernel``; None of any other."""
    return _MIRRORED.get(kernel) if isinstance(kernel, FunctionType) else None


@dataclass(eq=False)
class _Memory:
    """Bytes on the CPU and their copy on a device; ``was`` is what the device had when both were equal."""

    host: torch.Tensor
    device: torch.Tensor
    was: torch.Tensor


def mirrored(kernel: Callable[..., Any], device: str, drain: Callable[[], None] = lambda: None) -> Callable[..., Any]:
    """Return what takes CPU tensors, and multiplies with ``kernel``, which takes tensors on ``device``.

    What the kernel does there, happens to the tensors on the CPU: an operand that it writes to changes, and a result
    in the memory of an operand, or of an earlier result that is still in use, is so here, too. A tensor that comes
    again is the same tensor there, with the values that it has by then. ``drain`` waits for the device.
    :func:`unmirrored` gives ``kernel`` back.

    What is returned raises ValueError if the result is not on ``device``, besides what ``kernel`` raises.
    """
    import torch
    from torch.utils.weak import WeakTensorKeyDictionary

    known: Any = WeakTensorKeyDictionary()  # CPU tensors in use: each with its twin on the device, and the memory

    def to_device(x: torch.Tensor) -> torch.Tensor:
        """Return the twin of ``x``, with the values that ``x`` has now."""
        storage = x.untyped_storage()
        twin, memory = known.get(x, (None, None))
        if twin is None or _form(twin, memory.device) != _form(x, memory.host):
            same = (each for _, each in known.values() if each.host.data_ptr() == storage.data_ptr() != 0)
            memory = next(same, None)
            if memory is None:
                host = torch.empty(0, dtype=torch.uint8).set_(storage)
                memory = _Memory(host, host.to(device, copy=True), host.to(device, copy=True))
            twin = _like(x, memory.device, int(x.storage_offset()) * x.element_size())
            known[x] = twin, memory
        memory.device.copy_(memory.host)
        memory.was.copy_(memory.host)
        return twin  # type: ignore[no-any-return]

    def to_host(c: torch.Tensor) -> torch.Tensor:
        """Return the CPU tensor whose twin is ``c``, in memory of its own only if ``c`` has."""
        storage = c.untyped_storage()
        place = storage.data_ptr()
        around = (
            each
            for _, each in known.values()
            if 0 <= place - each.device.data_ptr() <= each.device.nbytes - storage.nbytes() and storage.nbytes()
        )
        memory = next(around, None)
        if memory is None:
            there = torch.empty(0, dtype=torch.uint8, device=c.device).set_(storage)
            memory = _Memory(there.to("cpu", copy=True), there, there.clone())
        found = _like(c, memory.host, place - memory.device.data_ptr() + int(c.storage_offset()) * c.element_size())
        known[found] = c, memory
        return found

    def bring_back() -> None:
        """Write to the CPU what has changed on the device since both were equal."""
        memories = {memory for _, memory in known.values()}
        for memory in [each for each in memories if not torch.equal(each.device, each.was)]:
            memory.host.copy_(memory.device)
            memory.was.copy_(memory.device)

    @functools.wraps(kernel, updated=())
    def on_host(a: torch.Tensor, b: torch.Tensor) -> Any:
        twins = [to_device(a), to_device(b)]
        before = [_form(twin, twin) for twin in twins]
        _leave_unset(a, b, device)
        c = kernel(*twins)
        drain()
        bring_back()
        for x, twin, form in zip((a, b), twins, before, strict=True):
            if _form(twin, twin) != form:
                x.set_(to_host(twin.detach())).requires_grad_(twin.requires_grad)  # type: ignore[call-overload]
        if type(c) is not torch.Tensor:
            return c
        if c.device != twins[0].device:
            raise ValueError(f"the result is on {c.device}, expected {twins[0].device}: make it with device=a.device")
        return to_host(c) if c.layout == torch.strided else c.cpu()

    _MIRRORED[on_host] = kernel
    for name in _DECLARED:
        if hasattr(kernel, name):
            setattr(on_host, name, getattr(kernel, name))
    return on_host


def _form(x: torch.Tensor, memory: torch.Tensor) -> tuple[object, ...]:
    """Return all that makes ``x`` a view of ``memory``, and of no other part of it."""
    place = x.untyped_storage().data_ptr() - memory.data_ptr() + x.storage_offset() * x.element_size()
    return x.dtype, tuple(x.shape), x.stride(), x.requires_grad, place


def _like(x: torch.Tensor, memory: torch.Tensor, start: int) -> torch.Tensor:
    """Return a tensor in the form of ``x`` that begins at byte ``start`` of ``memory``."""
    import torch

    empty = torch.empty(0, dtype=x.dtype, device=memory.device)
    view = empty.set_(memory.untyped_storage(), start // x.element_size(), x.shape, x.stride())
    return view.requires_grad_(x.requires_grad)


def _leave_unset(a: torch.Tensor, b: torch.Tensor, device: str) -> None:
    """Leave NaN in the memory that a kernel will probably be given for its result."""
    import torch

    size = math.prod(a.shape[:-1]) * b.shape[-1] * max(a.element_size(), 4 * (a.dtype is torch.int8))
    if size <= _LARGEST_UNSET:
        [torch.full((size,), 0xFF, dtype=torch.uint8, device=device) for _ in range(_UNSET)]
