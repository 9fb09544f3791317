"""Every matrix product of one training step of a model: what asks for it, its shape, and its share of the time."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from matmulbench.dtypes import USUAL
from matmulbench.errors import UsageError
from matmulbench.measurement.stopwatch import Stopwatch
from matmulbench.training.custom_model import CustomModel, OptimizerFactory, load_model, without_a_word
from matmulbench.training.forms import Loss
from matmulbench.training.replacement import replaced

if TYPE_CHECKING:
    import pandas as pd

ROUNDS, ENOUGH_S = 25, 2.0  # steps that are traced at most, and the seconds after which no other is begun
# The modules of what others ask for: the loss, the optimiser.
OUTSIDE, OPTIMISER = "outside the model", "the optimiser"
COLUMNS = ("shape", "layout", "dtype", "operator", "module", "count", "flop", "time_s", "share", "reason")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")

FAST_PATH = "the encoder's fast path is one operator"  # inside which a kernel does the products, unseen
# Other operators that multiply matrices, and why no kernel can do that for them.
_REASONS = {
    r"\w*mm_?|_trilinear": f"kernels do {', '.join(PRODUCTS)}",
    r"addmv_?|mv|dot|vdot": "a matrix times a vector",
    r"\w*convolution\w*|conv_tbc\w*": "convolution is one operator",
    r"_transformer_encoder_layer_fwd|_native_multi_head_attention": (
        f"{FAST_PATH}; torch.backends.mha.set_fastpath_enabled(False) makes products of it"
    ),
    r"\w+_attention\w*": (
        "fused attention is one operator; torch.nn.attention.sdpa_kernel(SDPBackend.MATH) makes products of it"
    ),
    r"mkldnn_rnn\w*": "MKL-DNN's LSTM is one operator; torch.backends.mkldnn.set_flags(False) makes products of it",
    r"mkldnn_linear\w*|_linear_pointwise\w*": "MKL-DNN's linear layer is one operator",
}


@dataclass(frozen=True)
class _Product:
    """One product, or another operator that multiplies matrices; ``reason`` says why no kernel can do it, if so."""

    shape: str
    layout: str
    dtype: str
    operator: str
    reason: str


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


@cache
def _describe(
    name: str, reason: str, shapes: tuple[torch.Size, ...], strides: tuple[Any, ...], dtype: torch.dtype, device: str
) -> _Product:
    """Describe a product by what its operands are; ``strides`` are None of one that is sparse."""
    kind = str(dtype).removeprefix("torch.")
    if name.rstrip("_") not in PRODUCTS:
        return _Product(", ".join("x".join(map(str, shape)) for shape in shapes[:2]), "", kind, name, reason)
    (*batch, m, k), (*_, n) = shapes[-2:]
    dense = None not in strides[-2:]
    layout = "".join("T" if dense and each[-2] == 1 != each[-1] else "N" for each in strides[-2:])
    if not reason and (kind not in USUAL or device != "cpu" or not dense):
        where = f"on {device}" if dense else "and sparse"
        reason = f"{kind} {where}; kernels take dense {' and '.join(USUAL)} on the CPU"
    elif not reason and 0 in (*batch, m, k, n):
        reason = "an operand is empty"
    shape = f"{''.join(f'{size}*' for size in batch)}{m}x{k}x{n}{f':{layout}' if layout != 'NN' else ''}"
    return _Product(shape, layout, kind, name, reason)


_Call = tuple[_Product, str, int | None, float]  # with module, FLOP and seconds


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists the products of a step of ``model`` that runs in its context.

    Which module asks for one is known from hooks that torch calls around each module. In back-propagation, it is the
    module in which the autograd node was made that asks: nodes are numbered as they are made.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self._names = {id(module): name or type(model).__name__ for name, module in model.named_modules()}
        self._inside = [OUTSIDE]  # the modules that run now, the innermost last
        self._nodes: list[int] = []  # the number of the first node made since a module was entered or left,
        self._owners: list[str] = []  # and the module that has run since then
        self._note_owner()

    def _note_owner(self) -> None:
        self._nodes.append(torch._C._autograd._get_sequence_nr())
        self._owners.append(self._inside[-1])

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._enter(self._names.get(id(module), self._inside[-1]))

    def _enter(self, name: str) -> None:
        self._inside.append(name)
        self._note_owner()

    def _leave(self, *_: Any) -> None:
        self._inside.pop()
        self._note_owner()

    def __enter__(self) -> Self:
        # These hooks are global: a model with hooks of its own may take another way (torch's encoder layer does).
        self._hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave, always_call=True),
            register_optimizer_step_pre_hook(lambda *_: self._enter(OPTIMISER)),
            register_optimizer_step_post_hook(self._leave),
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
        listed = [each for part in args for each in (part if isinstance(part, list) else [part])]
        operands = [each for each in listed if isinstance(each, Tensor)]
        shapes = tuple(each.shape for each in operands)
        strides = tuple(each.stride() if each.layout is torch.strided else None for each in operands)
        product = _describe(*known, shapes, strides, operands[0].dtype, operands[0].device.type)
        formula = flop_registry.get(func.overloadpacket)
        flop = formula(*args, **kwargs, out_val=out) if formula else None
        self.calls.append((product, self._module(), flop, seconds))
        return out

    def _module(self) -> str:
        """Return the module that asks."""
        node = torch._C._current_autograd_node()
        if not node or len(self._inside) > 1:  # the latter where a checkpoint has a module run again
            return self._inside[-1]
        return f"backward of {self._owners[bisect_right(self._nodes, node._sequence_nr()) - 1]}"


def trace_steps(model: CustomModel, enough_s: float = ENOUGH_S) -> list[dict[str, Any]]:
    """Trace steps on the first batch, each beside one that is not, for ``enough_s`` seconds; return rows."""
    trainer = model.begin_plain()
    trainer.step(0)
    with Tracer(trainer.model) as tracer:
        trainer.step(0)

    def step() -> float:
        stopwatch = Stopwatch()
        trainer.step(0)
        return stopwatch.stop()[2]

    # The least of each: whatever else the machine does makes steps and products slower, never faster.
    step_s, calls, end = math.inf, tracer.calls, perf_counter() + enough_s
    replaceable = not any(call[0].reason for call in calls)
    for _ in range(ROUNDS):
        step_s = min(step_s, step())
        times: list[float] = []
        if replaceable:  # then nothing else need be looked at, which makes small operators four times as slow
            with replaced(torch.mm, lambda a, b, seconds: times.append(seconds)):  # noqa: B023  # it ends with the block
                step()
            replaceable = len(times) == len(calls)
        if not replaceable:
            with Tracer(trainer.model) as tracer:
                step()
            same = [call[:3] for call in tracer.calls] == [call[:3] for call in calls]
            times = [call[3] for call in (tracer.calls if same else calls)]  # a step may do something else each time
        calls = [(*call[:3], min(call[3], seconds)) for call, seconds in zip(calls, times, strict=True)]
        if perf_counter() > end:
            break
    rows: dict[tuple[_Product, str], dict[str, Any]] = {}
    for product, module, flop, seconds in calls:
        new = asdict(product) | {"module": module, "count": 0, "flop": None, "time_s": 0.0}
        row = rows.setdefault((product, module), new)
        row["count"] += 1
        row["flop"] = flop and flop + (row["flop"] or 0)
        row["time_s"] += seconds
    # Other load may slow the products more than the steps beside them.
    step_s = max(step_s, sum(row["time_s"] for row in rows.values()))
    for row in rows.values():
        row["share"] = row["time_s"] / step_s
    slowest_first = sorted(rows.values(), key=lambda row: row["time_s"], reverse=True)
    return [{name: row[name] for name in COLUMNS} for row in slowest_first]


def _trace(model: CustomModel) -> list[dict[str, Any]]:
    rows = trace_steps(model)
    if not rows:
        raise UsageError(f"{model.what}: a step has no matrix product, expected one at least (nn.Linear, @, einsum, …)")
    return rows


def trace_here(model: str, quiet: bool = False) -> list[dict[str, Any]]:
    """Trace a step of the model that the factory ``model`` makes; see :func:`trace`."""
    with without_a_word(quiet):
        made = load_model(model)
    return _trace(made)


def trace(
    model: nn.Module, loss: Loss, batches: Iterable[Any], optimizer: OptimizerFactory | None = None
) -> pd.DataFrame:
    """List every matrix product, forward and backward, of one training step of a copy of ``model``.

    Parameters
    ----------
    model
        any module.
    loss
        a function of prediction and target that returns one number.
    batches
        as :func:`~matmulbench.training.custom_model.load_model` takes them; the first is traced.
    optimizer
        makes the optimiser of its parameters; plain SGD, if not given.

    Returns
    -------
    pandas.DataFrame
        a row for all products that are alike, those that take longest first: ``shape``, a workload's text such as
        ``32*128x64x128:NT`` for a batch of 32, or of an operator that is no plain product its operands' shapes;
        ``layout``; ``dtype``; ``operator``, as ATen names it; ``module``, the qualified name of the one that asks, or
        ``backward of`` it; ``count``, how often in a step; ``flop`` of them together, as torch's ``FlopCounterMode``
        counts, missing where it has no formula; ``time_s``, their seconds together; ``share`` of the step's time, from
        0 to 1; ``reason``, why no kernel can do it, empty if one can.

    Raises
    ------
    UsageError
        if a step cannot be done with the first batch, has no product, or its loss is not one number.
    """
    import pandas as pd

    if not isinstance(model, nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    first = list(islice(batches, 1))
    if not first:
        raise UsageError("batches: expected pairs (x, y), got none")
    with torch.random.fork_rng(devices=[]):
        rows = _trace(CustomModel(type(model).__name__, (model, loss, first, optimizer)))
    return pd.DataFrame(rows).astype({"flop": "Int64"})
