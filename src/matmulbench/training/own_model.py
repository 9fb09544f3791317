"""A training of one's own: any ``torch.nn`` model, loss and batches, accounted for like the built-in tasks."""

# ruff: noqa: D102  # the protocol Subject says what each method does

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from matmulbench.errors import UsageError
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_function
from matmulbench.training.learners import Learner, ModuleLearner, Subject, TaskSubject
from matmulbench.training.plug import PluggedLinear, plug
from matmulbench.training.tasks import find_task, load
from matmulbench.workload import DTYPES, Product, Workload

_BATCHES = 1000  # of the loader, at most; they are kept in memory, for every kernel sees the same
_RATE = 0.01

Loss = Callable[[Tensor, Tensor], Tensor]


def model_from_scratch() -> tuple[nn.Module, Loss, list[tuple[Tensor, Tensor]]]:
    """Make the article's ``Model(n_in, nh, n_out)`` and ten random batches: an example of a factory.

    Examples
    --------
    ``matmulbench train --model matmulbench.training.own_model:model_from_scratch``
    """
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    batches = [
        (torch.randn(64, 784, generator=generator), torch.randint(10, (64,), generator=generator)) for _ in range(10)
    ]
    return model, nn.CrossEntropyLoss(), batches


class OwnModel:
    """A model, its loss and its batches.

    What a kernel does are the products of its ``nn.Linear`` layers; all else is the rest of the step. The model
    should do the same each time: leave dropout out, or the runs cannot be compared.
    """

    def __init__(
        self, name: str, model: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]], rate: float = _RATE
    ) -> None:
        self.name, self.model, self.loss, self.batches, self.rate = name, model, loss, batches, rate

    @property
    def rows(self) -> int:
        return len(self.batches[0][0])

    @property
    def steps(self) -> int:
        return len(self.batches)

    @property
    def roundoff(self) -> float:
        return float(torch.finfo(self._dtype).eps) / 2

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def products(self) -> list[Product]:
        found: list[Product] = []
        dtype = str(self._dtype).removeprefix("torch.")
        plugged = plug(self.model, torch.matmul)
        layers = [module for module in plugged.modules() if isinstance(module, PluggedLinear)]
        for i, layer in enumerate(layers, 1):
            layer.kernel = _Tracer(found, i, dtype)
        self._learner(plugged).step(0)
        return found

    def begin(self, kernel: Kernel) -> ModuleLearner:
        return self._learner(plug(self.model, kernel))

    def begin_plain(self) -> ModuleLearner:
        return self._learner(copy.deepcopy(self.model))

    def reference(self) -> ModuleLearner:
        batches = [(_double(x), _double(y)) for x, y in self.batches]
        own = OwnModel(self.name, copy.deepcopy(self.model).double(), self.loss, batches, self.rate)
        return own.begin(torch.matmul)

    def few(self, rows: int) -> OwnModel:
        x, y = self.batches[0]
        return OwnModel(self.name, self.model, self.loss, [(x[:rows], y[:rows])], self.rate)

    def accuracies(self, learner: Learner) -> tuple[None, None]:
        return None, None

    def _learner(self, model: nn.Module) -> ModuleLearner:
        return ModuleLearner(model, self.loss, self.rate, lambda step: self.batches[step % len(self.batches)])


class _Tracer:
    """torch's product, which notes of what kind each one of a layer is."""

    def __init__(self, found: list[Product], layer: int, dtype: str) -> None:
        self.found, self.layer, self.dtype = found, layer, dtype

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        m, k, n = a.shape[0], a.shape[1], b.shape[1]
        if b._is_view():  # the plug asks for x Wᵀ, G W and Gᵀ x
            which, layout = "forward", "NT"
        elif a._is_view():
            which, layout = "weight-gradient", "TN"
        else:
            which, layout = "input-gradient", "NN"
        self.found.append((self.layer, which, Workload(m, k, n, layout, self.dtype)))
        return a @ b


def load_training(task: str, seed: int, data_dir: str | None, options: dict[str, Any]) -> Subject:
    """Load a built-in task, or with a colon in its name a custom model; see :func:`load_model`.

    Raises
    ------
    UsageError
        if task, model or option cannot be used, or the data cannot be read.
    """
    if ":" in task:
        return load_model(task, **options)
    return TaskSubject(load(find_task(task, **options), data_dir, seed))


def preload(task: str, seed: int, data_dir: str | None, options: dict[str, Any]) -> None:
    """Load a built-in task's data on one thread, in the host, so that all children have it already."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool of threads that has begun to work does not survive a fork
    try:
        load(find_task(task, **options), data_dir, seed)
    finally:
        torch.set_num_threads(threads)


def load_model(spec: str, lr: float | None = None) -> OwnModel:
    """Call the factory ``spec``, ``package.module:factory`` or ``path/to/file.py:factory``.

    The factory takes nothing and returns ``(model, loss, batches)``: an ``nn.Module`` with at least one
    ``nn.Linear``, in float32 or float64; a function of prediction and target that gives one number; and an iterable
    of (x, y) tensors, such as a ``DataLoader``. Up to 1000 batches are taken, a step each. ``lr`` is the rate of plain
    SGD, 0.01 by default.

    Raises
    ------
    UsageError
        if the factory cannot be found, fails, or returns something else.
    """
    try:
        made = load_function(spec, "model")()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"model {spec!r}: {type(error).__name__}: {error}") from None
    form = f"model {spec!r}: expected (model, loss, batches) from the factory"
    if not isinstance(made, tuple) or len(made) != 3:
        raise UsageError(f"{form}, got {type(made).__name__}")
    model, loss, source = made
    if not isinstance(model, nn.Module) or not callable(loss):
        raise UsageError(f"{form}, got {type(model).__name__} and {type(loss).__name__}")
    if not any(type(module) is nn.Linear for module in model.modules()):
        raise UsageError(f"model {spec!r}: it has no nn.Linear, so that no kernel has anything to do")
    dtypes = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise UsageError(f"model {spec!r}: parameters are {', '.join(sorted(dtypes))}; expected one of {DTYPES}")
    batches = [tuple(batch) for batch in islice(source, _BATCHES)]
    if not batches or any(len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch) for batch in batches):
        raise UsageError(f"{form}: batches must be at least one pair (x, y) of tensors")
    return OwnModel(spec, model, loss, batches, lr or _RATE)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
