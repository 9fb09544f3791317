"""What is trained and who trains it: the tasks' net with some kernel, and what one would write with ``torch.nn``."""

# ruff: noqa: D102  # the protocols say what each method does

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from time import perf_counter, thread_time
from typing import Any, Protocol

import numpy as np
import torch
import torch._dynamo  # the first optimizer would: two seconds of the time that the kernels share
from torch import Tensor, nn

from matmulbench.ladder import Kernel
from matmulbench.training.loop import train
from matmulbench.training.net import Linear, build
from matmulbench.training.problem import Problem
from matmulbench.training.replacement import products_by
from matmulbench.workload import Workload, layer_products


class TimedKernel:
    """A kernel that notes how long each product takes, and, as a watch of others' products, of what kind it was."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.seconds: list[float] = []
        self.processor_s: list[float] = []  # of this thread
        self.kinds: list[tuple[Any, ...]] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply and note."""
        started = self.start()
        c = self.kernel(a, b)
        self._stop(started)
        return c

    def start(self) -> tuple[float, float]:
        """Return both clocks."""
        return perf_counter(), thread_time()

    def _stop(self, started: tuple[float, float]) -> None:
        self.processor_s.append(thread_time() - started[1])
        self.seconds.append(perf_counter() - started[0])

    def note(self, a: Tensor, b: Tensor, started: tuple[float, float]) -> None:
        """Note a product and its kind."""
        self._stop(started)
        backward = torch._C._current_autograd_node() is not None
        self.kinds.append((backward, a.shape, a.stride(), b.shape, b.stride(), a.dtype))


@dataclass(frozen=True)
class StepProduct:
    """One kind of product in a step, done ``count`` times."""

    layer: int  # counted from 1
    which: str
    workload: Workload
    count: int = 1


class Trainer(Protocol):
    """Something that learns, a step at a time."""

    def prepare(self, first: int, last: int) -> None:
        """Lay out, before the clock starts, what steps ``first`` to before ``last`` need."""

    def step(self, step: int) -> Tensor:
        """Learn from the batch of ``step``; return its loss, one number."""

    def use(self, kernel: Kernel) -> None:
        """Have all products done by ``kernel`` from now on."""

    def parameters(self) -> list[Tensor]:
        """Return all that it has learnt, always in the same order."""

    def loss_at(self, step: int) -> float:
        """Return the loss on the batch of ``step``, and learn nothing."""


class TrainingProblem(Protocol):
    """What is to be learnt, as accounting needs it; each trainer begins from the same parameters."""

    comparable: bool  # whether two runs have the same losses
    judged: bool  # whether the parameters alone decide what the loss is

    @property
    def reference_name(self) -> str:
        """What messages call the reference."""

    @property
    def name(self) -> str:
        """The task's name in the tables."""

    @property
    def rows(self) -> int:
        """Rows of a batch."""

    @property
    def steps(self) -> int:
        """Steps of the schedule."""

    @property
    def roundoff(self) -> float:
        """Unit roundoff of the dtype in which kernels work."""

    def products(self) -> list[StepProduct]:
        """List a step's products."""

    def split(self, watch: TimedKernel, steps: int) -> list[float]:
        """Return the seconds of each of the products in a step, from what was noted over ``steps`` steps."""

    def begin(self, kernel: Kernel) -> Trainer:
        """Make a trainer that has its products done by ``kernel``."""

    def begin_plain(self) -> ModuleTrainer:
        """Make a trainer as one would write it with ``torch.nn``, autograd and an optimiser."""

    def reference(self) -> Trainer:
        """Make the trainer that the others are compared with: in float64, with torch's products, where that can be."""

    def few(self, rows: int) -> TrainingProblem:
        """Return the same for the first ``rows`` rows of the first batch alone."""

    def accuracies(self, trainer: Any) -> tuple[float | None, float | None]:
        """Return the shares of train and test rows that ``trainer`` gets right; None where that has no meaning."""


class ManualTrainer:
    """The MLP with manual back-propagation, all its products done by ``kernel``.

    Steps are taken one after the other; past the end of the schedule it begins again, for the clock alone.
    """

    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        task = problem.task
        self.problem = problem
        self.net = build(problem.parameters, task.activation, task.output, task.loss, self._fitted(kernel))

    def prepare(self, first: int, last: int) -> None:
        pass

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
        """Return the net's output for ``x``."""
        return self.net.forward(x)

    def parameters(self) -> list[Tensor]:
        layers = [layer for layer in self.net.layers if isinstance(layer, Linear)]
        return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]

    def loss_at(self, step: int) -> float:
        x, y = self.problem.batch(step)
        return float(self.net.loss.forward(self.net.forward(x), y))


class ModuleTrainer:
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

    def prepare(self, first: int, last: int) -> None:
        pass

    def step(self, step: int) -> Tensor:
        with self._products():
            self.optimizer.zero_grad()
            loss = self.loss_of(self.model, step)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return loss.detach()

    def _products(self) -> AbstractContextManager[None]:
        if isinstance(self.kernel, TimedKernel):
            return products_by(self.kernel.kernel, self.kernel)
        return products_by(self.kernel) if self.kernel else nullcontext()

    def use(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def predict(self, x: Tensor) -> Tensor:
        """Return the net's output for ``x``."""
        with torch.no_grad():
            out: Tensor = self.model(x)
            return out

    def parameters(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def loss_at(self, step: int) -> float:
        # With gradients, for without them some operators draw other random numbers.
        return float(self.loss_of(self.model, step).detach())


_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
_LOSSES: dict[str, type[nn.Module]] = {"mse": nn.MSELoss, "bce": nn.BCELoss, "cross-entropy": nn.CrossEntropyLoss}


class TaskProblem:
    """One of the built-in tasks."""

    comparable = judged = True

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @property
    def reference_name(self) -> str:
        return "the float64 reference"

    @property
    def name(self) -> str:
        return self.problem.task.name

    @property
    def rows(self) -> int:
        return self.problem.rows

    @property
    def steps(self) -> int:
        return self.problem.steps

    @property
    def roundoff(self) -> float:
        return float(torch.finfo(self.problem.x_train.dtype).eps) / 2

    def products(self) -> list[StepProduct]:
        task = self.problem.task
        return [StepProduct(*product) for product in layer_products(self.problem.own_rows, task.layers, task.dtype)]

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
            linear = nn.Linear(len(weight), len(bias), dtype=weight.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight.t())  # nn.Linear keeps it as (n_out, n_in)
                linear.bias.copy_(bias)
            layers.append(linear)
        if task.output:
            layers.append(_ACTIVATIONS[task.output]())
        narrow = task.dtype != task.parameter_dtype
        autocast = torch.autocast("cpu", getattr(torch, task.dtype)) if narrow else nullcontext()
        model, loss = nn.Sequential(*layers), _LOSSES[task.loss]()

        def loss_of(model: nn.Module, step: int) -> Tensor:
            x, y = self.problem.batch(step)
            with autocast:
                prediction = model(x)
            value: Tensor = loss(prediction.to(x.dtype), y)
            return value

        return ModuleTrainer(model, torch.optim.SGD(model.parameters(), self.problem.rate), loss_of)

    def reference(self) -> ManualTrainer:
        return ManualTrainer(self.problem.to(torch.float64), torch.matmul)

    def few(self, rows: int) -> TaskProblem:
        return TaskProblem(self.problem.first_rows(rows))

    def accuracies(self, trainer: ManualTrainer | ModuleTrainer) -> tuple[float | None, float | None]:
        return self.problem.accuracies(trainer.predict)
