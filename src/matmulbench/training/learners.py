"""What takes part in a training: the reference net with some kernel, and what one would write with ``torch.nn``."""

# ruff: noqa: D102  # the protocol says what each method does

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from matmulbench.ladder import Kernel
from matmulbench.training import mlp
from matmulbench.training.problem import Problem


class Learner(Protocol):
    """Something that learns a problem, a step at a time."""

    def step(self, step: int) -> Tensor:
        """Learn from the batch of ``step``; return its loss, one number."""

    def use(self, kernel: Kernel) -> None:
        """Have all products done by ``kernel`` from now on."""

    def predict(self, x: Tensor) -> Tensor:
        """Return the net's output for ``x``."""


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
        # What was learnt is the kernel's doing, what it is worth is the same with any product: take the fastest.
        task = self.problem.task
        learnt = [(layer.weight, layer.bias) for layer in self.net.layers if isinstance(layer, mlp.Linear)]
        return mlp.build(learnt, task.activation, task.output, task.loss, torch.matmul).forward(x)


_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
_LOSSES: dict[str, type[nn.Module]] = {
    "mse": nn.MSELoss,
    "bce": nn.BCELoss,
    "cross-entropy": nn.CrossEntropyLoss,
}


class ModuleLearner:
    """The same net, from the same parameters, with ``torch.nn``, autograd and ``torch.optim.SGD``."""

    def __init__(self, problem: Problem) -> None:
        task = problem.task
        self.problem = problem
        layers: list[nn.Module] = []
        for i, (weight, bias) in enumerate(problem.parameters):
            if i:
                layers.append(_ACTIVATIONS[task.activation]())
            linear = nn.Linear(len(weight), len(bias), dtype=weight.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight.t())  # nn.Linear keeps it as (n_out, n_in)
                linear.bias.copy_(bias)
            layers.append(linear)
        if task.output:
            layers.append(_ACTIVATIONS[task.output]())
        self.model = nn.Sequential(*layers)
        self.loss = _LOSSES[task.loss]()
        self.optimizer = torch.optim.SGD(self.model.parameters(), problem.rate)

    def step(self, step: int) -> Tensor:
        x, y = self.problem.batch(step)
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def use(self, kernel: Kernel) -> None:
        """Do nothing: its products are torch's own."""

    def predict(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.model(x)
            return out
