"""What is trained and who trains it: the tasks' net with some kernel, and what one would write with ``torch.nn``."""

# ruff: noqa: D102  # the base classes say what each method does

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch
import torch._dynamo  # the first optimizer would: two seconds of the time that the kernels share
from torch import Tensor, nn

from matmulbench.ladder import Kernel
from matmulbench.ladder.devices import Device
from matmulbench.training.loop import train
from matmulbench.training.net import Linear, build
from matmulbench.training.problem import Problem
from matmulbench.training.replacement import products_by
from matmulbench.workload import Workload, layer_products


class TimedKernel:
    """A kernel that notes how long each product takes, and, where it notes others' products, of what kind each was.

    On a ``device`` it sets marks, which can be read when that is drained.
    """

    def __init__(self, kernel: Kernel, device: Device | None = None) -> None:
        self.kernel, self.device = kernel, device
        self.marks: list[tuple[Any, Any]] = []
        self.seconds: list[float] = []
        self.processor_s: list[float] = []  # of this thread
        self.kinds: list[tuple[Any, ...]] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply and note both times."""
        if self.device:
            before = self.device.mark()
            c = self.kernel(a, b)
            self.marks.append((before, self.device.mark()))
            return c
        processor_s, started = thread_time(), perf_counter()
        c = self.kernel(a, b)
        self.seconds.append(perf_counter() - started)
        self.processor_s.append(thread_time() - processor_s)
        return c

    def note(self, a: Tensor, b: Tensor, seconds: float, processor_s: float) -> None:
        """Note a product that something else did."""
        self.seconds.append(seconds)
        self.processor_s.append(processor_s)
        backward = torch._C._current_autograd_node() is not None
        self.kinds.append((backward, a.shape, a.stride(), b.shape, b.stride(), a.dtype))


@dataclass(frozen=True)
class StepProduct:
    """One kind of product in a step, done ``count`` times."""

    layer: int  # counted from 1
    which: str
    workload: Workload
    count: int = 1


class Trainer(ABC):
    """Something that learns, a step at a time."""

    def prepare(self, first: int, last: int) -> None:  # noqa: B027  # most have nothing to prepare
        """Make ready, before the clock starts, what steps ``first`` to before ``last`` need."""

    @abstractmethod
    def step(self, step: int) -> Tensor:
        """Learn from the batch of ``step``; return its loss before the update, one number."""

    @abstractmethod
    def use(self, kernel: Kernel) -> None:
        """Have all products done by ``kernel`` from now on."""

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """Return the net's output for ``x``."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """Return all that is learnt, always in the same order."""

    @abstractmethod
    def loss_at(self, step: int) -> float:
        """Return the loss on the batch of ``step``; nothing is learnt."""


class TrainingProblem(ABC):
    """What is to be learnt: a built-in task or a custom model. All its trainers begin from the same parameters."""

    comparable = True  # whether two runs have the same losses
    judged = True  # whether the parameters alone decide what the loss is
    uneven = False  # whether some batches are larger than others
    reference_name = "the float64 reference"  # in messages
    name: str  # in the tables
    rows: int  # of a batch
    steps: int  # of the schedule
    roundoff: float  # the unit roundoff of the dtype in which kernels work
    products: list[StepProduct]  # of a step

    @abstractmethod
    def split(self, watch: TimedKernel, steps: int) -> list[float]:
        """Return the seconds of each product of a step, the mean of what ``watch`` noted in ``steps`` steps."""

    @abstractmethod
    def begin(self, kernel: Kernel) -> Trainer:
        """Make a trainer that has its products done by ``kernel``."""

    @abstractmethod
    def begin_plain(self) -> ModuleTrainer:
        """Make a trainer as one would write it with ``torch.nn``, autograd and an optimiser."""

    @abstractmethod
    def reference(self) -> Trainer:
        """Make the trainer that others are compared with: torch's products, in float64 where that is possible."""

    @abstractmethod
    def few(self, rows: int) -> TrainingProblem:
        """Return the problem of the first ``rows`` rows of the first batch alone."""

    def accuracies(self, trainer: Trainer) -> tuple[float | None, float | None]:
        """Return the shares of train and test rows that ``trainer`` gets right; None where that has no meaning."""
        return None, None


class ManualTrainer(Trainer):
    """The MLP with manual back-propagation, all its products done by ``kernel``.

    Steps are taken one after the other; past the end of the schedule it begins again, for the clock alone.
    """

    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        task = problem.task
        self.problem = problem
        self.net = build(problem.parameters, task.activation, task.output, task.loss, self._fitted(kernel))

    def step(self, step: int) -> Tensor:
        return next(self._losses)

    @cached_property
    def _losses(self) -> Iterator[Tensor]:
        return train(self.net, self.problem.batches, self.problem.rate, count())

    def use(self, kernel: Kernel) -> None:
        for layer in self.net.layers:
            if isinstance(layer, Linear):
                layer.matmul = self._fitted(kernel)

    def _fitted(self, kernel: Kernel) -> Kernel:
        """Return ``kernel``; where products have another dtype than parameters, with what converts them."""
        task = self.problem.task
        if task.dtype == task.parameter_dtype:
            return kernel
        narrow, wide = getattr(torch, task.dtype), getattr(torch, task.parameter_dtype)
        return lambda a, b: kernel(a.to(narrow), b.to(narrow)).to(wide)

    def predict(self, x: Tensor) -> Tensor:
        return self.net.forward(x)

    def parameters(self) -> list[Tensor]:
        layers = [layer for layer in self.net.layers if isinstance(layer, Linear)]
        return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]

    def loss_at(self, step: int) -> float:
        x, y = self.problem.batch(step)
        return float(self.net.loss.forward(self.net.forward(x), y))


class ModuleTrainer(Trainer):
    """A ``torch.nn`` model with autograd and an optimiser, as it is or with its products done by ``kernel``.

    ``loss_of`` gives the loss on the batch of a step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_of: Callable[[nn.Module, int], Tensor],
        kernel: Kernel | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss_of, self.kernel = model, optimizer, loss_of, kernel

    def step(self, step: int) -> Tensor:
        with self._products():
            self.optimizer.zero_grad()
            loss = self.loss_of(self.model, step)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return loss.detach()

    def _products(self) -> AbstractContextManager[None]:
        if isinstance(self.kernel, TimedKernel):
            return products_by(self.kernel.kernel, self.kernel.note)
        return products_by(self.kernel) if self.kernel else nullcontext()

    def use(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def predict(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.model(x)
            return out

    def parameters(self) -> list[Tensor]:
        # A sparse buffer, such as a graph's edges, is no parameter, nor is an empty one, kept to know the device.
        every = (*self.model.parameters(), *self.model.buffers())
        return [one for one in every if one.layout == torch.strided and one.numel()]

    def loss_at(self, step: int) -> float:
        # With gradients, for without them some operators draw other random numbers.
        return float(self.loss_of(self.model, step).detach())


_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
_LOSSES: dict[str, type[nn.Module]] = {"mse": nn.MSELoss, "bce": nn.BCELoss, "cross-entropy": nn.CrossEntropyLoss}


class TaskProblem(TrainingProblem):
    """One of the built-in tasks."""

    def __init__(self, problem: Problem) -> None:
        task = problem.task
        self.problem, self.name, self.rows, self.steps = problem, task.name, problem.rows, problem.steps
        self.roundoff = float(torch.finfo(problem.x_train.dtype).eps) / 2
        self.products = [StepProduct(*one) for one in layer_products(problem.own_rows, task.layers, task.dtype)]

    def split(self, watch: TimedKernel, steps: int) -> list[float]:
        return list(np.reshape(watch.seconds, (steps, -1)).mean(axis=0))

    def begin(self, kernel: Kernel) -> ManualTrainer:
        return ManualTrainer(self.problem, kernel)

    def begin_plain(self) -> ModuleTrainer:
        task = self.problem.task
        layers: list[nn.Module] = []
        for i, (weight, bias) in enumerate(self.problem.parameters):
            if i:
                layers.append(_ACTIVATIONS[task.activation]())
            linear = nn.Linear(len(weight), len(bias), dtype=weight.dtype, device=weight.device)
            with torch.no_grad():
                linear.weight.copy_(weight.t())  # nn.Linear keeps it as (n_out, n_in)
                linear.bias.copy_(bias)
            layers.append(linear)
        if task.output:
            layers.append(_ACTIVATIONS[task.output]())
        narrow = task.dtype != task.parameter_dtype
        place = self.problem.x_train.device.type
        autocast = torch.autocast(place, getattr(torch, task.dtype)) if narrow else nullcontext()
        model, loss = nn.Sequential(*layers), _LOSSES[task.loss]()

        def loss_of(model: nn.Module, step: int) -> Tensor:
            x, y = self.problem.batch(step)
            with autocast:
                prediction = model(x)
            value: Tensor = loss(prediction.to(x.dtype), y)
            return value

        return ModuleTrainer(model, torch.optim.SGD(model.parameters(), self.problem.rate), loss_of)

    def reference(self) -> ManualTrainer:
        return ManualTrainer(self.problem.to("float64"), torch.matmul)

    def few(self, rows: int) -> TaskProblem:
        return TaskProblem(self.problem.first_rows(rows))

    def accuracies(self, trainer: Trainer) -> tuple[float | None, float | None]:
        return self.problem.accuracies(trainer.predict)
