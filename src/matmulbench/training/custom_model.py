"""A user's own training: any ``torch.nn`` model, loss, batches and optimiser, accounted for like the built-in tasks."""

# ruff: noqa: D102  # TrainingProblem says what each method does

from __future__ import annotations

import copy
import inspect
import io
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial, wraps
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset

from matmulbench.errors import UsageError, printable
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_function
from matmulbench.training.forms import Form, Loss, binds, clone_batch, tensors_of, to_dtype
from matmulbench.training.plug import copied, uncompiled
from matmulbench.training.problem import load_problem
from matmulbench.training.tasks import check_options, find_task
from matmulbench.training.trainers import ModuleTrainer, StepProduct, TaskProblem, TimedKernel, TrainingProblem
from matmulbench.workload import Workload

_BATCHES = 1000  # of the loader, at most; they are kept in memory, for every kernel sees the same
_RATE = 0.01
_FORM = "(model, loss, batches) or (model, loss, batches, optimiser factory)"

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Made = tuple[nn.Module, Loss, list[Any], OptimizerFactory | None]


class CustomModel(TrainingProblem):
    """A model, its loss, its batches and its optimiser's factory or None, ``made`` as :func:`load_model` describes.

    ``rate`` is that of plain SGD, where there is no such factory; ``remake`` makes all anew if the model cannot be
    copied.

    Raises
    ------
    UsageError
        if a training step cannot be done.
    """

    def __init__(self, name: str, made: Made, rate: float = _RATE, remake: Callable[[], Made] | None = None) -> None:
        self.name, self.rate, self.remake = name, rate, remake
        model, self.loss, self.batches, self.optimizer = made
        self.model = uncompiled(model)
        self.rows = next((len(t) for t in tensors_of(self.batches[0]) if t.dim()), 1)
        self.steps = len(self.batches)
        sizes = {tuple(t.shape for t in tensors_of(batch)) for batch in self.batches[:-1]}  # the last may be short
        self.uneven = len(sizes) > 1
        self.in_double = True  # whether the reference is in float64
        self.reseeds = False  # whether random numbers are seeded alike at each step
        self.copies = True  # whether a copy is all that a step of it reaches; else the factory is called each time
        self._materialise(self.model)
        self._try_steps()
        self.compiled = bool(_left_out) or self.model is not model

    @property
    def what(self) -> str:
        """How a message names it."""
        return f"model {self.name!r}"

    def split(self, watch: TimedKernel, steps: int) -> list[float]:
        """Count a product of another shape (of a short last batch, of a routed model) as the one nearest in FLOP."""
        found = [0.0] * len(self.products)
        for kind, seconds in zip(watch.kinds, watch.seconds, strict=True):
            if kind not in self._kinds:
                new = _product(0, kind, 1)
                unlike = [(one.which != new.which, abs(one.workload.flop - new.workload.flop)) for one in self.products]
                self._kinds[kind] = unlike.index(min(unlike))
            found[self._kinds[kind]] += seconds / steps
        return found

    def begin(self, kernel: Kernel) -> ModuleTrainer:
        return _Trainer(self, kernel)

    def begin_plain(self) -> ModuleTrainer:
        return _Trainer(self)

    def reference(self) -> ModuleTrainer:
        return _Trainer(self, dtype=torch.float64 if self.in_double else None)

    def few(self, rows: int) -> CustomModel:
        """Cut each tensor that has as many rows as the batch."""

        def cut(leaf: Any) -> Any:
            return leaf[:rows] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == self.rows else leaf

        fewer = copy.copy(self)
        fewer.batches, fewer.steps = [tree_map(cut, self.batches[0])], 1
        return fewer

    def copy(self) -> tuple[nn.Module, Loss]:
        """Return model and loss as they were at the start."""
        try:
            if self.copies:
                return copied((self.model, self.loss))
        except UsageError:
            if not self.remake:
                raise
        model, loss = self._call_again()
        self._materialise(model)
        return model, loss

    def _call_again(self) -> tuple[nn.Module, Loss]:
        assert self.remake
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # which has been shown once
            model, loss, *_ = self.remake()
        return uncompiled(model), loss

    def _materialise(self, model: nn.Module) -> None:
        """Call a model with lazy layers once: their sizes come from what they are given."""
        if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
            with torch.no_grad():
                self._explain(
                    lambda: Form(model, self.loss, self.batches[0]).output(model, clone_batch(self.batches[0]))
                )

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if not self.optimizer:
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise UsageError(f"{self.what}: none of its parameters asks for a gradient, expected one to learn")
            return torch.optim.SGD(model.parameters(), self.rate)
        what = f"{self.what}: its optimiser"
        try:
            optimizer = self.optimizer(model.parameters())
        except Exception as error:
            raise UsageError(
                f"{what} factory ends in {type(error).__name__}: {error}; expected a function of the parameters such "
                f"as lambda parameters: AdamW(parameters, lr=0.001)"
            ) from error
        if not all(hasattr(optimizer, name) for name in ("param_groups", "step", "zero_grad")):
            raise UsageError(f"{what} factory returned {type(optimizer).__name__}, expected a torch.optim.Optimizer")
        # Of the class, as it is written: a schedule of rates puts a function of other parameters around it.
        if not binds(getattr(type(optimizer), "step", None), optimizer):
            raise UsageError(f"{what} is {type(optimizer).__name__}, expected one whose step() takes no closure")
        theirs = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in theirs for parameter in model.parameters() if parameter.requires_grad):
            raise UsageError(f"{what} steps on nothing that the model learns, expected the parameters that it is given")
        return optimizer

    def _try_steps(self) -> None:
        """Take the first, second and last step; note the products, and whether random numbers are drawn."""
        before = _random_state()
        if self.remake:  # else it is the user's own
            self.model.zero_grad()
        watch = TimedKernel(torch.matmul)
        trainer = _Trainer(self, watch)
        for step in sorted({0, min(1, self.steps - 1), self.steps - 1}):
            self._explain(lambda step=step: trainer.step(step), step)  # type: ignore[misc]
            trainer.use(torch.matmul)  # the products are those of the first step
        self.reseeds = _random_state() != before
        # A loss that penalises the weights of the factory's model knows nothing of a copy.
        reached = any(parameter.grad is not None for parameter in self.model.parameters())
        self.copies = not (reached and self.remake and self._call_again()[0] is not self.model)
        counts = Counter(watch.kinds)
        self._kinds = {kind: i for i, kind in enumerate(counts)}
        self.products = [_product(i, kind, count) for i, (kind, count) in enumerate(counts.items(), 1)]
        dtypes = {getattr(torch, one.workload.dtype) for one in self.products} or {torch.float32}
        self.roundoff = max(float(torch.finfo(dtype).eps) / 2 for dtype in dtypes)

    def try_steps(self, last: int, seconds: float) -> ModuleTrainer | None:
        """Train with plain torch up to before step ``last``; return the trainer, or None if ``seconds`` are too few.

        Raises
        ------
        UsageError
            if it cannot learn from a batch; the message says which.
        """
        end, trainer = time.monotonic() + seconds, _Trainer(self)
        for step in range(last):
            if time.monotonic() > end:
                return None
            self._explain(lambda step=step: trainer.step(step), step % self.steps)  # type: ignore[misc]
        return trainer

    def _explain(self, action: Callable[[], Any], step: int = 0) -> None:
        try:
            action()
        except UsageError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in tensors_of(self.batches[step]))
            raise UsageError(
                f"{self.what}: a step on batch {step + 1} of {self.steps} ends in {type(error).__name__}: "
                f"{printable(str(error), 300)}; the batch has tensors of {shapes or 'no shape'}, expected batches "
                f"(x, y) such that loss(model(x), y) is one number that depends on the parameters"
            ) from error


class _Trainer(ModuleTrainer):
    """A trainer that copies its batches, as a model may write into what it is given."""

    def __init__(self, problem: CustomModel, kernel: Kernel | None = None, dtype: torch.dtype | None = None) -> None:
        model, loss = problem.copy()
        for module in (model, loss):
            if dtype and isinstance(module, nn.Module):
                module._apply(lambda tensor: to_dtype(tensor, dtype))  # type: ignore[no-untyped-call]
        super().__init__(model, problem.make_optimizer(model), self._loss, kernel)
        self.problem, self.form, self.dtype = problem, Form(model, loss, problem.batches[0]), dtype
        self.ready: dict[int, Any] = {}

    def prepare(self, first: int, last: int) -> None:
        self.ready = {step: self._batch(step) for step in range(first, last)}

    def _batch(self, step: int) -> Any:
        return clone_batch(self.problem.batches[step % self.problem.steps], self.dtype)

    def _loss(self, model: nn.Module, step: int) -> Tensor:
        batch = self.ready.pop(step) if step in self.ready else self._batch(step)
        if self.problem.reseeds:
            _seed(step)
        value = self.form.loss(model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"{self.problem.what}: its loss returned {got}, expected a tensor of one number")
        return value


def _seed(seed: int) -> None:
    """Seed what a model may draw random numbers from."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # a model may well use the old functions
    random.seed(seed)


def _random_state() -> tuple[Any, ...]:
    numbers = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return torch.get_rng_state().tolist(), numbers["key"].tolist(), numbers["pos"], random.getstate()


def _product(layer: int, kind: tuple[Any, ...], count: int) -> StepProduct:
    """Describe a product by what a stopwatch noted of it."""
    backward, a, a_strides, b, b_strides, dtype = kind
    layout = "".join("T" if each[-2] == 1 != each[-1] else "N" for each in (a_strides, b_strides))
    workload = Workload(a[-2], a[-1], b[-1], layout, str(dtype).removeprefix("torch."), math.prod(a[:-2]))
    return StepProduct(layer, "backward" if backward else "forward", workload, count)


@contextmanager
def without_a_word(quiet: bool) -> Iterator[None]:
    """Keep back what a factory prints, and from now on all warnings: it has said so where it was described first."""
    if not quiet:
        yield
        return
    warnings.simplefilter("ignore")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def load_training(task: str, seed: int, data_dir: str | None, options: dict[str, Any]) -> TrainingProblem:
    """Load a built-in task, or with a colon in its name a custom model; see :func:`load_model`.

    Raises
    ------
    UsageError
        if task, model or option cannot be used, or the data cannot be read.
    """
    if ":" in task:
        check_options(task, options)
        return load_model(task, seed, **options)
    return TaskProblem(load_problem(find_task(task, **options), data_dir, seed))


def preload(task: str, seed: int, data_dir: str | None, options: dict[str, Any]) -> None:
    """Load a built-in task's data on one thread, in the host, so that all children have it already."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool of threads that has begun to work does not survive a fork
    try:
        load_problem(find_task(task, **options), data_dir, seed)
    finally:
        torch.set_num_threads(threads)


def load_model(spec: str, seed: int = 0, lr: float | None = None) -> CustomModel:
    """Call the factory ``spec``, ``package.module:factory`` or ``path/to/file.py:factory``.

    The factory takes nothing and returns ``(model, loss, batches)``, or an optimiser factory behind them:

    - an ``nn.Module``, of whose training step at least one matrix product is in float32 or float64;
    - a function of output and target that gives one number, or of the output alone; None if the output is the loss;
    - an iterable of tuples (x, y) or (x1, x2, …, y), of dicts of what the model takes by name (what is left is the
      target), such as a ``DataLoader``. Up to 1000 batches are taken, a step each;
    - a function of the parameters, such as ``lambda parameters: AdamW(parameters)``; else plain SGD is used.

    Parameters
    ----------
    seed
        of torch's, numpy's and Python's random numbers, set before the factory is called.
    lr
        the rate of plain SGD, 0.01 by default.

    Raises
    ------
    UsageError
        if the factory cannot be found, fails, or returns something else, or a training step cannot be done.
    """

    def make() -> Made:
        return _make(spec, seed)

    _left_out.clear()
    made = make()
    if made[3] and lr is not None:
        raise UsageError(f"lr {lr:g}: the optimiser factory of model {spec!r} sets the rate, change it there")
    return CustomModel(spec, made, lr or _RATE, make)


_left_out: set[int] = set()  # by id, what was given to torch.compile and called since


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Leave what ``torch.compile`` is given as it is: compiled code runs no kernel."""

    def leave(model: Any = None, **options: Any) -> Any:
        if model is None:  # a decorator's options
            return partial(leave, **options)
        if not inspect.isfunction(model):
            _left_out.add(id(model))
            return model

        @wraps(model)
        def left(*arguments: Any, **named: Any) -> Any:
            _left_out.add(id(model))
            return model(*arguments, **named)

        left.compile_options = options  # type: ignore[attr-defined]  # a kernel of this file is compiled after all
        return left

    compile_, torch.compile = torch.compile, leave
    try:
        yield
    finally:
        torch.compile = compile_


def _make(spec: str, seed: int) -> Made:
    what, part = f"model {spec!r}", "file ends"
    threads = torch.get_num_threads()
    try:
        _seed(seed)
        with _uncompiled():
            factory = load_function(spec, "model")
        if inspect.iscoroutinefunction(factory):
            raise UsageError(f"{what}: the factory is an async function, expected a plain one")
        if not binds(factory):
            raise UsageError(f"{what}: the factory is called without arguments: give each of its parameters a default")
        part = "factory ends"
        _seed(seed)  # once more, for next time the file is there already
        with _uncompiled():
            made = factory()
        form = f"{what}: expected {_FORM} from the factory"
        if not isinstance(made, tuple | list) or len(made) not in (3, 4):
            of = f" of {len(made)}" if isinstance(made, tuple | list) else ""
            raise UsageError(f"{form}, got {None if made is None else type(made).__name__}{of}")
        model, loss, source, optimizer = (*made, None)[:4]
        kinds = [_kind(value) for value in made]
        right = isinstance(model, nn.Module) and (kinds[0] == "model" or kinds[1] != "model")
        right &= isinstance(source, Iterable) and not any(isinstance(value, type) for value in made[:3])
        if not (right and all(value is None or callable(value) for value in (loss, optimizer))):
            raise UsageError(f"{form}, got ({', '.join(kinds)})")
        part = "batches end"
        taken = islice(source, _BATCHES)
        # Of the tokenizers' BatchEncoding, torch sees no tensors.
        batches = [dict(one) if isinstance(one, Mapping) else one for one in taken]
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {printable(str(error), 300)}"
        raise UsageError(f"{what}: its {part} in {found}; expected {_FORM} from the factory") from error
    finally:
        torch.set_num_threads(threads)  # those that were asked for
    if not batches or not tensors_of(batches):
        raise UsageError(f"{form}, got {_contents(batches)}; batches must be at least one pair (x, y) of tensors")
    return model, loss, batches, optimizer


def _contents(batches: list[Any]) -> str:
    if not batches:
        return "no batch"
    kinds = dict.fromkeys(type(leaf) for leaf in tree_leaves(batches[0]))
    found = ", ".join(f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.") for kind in kinds) or "nothing"
    return f"{found} in a batch{'; torch.from_numpy makes tensors of arrays' if np.ndarray in kinds else ''}"


def _kind(made: Any) -> str:
    """Say what a value that a factory returned seems to be, and what to do with it where that shows."""
    if isinstance(made, type):
        return "optimiser factory" if issubclass(made, torch.optim.Optimizer) else f"the class {made.__name__}: call it"
    if isinstance(made, torch.optim.Optimizer):
        return f"{type(made).__name__}: a function of the parameters is expected to make it"
    if isinstance(made, nn.Module):
        return "model" if next(made.parameters(), None) is not None else "loss"
    if isinstance(made, DataLoader | list | tuple):
        return "batches"
    if isinstance(made, Dataset):
        return f"{type(made).__name__}: a DataLoader makes batches of it"
    return "function" if inspect.isroutine(made) else type(made).__name__
