"""Any ``torch.nn`` model with its matrix products done by a kernel, forward and backward."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from matmulbench.errors import InputWarning, UsageError, printable
from matmulbench.ladder import Kernel
from matmulbench.training.replacement import TAKEN, Hooks

T = TypeVar("T")


class _Detaching(TorchFunctionMode):
    """Lets ``copy.deepcopy`` copy a tensor that remembers how it was computed; the copy has the value alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def copied(model: T) -> T:
    """Return a deep copy of a model, or of a tuple with one, even if it keeps an activation.

    Raises
    ------
    UsageError
        if it is no module, or holds something that cannot be copied, such as a lock or an open file.
    """
    if not isinstance(model, nn.Module | tuple):
        raise UsageError(f"model {printable(repr(model), 60)}: expected an object of a class of torch.nn's modules")
    try:
        with _Detaching():
            made = copy.deepcopy(model)
    except Exception as error:
        raise UsageError(f"the model cannot be copied: {type(error).__name__}: {error}") from error
    for each in made if isinstance(made, tuple) else (made,):
        for parameter in each.parameters() if isinstance(each, nn.Module) else ():
            if not parameter.is_leaf:  # as those of a copied ScriptModule are: no optimiser would take them
                parameter.detach_().requires_grad_()
    return made


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the model that ``torch.compile`` was given, or ``model`` itself: compiled code runs no kernel."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def _describe(module: nn.Module, kernel: str) -> str:
    """Return what stands in the text form of a plugged module: its own, and the kernel."""
    return ", ".join(filter(None, (type(module).extra_repr(module), f"kernel={kernel}")))


# Of these, some products are within one operator.
_FUSED = (_ConvNd, nn.LSTM, nn.Bilinear, nn.MultiheadAttention)


def plug(model: nn.Module, kernel: str | Kernel) -> nn.Module:
    """Return a copy of ``model`` whose matrix products run ``kernel``, forward and backward.

    That is so for whatever its modules ask for when they are called, as :func:`matmulbench.replaced` says: linear
    layers, ``@``, ``einsum``, attention's projections, recurrent cells. The graph keeps the kernel, wherever gradients
    are asked for, and derivatives of them. Other models, in whichever thread, keep torch's products; as long as the
    copy lives, each of these costs some 2 µs more.

    The copy has parameters of its own; those that layers share stay shared, and those that are frozen stay frozen. Its
    ``state_dict`` has the keys and values of the model's. An ``InputWarning`` names layers (convolution, LSTM,
    attention) of which some products may be within one operator, and dtypes, for which the kernel is not run.
    Code that ``torch.compile`` generates has products of its own: the copy of a compiled model is not compiled, and
    ``torch.compile`` leaves a plugged one as it is, wherever it stands.

    Parameters
    ----------
    model
        any module; an ``nn.Linear`` itself, too.
    kernel
        a name, as :func:`load_kernel` takes it, or a function of ``a`` (m, k) and ``b`` (k, n), either of them perhaps
        a transposed view, that returns a fresh (m, n). Copies of the model share it.

    Raises
    ------
    UsageError, ImportError
        if there is no such kernel, as :func:`load_kernel` says, or the model cannot be copied.

    Examples
    --------
    >>> import torch
    >>> shapes = []
    >>> def kernel(a, b):
    ...     shapes.append((*a.shape, b.shape[1]))
    ...     return torch.einsum("ik,kj->ij", a, b)
    >>> plugged = plug(nn.Linear(784, 10), kernel)
    >>> plugged(torch.ones(64, 784)).sum().backward()
    >>> shapes
    [(64, 784, 10), (10, 64, 784)]
    >>> plug(nn.Linear(784, 10), "numpy")
    Linear(in_features=784, out_features=10, bias=True, kernel=numpy)
    """
    hooks, plugged = Hooks(kernel), unplug(model)
    encoders = [module for module in plugged.modules() if isinstance(module, nn.TransformerEncoder)]
    # Layers with hooks take no fast path, but the encoder goes by whether they could and hands them nested tensors.
    inside = {module for encoder in encoders for module in encoder.modules() if module is not encoder}
    for module in plugged.modules():
        if module not in inside and not isinstance(module, ScriptModule):
            module.register_forward_pre_hook(hooks.enter, prepend=True)
            module.register_forward_hook(hooks.leave, always_call=True)
            if module is plugged or next(module.parameters(recurse=False), None) is not None:
                module.__dict__["extra_repr"] = partial(_describe, module, hooks.name)
    fused = {type(module).__name__ for module in plugged.modules() if isinstance(module, _FUSED)}
    others = {str(one.dtype).removeprefix("torch.") for one in plugged.parameters() if one.dtype not in TAKEN}
    scripted = {"TorchScript"} if isinstance(plugged, ScriptModule) else set()  # without another module around it
    left = {"within one operator of": fused, "in": others, "of": scripted}
    if said := [f"products {where} {', '.join(sorted(names))}" for where, names in left.items() if names]:
        text = f"{' and '.join(said)} do not run the kernel: trace lists them, if there are any"
        warnings.warn(text, InputWarning, stacklevel=2)
    return plugged


def unplug(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose products are torch's again."""
    plain = uncompiled(copied(model))
    for module in plain.modules():
        if getattr(vars(module).get("extra_repr"), "func", None) is _describe:
            del module.__dict__["extra_repr"]
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), Hooks):
                    del hooks[number]
                    module._forward_hooks_always_called.pop(number, None)
    return plain
