"""A task with its data loaded: what every kernel starts from, bit for bit the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from matmulbench import data
from matmulbench.errors import UsageError
from matmulbench.training.tasks import Task

Split = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """Data, initial parameters and the order of batches of one training.

    ``x_train`` is (rows, n_in), ``y_train`` (rows,) of classes for cross-entropy, else (rows, 1). ``parameters`` are a
    (weight (n_in, n_out), bias (n_out,)) a layer. ``orders`` holds, for each epoch, the rows in the order in which its
    minibatches take them; it is empty for full batches.
    """

    task: Task
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    parameters: list[tuple[Tensor, Tensor]]
    orders: list[Tensor]
    part: slice = field(default_factory=lambda: slice(None))  # of the rows of each batch, this process's own

    @property
    def rows(self) -> int:
        """Rows of one batch."""
        return self.task.batch or len(self.x_train)

    @property
    def own_rows(self) -> int:
        """Those of them that this process learns from."""
        return len(range(self.rows)[self.part])

    @property
    def rate(self) -> float:
        """The learning rate for the gradient of the mean loss."""
        return self.task.rate * (self.rows if self.task.summed else 1)

    @property
    def steps(self) -> int:
        """How many steps the schedule has; rows that do not fill a last batch are left out of their epoch."""
        return self.task.epochs * (len(self.x_train) // self.rows)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return x and y of each batch of an epoch, counted from 0."""
        per_epoch = len(self.x_train) // self.rows
        return (self.batch(step) for step in range(epoch * per_epoch, (epoch + 1) * per_epoch))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return x and y of a step, counted from 0; past the schedule's end it begins again."""
        if not self.orders:
            return self.x_train[self.part], self.y_train[self.part]
        epoch, i = divmod(step % self.steps, len(self.x_train) // self.rows)
        rows = self.orders[epoch][i * self.rows : (i + 1) * self.rows][self.part]
        return self.x_train.index_select(0, rows), self.y_train.index_select(0, rows)

    def to(self, dtype: str | None = None, place: str = "cpu") -> Problem:
        """Return the same problem with all tensors where torch calls it ``place``, and numbers in ``dtype``."""

        def convert(tensor: Tensor) -> Tensor:
            return tensor.to(place, getattr(torch, dtype) if dtype and tensor.is_floating_point() else tensor.dtype)

        return replace(
            self,
            task=replace(self.task, dtype=dtype or self.task.dtype),
            x_train=convert(self.x_train), y_train=convert(self.y_train),
            x_test=convert(self.x_test), y_test=convert(self.y_test),
            parameters=[(convert(weight), convert(bias)) for weight, bias in self.parameters],
            orders=list(map(convert, self.orders)),
        )  # fmt: skip

    def first_rows(self, rows: int) -> Problem:
        """Return the problem whose one batch is the first ``rows`` rows of this one's first batch."""
        x, y = self.batch(0)
        task = replace(self.task, batch=None)
        return replace(self, task=task, x_train=x[:rows], y_train=y[:rows], orders=[], part=slice(None))

    def accuracies(self, predict: Callable[[Tensor], Tensor]) -> tuple[float | None, float | None]:
        """Return the shares of the train and test rows that ``predict`` gets right; None for a regression."""
        if self.task.loss == "mse":
            return None, None

        def share(x: Tensor, y: Tensor) -> float:
            out = predict(x)
            guess = out.argmax(1) if self.task.loss == "cross-entropy" else out.round()
            return float((guess == y).float().mean())

        return share(self.x_train, self.y_train), share(self.x_test, self.y_test)


@cache  # a host loads it once, for all its children
def load_problem(task: Task, data_dir: str | None = None, seed: int = 0) -> Problem:
    """Load a task's data, split and scaled, and draw its initial parameters and the order of its batches.

    Raises
    ------
    UsageError
        if a batch is larger than the data.
    DataError
        if MNIST is needed and not to be found in ``data_dir`` or where
        :func:`~matmulbench.data.mnist` looks by default.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, task.parameter_dtype)
    x_train, y_train, x_test, y_test = _SOURCES[task.source](data_dir, generator)
    if task.batch and task.batch > len(x_train):
        raise UsageError(f"batch_size {task.batch}: the task {task.name} has {len(x_train)} rows to train on")
    if task.loss != "cross-entropy":
        y_train, y_test = y_train.to(dtype).unsqueeze(1), y_test.to(dtype).unsqueeze(1)
    parameters = [
        _draw(task, n_in, n_out, generator) for n_in, n_out in zip(task.layers, task.layers[1:], strict=False)
    ]
    orders = [torch.randperm(len(x_train), generator=generator) for _ in range(task.epochs)] if task.batch else []
    return Problem(task, x_train.to(dtype), y_train, x_test.to(dtype), y_test, parameters, orders)


def _draw(task: Task, n_in: int, n_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.randn(n_in, n_out, generator=generator)
    bias = torch.randn(n_out, generator=generator)
    if task.init == "kaiming":
        weight, bias = weight.mul_((2 / n_in) ** 0.5), torch.zeros(n_out)
    dtype = getattr(torch, task.parameter_dtype)
    return weight.to(dtype), bias.to(dtype)


def _eighty_twenty(x: Tensor, y: Tensor, generator: torch.Generator) -> Split:
    order = torch.randperm(len(x), generator=generator)
    cut = len(x) * 4 // 5
    return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]


def _breast_cancer(data_dir: str | None, generator: torch.Generator) -> Split:
    """Split 80/20 and scale each feature by mean and deviation of the train rows alone."""
    x, y = map(torch.from_numpy, data.breast_cancer())
    x_train, y_train, x_test, y_test = _eighty_twenty(x.double(), y, generator)
    mean, deviation = x_train.mean(0), x_train.std(0, correction=0)
    return (x_train - mean) / deviation, y_train, (x_test - mean) / deviation, y_test


def _digits(data_dir: str | None, generator: torch.Generator) -> Split:
    """Draw the 8x8 digits at MNIST's 28x28, so that the net and its products are MNIST's."""
    x, y = map(torch.from_numpy, data.digits())
    images = x.reshape(-1, 1, 8, 8)
    large = torch.nn.functional.interpolate(images, (28, 28), mode="bilinear", align_corners=False)
    return _normalised(*_eighty_twenty(large.reshape(len(x), -1), y, generator))


def _mnist(data_dir: str | None, generator: torch.Generator) -> Split:
    """Train on 50,000 rows, test on the 10,000 of the valid set, as the article does."""
    (x_train, y_train), (x_valid, y_valid), _ = data.mnist(data_dir)
    return _normalised(*map(torch.from_numpy, (x_train, y_train, x_valid, y_valid)))


def _normalised(x_train: Tensor, y_train: Tensor, x_test: Tensor, y_test: Tensor) -> Split:
    mean, deviation = x_train.mean(), x_train.std()
    return (x_train - mean) / deviation, y_train, (x_test - mean) / deviation, y_test


_SOURCES: dict[str, Callable[[str | None, torch.Generator], Split]] = {
    "breast-cancer": _breast_cancer,
    "digits": _digits,
    "mnist": _mnist,
}
