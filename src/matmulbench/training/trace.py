"""Every matrix product of one training step of a model: what asks for it, its shape, and its share of the time."""

from __future__ import annotations

import re
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from matmulbench.errors import UsageError
from matmulbench.training.own_model import Loss, OwnModel, load_model
from matmulbench.workload import DTYPES

if TYPE_CHECKING:
    import pandas as pd

ROUNDS, ENOUGH_S = 5, 2.0  # steps that are traced at most, and the seconds after which no other is begun
OUTSIDE = "outside the model"  # the module of what loss and optimiser ask for
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")

# Other operators that multiply matrices, and why no kernel can do that for them.
_REASONS = {
    r"\w*mm_?|_trilinear": f"kernels do {', '.join(PRODUCTS)}",
    r"addmv_?|mv|dot|vdot": "a matrix times a vector",
    r"\w*convolution\w*|conv_tbc\w*": "convolution is one operator",
    r"_transformer_encoder_layer_fwd|_native_multi_head_attention": (
        "the encoder's fast path is one operator; torch.backends.mha.set_fastpath_enabled(False) makes products of it"
    ),
    r"\w+_attention\w*": (
        "fused attention is one operator; torch.nn.attention.sdpa_kernel(SDPBackend.MATH) makes products of it"
    ),
    r"mkldnn_rnn\w*": "MKL-DNN's LSTM is one operator; torch.backends.mkldnn.set_flags(False) makes products of it",
    r"mkldnn_linear\w*|_linear_pointwise\w*": "MKL-DNN's linear layer is one operator",
}


@dataclass(frozen=True)
class _Product:
    """What products have in common that are counted together."""

    shape: str
    layout: str
    dtype: str
    operator: str
    module: str
    reason: str


@dataclass
class _Total:
    """What the same products of a step are together; ``flop`` is None where torch's counter has no formula."""

    count: int = 0
    flop: int | None = None
    time_s: float = 0.0


@cache
def _known(overload: Any) -> tuple[str, str] | None:
    """Return an operator's name and why no kernel can do it (empty if one can); None if it multiplies no matrices."""
    name, _, variant = overload.__name__.partition(".")
    if name.rstrip("_") in PRODUCTS:
        return name, "" if name in PRODUCTS and variant == "default" else "its result goes into a given tensor"
    reason = next((why for names, why in _REASONS.items() if re.fullmatch(names, name)), None)
    if not reason and overload.overloadpacket in flop_registry:
        reason = "it is one operator"
    return (name, reason) if reason else None


def _describe(name: str, reason: str, operands: Sequence[Tensor], module: str) -> _Product:
    a, b = operands[-2:] if name.rstrip("_") in PRODUCTS else operands[:2]
    dtype = str(a.dtype).removeprefix("torch.")
    if name.rstrip("_") not in PRODUCTS:
        shapes = ["x".join(map(str, each.shape)) for each in (a, b)]
        return _Product(", ".join(shapes), "", dtype, name, module, reason)
    *batch, m, k = a.shape
    layout = "".join("T" if each.stride(-2) == 1 != each.stride(-1) else "N" for each in (a, b))
    shape = f"{''.join(f'{size}*' for size in batch)}{m}x{k}x{b.shape[-1]}{f':{layout}' if layout != 'NN' else ''}"
    if not reason and (dtype not in DTYPES or a.device.type != "cpu"):
        reason = f"{dtype} on {a.device.type}, and kernels take {' and '.join(DTYPES)} on cpu"
    elif not reason and not (a.numel() and b.numel()):
        reason = "an operand is empty"
    return _Product(shape, layout, dtype, name, module, reason)


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists the products of a step of ``model`` that runs in its context.

    Which module asks for one is known from hooks that torch calls around each module. In back-propagation, it is the
    module in which the autograd node was made that asks: nodes are numbered as they are made.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.totals: dict[_Product, _Total] = defaultdict(_Total)
        self._names = {id(module): name or type(model).__name__ for name, module in model.named_modules()}
        self._inside = [OUTSIDE]  # the modules that run now, the innermost last
        self._nodes: list[int] = []  # the number of the first node made since a module was entered or left,
        self._owners: list[str] = []  # and the module that has run since then
        self._note_owner()

    def _note_owner(self) -> None:
        self._nodes.append(torch._C._autograd._get_sequence_nr())
        self._owners.append(self._inside[-1])

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._inside.append(self._names.get(id(module), self._inside[-1]))
        self._note_owner()

    def _leave_module(self, module: nn.Module, *_: Any) -> None:
        self._inside.pop()
        self._note_owner()

    def __enter__(self) -> Self:
        # These hooks are global: a model with hooks of its own may take another way (torch's encoder layer does).
        self._hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = _known(func)
        if not known:
            return func(*args, **kwargs)
        start = perf_counter()
        out = func(*args, **kwargs)
        seconds = perf_counter() - start
        module, node = self._inside[-1], torch._C._current_autograd_node()
        if node and len(self._inside) == 1:  # else a module runs again, as checkpoints have it
            owner = self._owners[bisect_right(self._nodes, node._sequence_nr()) - 1]
            module = f"backward of {owner}"
        operands = [each for each in args if isinstance(each, Tensor)]
        total = self.totals[_describe(*known, operands, module)]
        total.count += 1
        total.time_s += seconds
        if formula := flop_registry.get(func.overloadpacket):
            total.flop = (total.flop or 0) + formula(*args, **kwargs, out_val=out)
        return out


def _trace(subject: OwnModel) -> list[dict[str, Any]]:
    """Trace steps on the first batch, each beside one that is not traced; return the median one's rows."""
    what, loss = f"model {subject.name!r}", subject.loss

    def checked_loss(*inputs: Any) -> Tensor:
        value = loss(*inputs)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"{what}: its loss returned {got}, expected a tensor of one number")
        return value

    subject.loss = checked_loss
    try:
        learner = subject.begin_plain()
        learner.step(0)
        with _Tracer(learner.model) as tracer:
            learner.step(0)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{what}: a step on its first batch ends in {type(error).__name__}: {error}; expected batches (x, y) such "
            f"that loss(model(x), y) is one number that depends on the parameters"
        ) from error
    if not tracer.totals:
        raise UsageError(f"{what}: a step has no matrix product, expected one at least (nn.Linear, @, einsum, …)")

    plain: list[float] = []
    traced, end = [], perf_counter() + ENOUGH_S
    while len(plain) < ROUNDS and (not plain or perf_counter() < end):
        start = perf_counter()
        learner.step(0)
        plain.append(perf_counter() - start)
        with _Tracer(learner.model) as tracer:
            learner.step(0)
        traced.append(tracer.totals)
    step_s = statistics.median(plain)
    traced.sort(key=lambda totals: sum(total.time_s for total in totals.values()))
    totals = sorted(traced[len(traced) // 2].items(), key=lambda item: item[1].time_s, reverse=True)
    return [asdict(product) | asdict(total) | {"share": total.time_s / step_s} for product, total in totals]


def trace_here(model: str) -> list[dict[str, Any]]:
    """Trace a step of the model that the factory ``model`` makes; see :func:`trace`."""
    return _trace(load_model(model))


def trace(model: nn.Module, loss: Loss, batches: Iterable[Any]) -> pd.DataFrame:
    """List every matrix product, forward and backward, of one training step of a copy of ``model``.

    Parameters
    ----------
    model
        any module.
    loss
        a function of prediction and target that returns one number.
    batches
        pairs (x, y), such as a ``DataLoader`` has; the first is traced.

    Returns
    -------
    pandas.DataFrame
        a row for all products that are alike, those that take longest first: ``shape`` (a workload's text, such as
        ``32*128x64x128:NT`` for a batch of 32; of an operator that is no plain product, its operands' shapes);
        ``layout``; ``dtype``; ``operator``, as ATen names it; ``module``, the qualified name of the one that asks, or
        ``backward of`` it; ``reason``, why no kernel can do it, empty if one can; ``count``, how often in a step;
        ``flop`` of them together, as torch's ``FlopCounterMode`` counts, missing where it has no formula; ``time_s``,
        their seconds together; ``share`` of the step's time, from 0 to 1.

    Raises
    ------
    UsageError
        if a step cannot be done with the first batch, has no product, or its loss is not one number.
    """
    import pandas as pd

    if not isinstance(model, nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    rows = _trace(OwnModel(type(model).__name__, model, loss, list(islice(batches, 1))))
    return pd.DataFrame(rows).astype({"flop": "Int64"})
