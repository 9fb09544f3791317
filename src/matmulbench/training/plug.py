"""Any ``torch.nn`` model with its linear layers' products done by a kernel, forward and backward."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel


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


def plug(model: nn.Module, kernel: str | Kernel) -> nn.Module:
    """Return a copy of ``model`` in which every ``nn.Linear`` runs ``kernel``, forward and backward.

    The copy has parameters of its own; those that layers share stay shared, and those that are frozen stay frozen.
    Its ``state_dict`` has the keys and values of the model's. Subclasses of ``nn.Linear`` are left alone, for what
    they do is theirs; so are products that are no ``nn.Linear`` (attention's, convolutions).

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
        if there is no such kernel, as :func:`load_kernel` says.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    >>> plug(model, "numpy")[0]
    PluggedLinear(in_features=784, out_features=50, bias=True, kernel=numpy)
    """
    function, spec = load_kernel(kernel), kernel if isinstance(kernel, str) else None
    plugged = copy.deepcopy(model)
    for module in plugged.modules():
        if type(module) in (nn.Linear, PluggedLinear):
            module.__class__ = PluggedLinear  # everything else about the layer stays: hooks, names, sharing
            module.use(function, spec)  # type: ignore[operator]  # nn.Module's attributes are untyped
    return plugged


def unplug(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` with its plugged layers plain ``nn.Linear`` again."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if type(module) is PluggedLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment]
            del module.kernel, module.spec
    return plain
