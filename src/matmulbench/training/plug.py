"""Any ``torch.nn`` model with its linear layers' products done by a kernel, forward and backward."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.overrides import TorchFunctionMode

from matmulbench.errors import InputWarning, UsageError
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel

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
        if it holds something that cannot be copied, such as a lock or an open file.
    """
    try:
        with _Detaching():
            return copy.deepcopy(model)
    except Exception as error:
        raise UsageError(f"the model cannot be copied: {type(error).__name__}: {error}") from error


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Kernel) -> Tensor:
    # A kernel may go by way of numpy, which takes no tensor that asks for a gradient.
    out = kernel(x.detach(), weight.detach().t())
    return out if bias is None else out.add_(bias)


class _Product(torch.autograd.Function):
    """x Wᵀ + b, for x (rows, n_in), W (n_out, n_in) as ``nn.Linear`` keeps it, and b (n_out,) or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Kernel) -> Tensor:
        ctx.kernel = kernel
        ctx.save_for_backward(x, weight)
        return _forward(x, weight, bias, kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a plugged layer can be differentiated once: its kernel records no graph")
        x, weight = (saved.detach() for saved in ctx.saved_tensors)
        kernel = ctx.kernel
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            kernel(gradient, weight) if needs_x else None,
            kernel(gradient.t(), x) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
            None,
        )


class PluggedLinear(nn.Linear):
    """An ``nn.Linear`` whose three products, forward and backward, are done by ``kernel``."""

    kernel: Any  # a Kernel; nn.Module would have it a tensor or a module
    spec: str | None
    plain: type[nn.Linear] = nn.Linear  # what it is without a kernel

    def use(self, kernel: Kernel, spec: str | None = None) -> None:
        """Have the products done by ``kernel``, which is named ``spec`` if it has a name."""
        self.__dict__.update(kernel=kernel, spec=spec)  # set as an attribute, a module would become a child

    def extra_repr(self) -> str:
        """Return sizes, bias and kernel, as they stand in the layer's text form."""
        names = (self.spec, *(getattr(self.kernel, name, None) for name in ("name", "__name__")))
        return f"{super().extra_repr()}, kernel={next(filter(None, names), type(self.kernel).__name__)}"

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: of a kernel that has a name, the name."""
        return self.__dict__ | ({"kernel": None} if self.spec else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the kernel by its name, if it has one."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.spec:
            self.use(load_kernel(self.spec), self.spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that shares the kernel: compiled and foreign functions cannot be copied."""
        memo[id(self.kernel)] = self.kernel
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b for ``x`` (..., n_in), of any rank."""
        if x.dim() != 2:
            return self.forward(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        if torch.is_grad_enabled():
            out: Tensor = _Product.apply(x, self.weight, self.bias, self.kernel)  # type: ignore[no-untyped-call]
            return out
        return _forward(x, self.weight, self.bias, self.kernel)


# In ``eval`` these take their layers' weights and call no layer; so set, they call them.
_FAST_PATHS: dict[type[nn.Module], tuple[str, Any]] = {
    nn.TransformerEncoder: ("use_nested_tensor", False),
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
}
_SWITCHED = "unplugged_switch"  # what it was before


def _plugged(plain: type[nn.Linear]) -> type[PluggedLinear]:
    """Return a class that does what ``plain`` does with its products done by a kernel."""
    if plain is nn.Linear:
        return PluggedLinear
    content = {"plain": plain} | ({"cls_to_become": PluggedLinear} if issubclass(plain, LazyModuleMixin) else {})
    return type(f"Plugged{plain.__name__}", (PluggedLinear, plain), content)


def _can_be_plugged(module: nn.Module) -> bool:
    # Attention has a linear layer of which it takes the weight alone.
    inherited = isinstance(module, nn.Linear) and type(module).forward in (nn.Linear.forward, PluggedLinear.forward)
    return inherited and not isinstance(module, NonDynamicallyQuantizableLinear)


def _is_left_out(module: nn.Module) -> bool:
    """Tell whether a layer has products that do not become the kernel's."""
    if isinstance(module, nn.Linear):
        return not _can_be_plugged(module) and not isinstance(module, NonDynamicallyQuantizableLinear)
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, _ConvNd, nn.Bilinear))


def plug(model: nn.Module, kernel: str | Kernel) -> nn.Module:
    """Return a copy of ``model`` in which every ``nn.Linear`` runs ``kernel``, forward and backward.

    The copy has parameters of its own; those that layers share stay shared, and those that are frozen stay frozen.
    Its ``state_dict`` has the keys and values of the model's. Lazy and parametrised linear layers take part.
    Subclasses of ``nn.Linear`` with a ``forward`` of their own are left alone, and so are products that are no
    ``nn.Linear`` (attention's, recurrent layers', convolutions); an ``InputWarning`` names such layers, or says that
    there is nothing to plug. :func:`matmulbench.replaced` reaches every product.

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
    >>> model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    >>> plug(model, "numpy")[0]
    PluggedLinear(in_features=784, out_features=50, bias=True, kernel=numpy)
    """
    function, spec = load_kernel(kernel), kernel if isinstance(kernel, str) else None
    plugged = copied(model)
    layers = [module for module in plugged.modules() if _can_be_plugged(module)]
    for module in layers:
        if not isinstance(module, PluggedLinear):
            module.__class__ = _plugged(type(module))  # type: ignore[arg-type]  # all else stays: hooks, names, sharing
        module.use(function, spec)  # type: ignore[operator]  # nn.Module's attributes are untyped
    left = sorted({type(module).__name__ for module in plugged.modules() if _is_left_out(module)})
    if not layers:
        text = (
            f"no layer of {type(model).__name__} is an nn.Linear: none runs the kernel; replaced() reaches all products"
        )
        warnings.warn(text, InputWarning, stacklevel=2)
    elif left:
        text = f"products of {', '.join(left)} do not run the kernel; replaced() reaches all but convolutions"
        warnings.warn(text, InputWarning, stacklevel=2)
    for module in plugged.modules():
        for kind, (switch, off) in _FAST_PATHS.items():
            if isinstance(module, kind):
                vars(module).setdefault(_SWITCHED, getattr(module, switch))
                setattr(module, switch, off)
    return plugged


def unplug(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` with its plugged layers plain again."""
    plain = copied(model)
    for module in plain.modules():
        if isinstance(module, PluggedLinear):
            module.__class__ = type(module).plain  # type: ignore[assignment]
            del module.kernel, module.spec
        if _SWITCHED in vars(module):
            (switch,) = (switch for kind, (switch, _) in _FAST_PATHS.items() if isinstance(module, kind))
            setattr(module, switch, vars(module).pop(_SWITCHED))
    return plain
