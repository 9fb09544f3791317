"""How a user's model, loss and batches fit together: who is called with what."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

Loss = Callable[..., Tensor] | None


class Form:
    """How a model and a loss are called, by their signatures and the form of the first batch.

    Of a tuple, the last is the target, if the loss takes one; of a dict, what the model takes is its input, and what
    is left the target. A loss that takes no target is given the model's output alone; without a loss, the output is
    the loss, or has it as ``loss``.
    """

    def __init__(self, model: nn.Module, function: Loss, batch: Any) -> None:
        self.function = function
        self.targeted = function is not None and binds(function, None, None)
        self.names = [name for name in batch if binds(model, **{str(name): None})] if isinstance(batch, Mapping) else []
        self.left = [name for name in batch if name not in self.names] if self.names else []
        self.inputs: slice | None = None  # of a tuple, what the model takes one by one; None: all of it at once
        if isinstance(batch, tuple | list):
            ways = [slice(len(batch))] * (not self.targeted or len(batch) == 1) + [slice(len(batch) - 1)]
            self.inputs = next((way for way in ways if binds(model, *batch[way])), ways[0])
        only: Any = batch[0] if self.inputs and len(batch[self.inputs]) == 1 else None
        self.splat = (isinstance(only, Mapping) and all(binds(model, **{str(name): None}) for name in only)) or (
            isinstance(only, tuple | list) and binds(model, *only)
        )

    def output(self, model: nn.Module, batch: Any) -> Any:
        """Return the model's output."""
        if self.names:
            return model(**{name: batch[name] for name in self.names})
        if self.inputs is None:
            return model(batch)
        inputs = batch[self.inputs]
        if self.splat:
            return model(**inputs[0]) if isinstance(inputs[0], Mapping) else model(*inputs[0])
        return model(*inputs)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        """Return what should be the loss."""
        output = self.output(model, batch)
        if self.function and self.targeted:
            target = batch[-1] if self.inputs else batch[self.left[0]] if len(self.left) == 1 else batch
            return self.function(output, target)
        if self.function:
            return self.function(output)
        if isinstance(output, Mapping) and "loss" in output:
            return output["loss"]
        output = getattr(output, "loss", output)
        return output[0] if isinstance(output, tuple | list) and output else output


def binds(function: Any, *arguments: Any, **named: Any) -> bool:
    """Whether ``function`` takes these arguments, and perhaps needs others that have a name; True if nobody knows."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):  # written in C
        return True
    try:
        signature.bind_partial(**named) if named else signature.bind(*arguments)
    except TypeError:
        return False
    return True


def tensors_of(batch: Any) -> list[Tensor]:
    """Return all tensors of a batch, or of several."""
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]


def to_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of real numbers in ``dtype``, one of complex numbers in that of the same precision."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def clone_batch(batch: Any, dtype: torch.dtype | None = None) -> Any:
    """Copy a batch, its numbers to ``dtype``."""

    def clone(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return copy.deepcopy(leaf)
        other = leaf.detach().clone()
        return (to_dtype(other, dtype) if dtype else other).requires_grad_(leaf.requires_grad)

    return tree_map(clone, batch)
