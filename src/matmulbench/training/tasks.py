"""The tasks: data, net, loss and schedule of each training, in one ordered table. Importing it is cheap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from matmulbench.dtypes import DTYPES, FLOATS
from matmulbench.errors import UsageError, unknown
from matmulbench.ladder.plugins import find_function
from matmulbench.workload import BATCH, BREAST_CANCER_LAYERS, MNIST_LAYERS


@dataclass(frozen=True)
class Task:
    """One training: what is learnt, by which net, and how.

    Parameters
    ----------
    name, source
        the task's name, and the data set that it learns from.
    layers
        the net's sizes, from the input to the output.
    activation, output
        the function after each hidden layer, and after the last (None: none).
    loss
        ``mse``, ``bce`` or ``cross-entropy``: the mean over the rows of a batch.
    rate, epochs, batch
        learning rate; how often each row is seen; rows of a batch (None: all, and a step is an epoch).
    summed
        whether the gradient is summed over the rows instead of averaged: the same as a rate that is larger by the
        number of rows.
    init
        ``randn``: weights and biases standard normal; ``kaiming``: weights normal with variance 2 / n_in (He et al.,
        ICCV 2015), biases zero.
    dtype
        of the products; the parameters of one of 16 bits are in float32, as with autocast.
    """

    name: str
    source: str
    layers: tuple[int, ...]
    activation: str
    output: str | None
    loss: str
    rate: float
    epochs: int
    batch: int | None = None
    summed: bool = False
    init: str = "kaiming"
    dtype: str = "float32"

    @property
    def parameter_dtype(self) -> str:
        """The dtype of data, parameters and all but the products."""
        return "float32" if DTYPES[self.dtype].is_narrow else self.dtype


TASKS = {
    task.name: task
    for task in (
        Task(
            "breast-cancer", "breast-cancer", BREAST_CANCER_LAYERS, "sigmoid", "sigmoid", "bce",
            rate=0.001, epochs=100, summed=True, init="randn",
        ),
        Task("digits", "digits", MNIST_LAYERS, "relu", None, "cross-entropy", rate=0.05, epochs=20, batch=BATCH),
        Task("mnist", "mnist", MNIST_LAYERS, "relu", None, "cross-entropy", rate=0.1, epochs=1, batch=BATCH),
        Task("mnist-regression", "mnist", (*MNIST_LAYERS[:2], 1), "relu", None, "mse", rate=0.003, epochs=5),
    )
}  # fmt: skip
"""The tasks by name, in the order of tables and charts."""

LOSSES = {"mse": "mean squared error", "bce": "binary cross-entropy"}  # in words, where the name is none

TORCH_NN, TORCH_COMPILE = "torch.nn", "torch.compile"  # rows of a training that no kernel has

OPTIONS = {"epochs": "epochs", "batch_size": "batch", "hidden": "layers", "lr": "rate", "dtype": "dtype"}
"""What changes a task: each option, and the field of :class:`Task` that it sets."""


_LARGEST = 1e9  # that any of them may be


def find_task(name: str, **options: Any) -> Task:
    """Return the task ``name``, changed by ``options``.

    Parameters
    ----------
    options
        ``epochs``, ``batch_size`` (rows), ``hidden`` (units of the hidden layer), ``lr`` (learning rate), ``dtype``;
        None leaves what the task has.

    Raises
    ------
    UsageError
        if the name is unknown (the message names near matches), or an option is unknown or out of its range.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    task = TASKS[name]
    changed = dict(_change(option, value) for option, value in options.items() if value is not None)
    if "layers" in changed:
        changed["layers"] = (task.layers[0], changed["layers"], task.layers[-1])
    return replace(task, **changed)


def _change(option: str, value: Any) -> tuple[str, Any]:
    """Return the field that an option sets, and its value once it is checked."""
    if option not in OPTIONS:
        raise UsageError(f"option {option!r} is unknown: known are {', '.join(OPTIONS)}")
    if option == "dtype":
        right, expected = value in FLOATS, " or ".join(FLOATS)
    elif option == "lr":
        right, expected = isinstance(value, int | float), "a number"
    else:
        right, expected = isinstance(value, int), "a whole number"
    if option != "dtype":
        right, expected = right and 0 < value <= _LARGEST, f"{expected} above 0, at most {_LARGEST:g}"
    if not right:
        raise UsageError(f"{option} {value!r}: expected {expected}")
    return OPTIONS[option], value


def check_options(task: str, options: dict[str, Any]) -> None:
    """Look whether there is such a task, or place for a model's factory, and whether the options go with it.

    Raises
    ------
    UsageError
        if not.
    """
    if not is_model(task):
        find_task(task, **options)
        return
    find_function(task, kind="model")
    for option, value in options.items():
        if option == "lr":
            _change(option, value)
        elif option in OPTIONS:
            raise UsageError(f"{option} {value!r} does not go with model {task!r}, whose factory makes net and batches")
        else:
            raise UsageError(f"option {option!r} is unknown: a model takes lr")


def is_model(task: str) -> bool:
    """Whether ``task`` is a model's factory and no built-in task."""
    return ":" in task or task.endswith(".py")
