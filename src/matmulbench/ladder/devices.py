"""Kernels of a GPU as verification calls them: with tensors in the computer's own memory, which are copied there."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from matmulbench.ladder import Kernel


def require_cuda() -> None:
    """Make a GPU usable in this process.

    Raises
    ------
    ImportError
        if there is none: a kernel for it is unavailable here.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        # CUDA reserves as many addresses as there is memory in all, of which it takes little.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if not torch.cuda.is_available():
        raise ImportError("no CUDA device: torch finds no GPU here, or was built without CUDA")


def check_timed(kernel: Any) -> None:
    """Raise ImportError if ``kernel`` works on a GPU: the time of its copies would be taken for its own."""
    if getattr(kernel, "device", "cpu") != "cpu":
        raise ImportError("it works on a GPU, where kernels are verified and not timed yet")


def mirrored(kernel: Callable[..., Any], device: str) -> Kernel:
    """Return a kernel of CPU tensors that lets ``kernel`` work on copies of them on ``device``.

    What verification looks at is the same on both sides: strides, operands that the kernel changes, a result that
    shares memory with an operand, and one whose memory serves for the next result as well.
    """
    held: list[tuple[weakref.ref[torch.Tensor], torch.Tensor]] = []  # results that are still in use: here, there

    @functools.wraps(kernel)
    def on_copies(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        spans = [_span(x) for x in (a, b)]
        copies = [span.to(device, copy=True) for span in spans]
        c = kernel(*(copy.as_strided(x.size(), x.stride()) for copy, x in zip(copies, (a, b), strict=True)))
        if device == "cuda":
            torch.cuda.synchronize()  # whatever streams it used
        for span, copy in zip(spans, copies, strict=True):
            if not torch.equal(_bits(here := copy.to("cpu")), _bits(span)):
                span.copy_(here)
        if not isinstance(c, torch.Tensor):
            return c  # type: ignore[no-any-return]  # verification has the words for it
        if c.device.type != device:
            raise TypeError(f"the result is on {c.device}, expected on {device}, where the operands are")
        place = c.untyped_storage().data_ptr()
        for span, copy in zip(spans, copies, strict=True):
            if copy.numel() and place == copy.untyped_storage().data_ptr():
                return span.as_strided(c.size(), c.stride(), span.storage_offset() + c.storage_offset())
        held[:] = [(ref, there) for ref, there in held if ref() is not None]
        for ref, there in held:
            earlier = ref()
            if earlier is not None and c.numel() and place == there.untyped_storage().data_ptr():
                return earlier.copy_(c) if earlier.shape == c.shape else c.to("cpu", copy=True)
        result = c.to("cpu", copy=True)
        held.append((weakref.ref(result), c))
        return result

    return on_copies


def _span(x: torch.Tensor) -> torch.Tensor:
    """Return all elements from the first of ``x`` to its last, those between its rows included, as one row."""
    steps = [(size - 1) * stride for size, stride in zip(x.size(), x.stride(), strict=True)]
    return x.as_strided((1 + sum(steps) if x.numel() else 0,), (1,))


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.uint8)  # a NaN is unlike itself
