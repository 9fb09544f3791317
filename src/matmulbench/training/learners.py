"""What takes part in a training: the reference net with some kernel, and what one would write with ``torch.nn``."""

# ruff: noqa: D102  # the protocols say what each method does

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch._dynamo  # the first optimizer would: two seconds of the time that the kernels share
from torch import Tensor, nn

from matmulbench.ladder import Kernel
from matmulbench.training import mlp
from matmulbench.training.plug import PluggedLinear
from matmulbench.training.problem import Problem
from matmulbench.workload import Product, layer_products


class Learner(Protocol):
    """Something that learns, a step at a time."""

    def step(self, step: int) -> Tensor:
        """Learn from the batch of ``step``; return its loss, one number."""

    def use(self, kernel: Kernel) -> None:
        """Have all products done by ``kernel`` from now on."""

    def predict(self, x: Tensor) -> Tensor:
        """Return the net's output for ``x``."""

    def parameters(self) -> list[Tensor]:
        """Return all that it has learnt, always in the same order."""

    def loss_at(self, step: int) -> float:
        """Return the loss on the batch of ``step``, and learn nothing."""


class Subject(Protocol):
    """What is to be learnt, as accounting needs it; each learner begins from the same parameters."""

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

    def products(self) -> list[Product]:
        """List a step's products in the order in which they are asked for."""

    def begin(self, kernel: Kernel) -> Learner:
        """Make a learner that has its products done by ``kernel``."""

    def begin_plain(self) -> Learner:
        """Make a learner as one would write it with ``torch.nn``, autograd and SGD."""

    def reference(self) -> Learner:
        """Make a learner that works in float64 with torch's products."""

    def few(self, rows: int) -> Subject:
        """Return the same for the first ``rows`` rows of the first batch alone."""

    def accuracies(self, learner: Learner) -> tuple[float | None, float | None]:
        """Return the shares of train and test rows that ``learner`` gets right; None where that has no meaning."""


class ReferenceLearner:
    """The MLP with manual back-propagation, all its products done by ``kernel``."""

    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        task = problem.task
        self.problem = problem
        self.net = mlp.build(problem.parameters, task.activation, task.output, task.loss, kernel)

    def step(self, step: int) -> Tensor:
        x, y = self.problem.batch(step)
        return self.net.step(x, y, self.problem.rate)

    def use(self, kernel: Kernel) -> None:
        for layer in self.net.layers:
            if isinstance(layer, mlp.Linear):
                layer.matmul = kernel

    def predict(self, x: Tensor) -> Tensor:
        return self.net.forward(x)

    def parameters(self) -> list[Tensor]:
        layers = [layer for layer in self.net.layers if isinstance(layer, mlp.Linear)]
        return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]

    def loss_at(self, step: int) -> float:
        x, y = self.problem.batch(step)
        return float(self.net.loss.forward(self.net.forward(x), y))


class ModuleLearner:
    """A ``torch.nn`` model with autograd and ``torch.optim.SGD``, plain or plugged.

    ``batch`` gives x and y of a step, and ``loss`` takes prediction and y.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        rate: float,
        batch: Callable[[int], tuple[Tensor, Tensor]],
    ) -> None:
        self.model, self.loss, self.batch = model, loss, batch
        self.optimizer = torch.optim.SGD(model.parameters(), rate)

    def step(self, step: int) -> Tensor:
        x, y = self.batch(step)
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def use(self, kernel: Kernel) -> None:
        for module in self.model.modules():
            if isinstance(module, PluggedLinear):
                module.use(kernel)

    def predict(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.model(x)
            return out

    def parameters(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def loss_at(self, step: int) -> float:
        x, y = self.batch(step)
        with torch.no_grad():
            return float(self.loss(self.model(x), y))


_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
_LOSSES: dict[str, type[nn.Module]] = {"mse": nn.MSELoss, "bce": nn.BCELoss, "cross-entropy": nn.CrossEntropyLoss}


class TaskSubject:
    """One of the built-in tasks."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

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

    def products(self) -> list[Product]:
        return layer_products(self.rows, self.problem.task.layers, self.problem.task.dtype)

    def begin(self, kernel: Kernel) -> ReferenceLearner:
        return ReferenceLearner(self.problem, kernel)

    def begin_plain(self) -> ModuleLearner:
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
        return ModuleLearner(nn.Sequential(*layers), _LOSSES[task.loss](), self.problem.rate, self.problem.batch)

    def reference(self) -> ReferenceLearner:
        return ReferenceLearner(self.problem.to(torch.float64), torch.matmul)

    def few(self, rows: int) -> TaskSubject:
        return TaskSubject(self.problem.first_rows(rows))

    def accuracies(self, learner: Learner) -> tuple[float | None, float | None]:
        return self.problem.accuracies(learner.predict)
