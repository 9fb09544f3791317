"""The child's side of a training: one trainer with one kernel, its steps, and the clock around them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from matmulbench.ladder import Kernel
from matmulbench.ladder.devices import DEVICES, Device, on_device
from matmulbench.ladder.plugins import load_kernel, over_batches
from matmulbench.measurement.cost import learn_cost
from matmulbench.measurement.stopwatch import Timer
from matmulbench.measurement.worker import only_between_turns, wait_for_turn
from matmulbench.training.custom_model import CustomModel, load_training, without_a_word
from matmulbench.training.data_parallel import RankProblem, join
from matmulbench.training.replacement import products_by
from matmulbench.training.tasks import is_model
from matmulbench.training.trainers import TaskProblem, TimedKernel, Trainer, TrainingProblem
from matmulbench.verification.state import note_settings
from matmulbench.workload import Workload

_ENOUGH_S = 0.01  # a product that takes longer is predicted from smaller ones
_LARGE = 2**25  # bytes; beyond, making the operands would take longer than the product


@dataclass
class _Desk:
    """What this process holds: a training, a kernel (None: torch.nn), and the trainer as it is now."""

    problem: TrainingProblem
    kernel: Kernel | None
    timer: Timer
    block: ExitStack
    trainer: Trainer = field(init=False)
    compiled: bool = False

    def restart(self) -> None:
        """Begin as before the first step."""
        if self.kernel:
            self.trainer = self.problem.begin(self.kernel)
            return
        self.trainer = plain = self.problem.begin_plain()
        if self.compiled:
            # What was compiled for an earlier trainer serves this one.
            plain.model = torch.compile(plain.model)  # type: ignore[assignment]  # it is a module, too


_desks: list[_Desk] = []


def open_training(
    task: str,
    spec: str | None,
    seed: int,
    data_dir: str | None,
    options: dict[str, Any],
    device: str,
    place: tuple[int, int, str, float] | None = None,
) -> list[float]:
    """Load the training and the kernel; return about how many seconds each product of a step takes."""
    with without_a_word(is_model(task)):
        problem = load_training(task, seed, data_dir, options)
    kernel = on_device(load_kernel(spec), device) if spec else None
    if kernel and hasattr(kernel, "compile_options"):
        kernel = torch.compile(kernel.__wrapped__, **kernel.compile_options)
    if there := DEVICES[device]:
        there.require()
        assert isinstance(problem, TaskProblem)
        problem = TaskProblem(problem.problem.to(place=there.place))
    timer = Timer(there)
    if place:
        assert isinstance(problem, TaskProblem)
        problem = join(problem, *place)
    block = ExitStack()
    if kernel and isinstance(problem, CustomModel):
        block.enter_context(products_by(kernel))  # for good: beginning anew at each step takes longer than a product
    only_between_turns()
    note_settings()
    _desks[:] = [_Desk(problem, kernel, timer, block)]
    kernel = kernel or torch.matmul
    return [one.count * predict_seconds(kernel, one.workload, there) for one in problem.products]


def predict_seconds(kernel: Kernel, product: Workload, device: Device | None = None) -> float:
    """Return about how many seconds ``kernel`` takes for ``product``, after some ten milliseconds of trying.

    One step of the triple loop may take a minute, or half a day: a slow kernel must not be met unprepared.
    """

    def either(a: Tensor, b: Tensor) -> Tensor:
        c = kernel(a, b) if a.dim() == 2 else batched(a, b)
        if device:
            device.drain()
        return c

    def ones(problem: Workload) -> tuple[Tensor, Tensor]:
        # Random numbers take longer to draw than many kernels take to multiply them.
        a, b = problem.operands(seed=None)
        return (a.to(device.place), b.to(device.place)) if device else (a, b)

    batched = over_batches(kernel)
    return learn_cost(either, product, _ENOUGH_S, ones, largest_bytes=_LARGE).full_s


def compile_model() -> float:
    """Compile the model with ``torch.compile``; return by how many seconds a first step is longer than a second one."""
    from torch._inductor import config

    desk = _desks[0]
    # Nothing that an earlier process has compiled, and no processes beside this one.
    config.force_disable_caches, config.compile_threads = True, 1
    config.fallback_random = True  # else dropout draws other numbers than torch's own
    desk.compiled = True
    desk.restart()

    def step_s(step: int) -> float:
        start = perf_counter()
        desk.trainer.step(step)
        return perf_counter() - start

    return step_s(0) - step_s(1)


def train_steps(first: int, last: int, stopwatch: bool) -> list[Any]:
    """Train from step ``first`` to before ``last``, with the parameters of the start where that is the first of all.

    Returns what :meth:`Stopwatch.stop` does, the losses, and with ``stopwatch`` the seconds of each product of a step
    and, of a rank, the seconds of a step in which gradients are averaged (else None).
    """
    desk = _desks[0]
    rank = desk.problem if isinstance(desk.problem, RankProblem) else None
    timer = desk.timer
    if not first:
        desk.restart()
    watch = TimedKernel(desk.kernel, timer.device) if stopwatch and desk.kernel else None
    if watch:
        desk.trainer.use(watch)
    desk.trainer.prepare(first, last)
    losses = []
    timer.begin_turn()
    wait_for_turn()
    if rank:
        rank.communication_s.clear()
        dist.barrier()  # until every rank is here
    clock = timer.start()
    for step in range(first, last):
        losses.append(desk.trainer.step(step))  # noqa: PERF401  # a comprehension hides what is timed
    times = clock.stop()
    products = None
    if watch and desk.kernel:
        desk.trainer.use(desk.kernel)
        start, end, own_s, _ = times
        if watch.device:
            watch.seconds = [watch.device.seconds(*pair) for pair in watch.marks]
        elif own_s < end - start:  # other programs interrupted it, products among them
            watch.seconds = watch.processor_s
        products = desk.problem.split(watch, last - first)
    communication_s = sum(rank.communication_s) / (last - first) if rank and watch else None
    return [*times, [float(loss) for loss in losses], products, communication_s]


def commit_parameters(descriptors: list[int]) -> int:
    """Write all parameters, one after the other, into the shared file; return how many bytes they take."""
    # As bytes, for numpy has not all of torch's dtypes.
    flat = (parameter.detach().cpu().reshape(-1) for parameter in _desks[0].trainer.parameters())
    content = b"".join(each.view(torch.uint8).numpy().tobytes() for each in flat)
    with open(descriptors[0], "r+b") as file:
        file.truncate(0)
        file.seek(0)
        file.write(content)
    return len(content)


def train_few_rows(rows: int, steps: int) -> list[float]:
    """Learn from the first ``rows`` rows of the first batch alone, for a kernel too slow for all."""
    desk = _desks[0]
    assert desk.kernel
    trainer = desk.problem.few(rows).begin(desk.kernel)
    return [float(trainer.step(step)) for step in range(steps)]


def read_parameters(trainer: Trainer, descriptor: int) -> None:
    """Give ``trainer`` the parameters that :func:`commit_parameters` wrote.

    Raises
    ------
    ValueError
        if the file does not hold just as many numbers.
    """
    expected = sum(p.numel() * p.itemsize for p in trainer.parameters())
    with open(descriptor, "rb") as file:
        file.seek(0)
        content = bytearray(file.read(expected + 1))  # no more: whoever wrote it may go on
    if len(content) != expected:
        found = f"{len(content)} bytes" if len(content) < expected else "more"
        raise ValueError(f"its parameters take {found}, expected {expected} bytes")
    at = 0
    for parameter in trainer.parameters():
        numbers = torch.frombuffer(content, dtype=parameter.dtype, count=parameter.numel(), offset=at)
        with torch.no_grad():
            parameter.copy_(numbers.reshape(parameter.shape))
        at += parameter.numel() * parameter.itemsize
