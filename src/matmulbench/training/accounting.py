"""What each kernel costs and buys in one training: kernels take turns in processes of their own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter
from typing import Any

import numpy as np

from matmulbench.errors import UsageError
from matmulbench.isolation import Host, LostError
from matmulbench.isolation.requests import (
    CommitParameters,
    CompileModel,
    DescribeTraining,
    JudgeParameters,
    LookAgain,
    LossEnvelope,
    OpenTraining,
    PreloadTask,
    TrainFewRows,
    TrainSteps,
)
from matmulbench.measurement.rounds import MIN_ROUNDS, Comparison, SealedCandidate, run_rounds
from matmulbench.measurement.seal import KernelFailure, Seal, ask, no_kernel_to_blame
from matmulbench.results.schema import TrainingRow
from matmulbench.status import Status
from matmulbench.training.ranks import Address, Ranks
from matmulbench.training.tasks import TORCH_COMPILE, TORCH_NN, find_task, is_model
from matmulbench.workload import fair_parts, layer_products

_COMPILE_S = 1200.0  # that torch.compile may take
_SILENCE_S = 120.0  # a large step, or the float64 reference of one
_TURN_S = 2e-3  # long enough that the clock's resolution and what was last in the caches hardly count
_UNEVEN_TURN_S = 0.5  # where batches differ in size: as many of them as can be
_REFERENCE_SHARE = 0.3  # of the time left, at most, for the float64 reference and its envelope
_POINTS = 500  # of a loss curve, at most, in the results
_FEW_ROWS = 256  # rows, at most, that a kernel too slow for the whole batch learns from
_FEW_ROWS_S = 0.5  # seconds that may go into comparing a kernel's losses even when no time is left
_LASTING_S = 0.1
_TURNS = 100  # that a kernel is allocated time for, if there is enough
_JUDGED = 0.25  # of the turns, beside the first and the last
_AGREE = 0.1  # predicted and measured speedup should, within this

_draw = np.random.default_rng()


@dataclass
class Envelope:
    """The reference's loss at each step, and how far a kernel's may be from it."""

    reference: list[float]
    width: list[float]
    name: str = "the float64 reference"

    def deviation(self, losses: list[float]) -> float | None:
        """Return the largest difference of ``losses`` from the reference's, over the largest of the reference's."""
        pairs = list(zip(losses, self.reference, strict=False))
        return max(abs(x - y) for x, y in pairs) / max(abs(y) for _, y in pairs) if pairs else None

    def holds(self, step: int, loss: float) -> bool:
        """Tell whether rounding explains ``loss`` at ``step``. Steps that the reference lacks hold; NaN does not."""
        return step >= len(self.reference) or abs(loss - self.reference[step]) <= self.width[step]

    def check(self, step: int, loss: float, by: str = "") -> None:
        """Raise KernelFailure if rounding does not explain ``loss`` at ``step``."""
        if not self.holds(step, loss):
            raise KernelFailure(
                Status.FAILED_VERIFICATION,
                f"{by}it learns differently: at step {step + 1} the loss is {loss:.6g}, {self.name}'s "
                f"{self.reference[step]:.6g}, and rounding explains ±{self.width[step]:.2g}",
            )


class Course:
    """What all candidates of one training share: the task, its reference, and the child that no kernel enters.

    ``quiet`` where what a model prints and warns of has been shown already.

    Raises
    ------
    UsageError
        if task, model or option cannot be used, or the data cannot be read.
    """

    name: str
    batch_rows: int
    steps: int
    uneven: bool  # whether some batches are larger than others
    products: list[tuple[int, str, str, str]]  # layer, which, workload, dtype
    non_matmul_s: float
    notes: list[str]  # on how a model can be judged, and what no kernel can do in it

    def __init__(
        self,
        host: Host,
        task: str,
        seed: int,
        data_dir: str | None,
        options: dict[str, Any],
        workers: int = 1,
        elsewhere: tuple[Address, ...] = (),
        device: str = "cpu",
        quiet: bool = True,
    ) -> None:
        self.host, self.task, self.seed, self.data_dir, self.options = host, task, seed, data_dir, options
        self.workers, self.elsewhere, self.device = workers, elsewhere, device
        self.turn_steps: int | None = None  # of every candidate's turn, where batches differ in size
        self.seals: list[Seal] = []
        self.envelope = Envelope([], [])
        if not is_model(task):
            host.warm(OpenTraining, first=PreloadTask(task, seed, data_dir, options))
        self.referee = host.fork(DescribeTraining)
        request = DescribeTraining(task, seed, data_dir, options, quiet)
        try:
            vars(self).update(ask(self.referee, request, _SILENCE_S))
        except KernelFailure as failure:
            self.referee.close()
            named = failure.status == Status.ERROR or failure.reason.startswith(f"model {task!r}")
            raise UsageError(failure.reason if named else f"model {task!r}: {failure.reason}") from None
        if workers > 1:
            self._divide()

    @property
    def rows(self) -> int:
        """Those of a batch that the first rank learns from."""
        return fair_parts(self.batch_rows, self.workers)[0]

    def _divide(self) -> None:
        """Describe what the first of several ranks does."""
        if self.workers > self.batch_rows:
            self.referee.close()
            raise UsageError(
                f"workers {self.workers}: expected {self.batch_rows} at most, the rows of a batch of {self.task}"
            )
        task = find_task(self.task, **self.options)
        products = layer_products(self.rows, task.layers, task.dtype)
        self.products = [(layer, which, str(one), one.dtype) for layer, which, one in products]

    def choose_turns(self, longest_s: float, share_s: float) -> None:
        """Choose how many steps are in a turn of each candidate, so that all see the same batches in a round.

        As many as fit in half a second of the slowest, whose step takes ``longest_s``, and some times in its
        ``share_s`` of the time. Of an odd number of turns in the schedule, each is timed as a whole in one pass and by
        products in the next.
        """
        turn_s = min(_UNEVEN_TURN_S, share_s / (4 * MIN_ROUNDS))
        most = max(1, min(self.steps, int(turn_s / longest_s)))
        sizes = (-(-self.steps // turns) for turns in range(-(-self.steps // most), self.steps + 1))
        self.turn_steps = next((size for size in sizes if -(-self.steps // size) % 2), 1)

    def find_envelope(self, seconds: float, rows: int | None = None, steps: int | None = None) -> Envelope:
        """Train the reference and the perturbed runs for at most ``seconds``."""
        request = LossEnvelope(steps or self.steps, seconds, rows)
        with no_kernel_to_blame():
            return Envelope(*ask(self.referee, request, _SILENCE_S))

    def parameters_decide(self, step: int) -> bool:
        """Tell whether, with torch's own products, the parameters decide the loss at a step; note it if not.

        A UsageError is raised if torch's own products do not get a model there either.
        """
        if not is_model(self.task):
            return True
        try:
            note = ask(self.referee, LookAgain(step), _SILENCE_S)
        except KernelFailure as failure:
            kind = UsageError if failure.reason.startswith("model ") else LostError
            raise kind(failure.reason) from None
        self.notes += [note] if note and note not in self.notes else []
        return note is None


class TrainingCandidate(SealedCandidate):
    """A kernel (or, with ``spec`` None, torch.nn itself) that trains turn by turn.

    A turn is one step, or as many as fill 2 ms; where batches differ in size, as many as the course has chosen.
    Turns alternate: in one the whole is timed, in the next each product, so that no stopwatch runs inside what is
    called a step's time. After the end of the schedule the training begins again, for the clock alone.
    """

    place = "the training"
    compile_s: float | None = None  # if it had to be compiled

    def __init__(self, course: Course, spec: str | None) -> None:
        here = course.workers - len(course.elsewhere)
        super().__init__(spec or TORCH_NN, course.host.threads * here, course.seals, on_device=course.device != "cpu")
        self.course, self.spec = course, spec
        self.predicted_s: list[float] = []  # seconds of each product of a step
        self.turn_steps = 1
        self.at = 0  # the next step
        self.losses: list[float] = []
        self.finished = False
        self.accuracies: tuple[float | None, float | None] = (None, None)
        self.product_samples: list[list[float]] = []  # a turn: seconds of each product of a step
        self.non_matmul_samples: list[float] = []  # a turn: seconds of a step besides its products
        self.communication_shares: list[float] = []  # a turn: the part of a step in which its ranks average

    @property
    def step_estimate_s(self) -> float:
        """About how many seconds a step takes, by the costs of its products."""
        return self.course.non_matmul_s + sum(self.predicted_s)

    @property
    def unfinished(self) -> bool:
        """Whether the schedule has steps left."""
        return not self.finished

    def enter(self) -> None:
        """Start the process and predict what a step takes."""
        began = perf_counter()
        course = self.course
        self.child = Ranks.fork(course.host, course.workers, course.batch_rows, course.elsewhere)
        request = OpenTraining(course.task, self.spec, course.seed, course.data_dir, course.options, course.device)
        self.predicted_s = ask(self._child, request, _SILENCE_S)
        self.renewal_s = perf_counter() - began
        self.turn_steps = course.turn_steps or max(1, min(course.steps, int(_TURN_S / self.step_estimate_s)))
        self.turn_s = self.step_estimate_s * self.turn_steps
        self.at, self.losses = 0, self.losses if self.finished else []

    def renew(self) -> None:
        """Go on in a fresh process, from the first step again; not before the schedule was trained to its end."""
        if self.finished or not self.child or self.child.killed:
            self.close()
            self.enter()
            ask(self._child, TrainSteps(0, 1, False), _SILENCE_S)

    def take_turn(self, number: int) -> None:
        """Take the turn of round ``number``."""
        began = perf_counter()
        last = min(self.at + self.turn_steps, self.course.steps)
        steps = last - self.at
        both = self.step_estimate_s > _LASTING_S  # such a step does not feel the stopwatch
        stopwatch = self.spec is not None and (both or number % 2 == 1)
        self.seal.wake(self._child, number)
        request = TrainSteps(self.at, last, stopwatch)
        try:
            seconds, (losses, products, communication_s) = self.seal.turn(self._child, request, _SILENCE_S)
        except KernelFailure as failure:
            if failure.status == Status.ERROR:  # perhaps the model's own
                self.course.parameters_decide(last)
            raise
        self.turn_s = max(perf_counter() - began, 1e-6)
        if products:
            self.product_samples.append(products)
            self.non_matmul_samples.append(seconds / steps - sum(products))
        if communication_s is not None:
            self.communication_shares.append(communication_s / (seconds / steps))
        if (both or not stopwatch) and self.seal.last_turn_agrees:
            self.samples[number] = seconds / steps
        self.at = last
        at_end = last == self.course.steps
        if not self.finished:
            for loss in losses:
                self.course.envelope.check(len(self.losses), loss)
                self.losses.append(loss)
            if at_end or len(self.losses) == steps or _draw.random() < _JUDGED:
                self._judge(at_end)
        if at_end:
            self.finished, self.at = True, 0
        self.seal.rest(self._child)  # what is asked of it after its steps is no work while idle

    def _judge(self, at_end: bool) -> None:
        """Have the referee compute the loss from the parameters: the loss that the child reports may be made up."""
        ask(self._child, CommitParameters(), _SILENCE_S, (self.output,))
        request = JudgeParameters(self.at, self.spec is None, at_end)
        try:
            loss, *accuracies = ask(self.course.referee, request, _SILENCE_S, (self.output,))
            if at_end:
                self.accuracies = (accuracies[0], accuracies[1])
            elif loss is not None:
                self.course.envelope.check(self.at, loss, "by its parameters, ")
        except KernelFailure as failure:
            if self.course.parameters_decide(self.at):
                unlike = failure.status == Status.FAILED_VERIFICATION
                finding = failure.reason if unlike else f"its parameters cannot be judged: {failure.reason}"
                raise KernelFailure(Status.FAILED_VERIFICATION, finding) from None


class CompiledCandidate(TrainingCandidate):
    """The model as ``torch.compile`` makes it: once, before the time of the others begins to run."""

    def __init__(self, course: Course) -> None:
        super().__init__(course, None)
        self.name = TORCH_COMPILE

    def enter(self) -> None:
        """Start the process and compile.

        Raises
        ------
        KernelFailure
            if that is not possible, with the status ``unavailable``.
        """
        super().enter()
        try:
            self.compile_s = ask(self._child, CompileModel(), _COMPILE_S)
        except KernelFailure as failure:
            raise KernelFailure(Status.UNAVAILABLE, failure.reason) from None

    def renew(self) -> None:
        """Stay in this process: a fresh one would have to compile."""
        if not self.child or self.child.killed:
            super().renew()


@dataclass
class Account:
    """What one kernel costs and buys: its row, more about it, and where a step's time goes (seconds)."""

    row: TrainingRow
    course: Course
    extra: dict[str, Any] = field(default_factory=dict)
    products_s: list[float] = field(default_factory=list)
    non_matmul_s: float = 0.0

    def note(self, *findings: str | None, first: bool = False) -> None:
        """Add to the row's reason what a reader should know."""
        known = [self.row.reason]
        self.row.reason = "; ".join(filter(None, [*findings, *known] if first else [*known, *findings])) or None

    def split_step(self, products_s: list[float], non_matmul_s: float) -> None:
        """Note where a step's time goes."""
        self.products_s, self.non_matmul_s = products_s, non_matmul_s
        step_s = sum(products_s) + non_matmul_s
        self.row.matmul_share = 1 - non_matmul_s / step_s
        self.extra["products"] = [
            {"layer": layer, "which": which, "workload": product, "dtype": dtype, "seconds": seconds}
            for (layer, which, product, dtype), seconds in zip(self.course.products, products_s, strict=True)
        ]
        self.extra |= {"non_matmul_s": non_matmul_s, "amdahl_limit": step_s / non_matmul_s}


def train_kernels(
    host: Host,
    task: str,
    specs: list[str],
    baseline: str | None,
    budget_s: float,
    seed: int = 0,
    data_dir: str | None = None,
    options: dict[str, Any] | None = None,
    compare_compile: bool = False,
    workers: int = 1,
    elsewhere: tuple[Address, ...] = (),
    device: str = "cpu",
) -> list[tuple[TrainingRow, dict[str, Any]]]:
    """Train ``task`` with each kernel and with plain ``torch.nn``, taking turns, and account for it.

    Parameters
    ----------
    task, options
        as :func:`~matmulbench.training.custom_model.load_training` takes them.
    specs, baseline
        kernels, and that one of them that speedups are quoted against; None if it has failed.
    budget_s
        seconds that all this may take, about.
    seed
        of split, initial parameters, order of batches and order of turns.
    compare_compile
        whether ``torch.compile`` takes turns, too; what it takes to compile comes on top of ``budget_s``.
    workers
        processes that divide each batch among them and average their gradients; for built-in tasks alone.
    elsewhere
        the hosts of all of them but the first, if they have one each.
    device
        where parameters and batches are; the reference stays on the CPU.

    Returns
    -------
    list
        for each kernel and, last, for ``torch.nn`` and perhaps ``torch.compile``, its row and more about it: ``losses``
        at ``loss_steps`` with the float64 ``reference`` and the ``envelope`` there, ``step_samples`` (seconds a step,
        one a turn), ``products`` (``layer``, ``which``, ``workload``, ``dtype``, ``seconds`` a step),
        ``non_matmul_s`` (what a step takes besides) and ``amdahl_limit`` (the speedup over this kernel if products
        took no time).

    Raises
    ------
    UsageError
        if task, model or option cannot be used, or the data cannot be read.
    LostError
        if the suite's own processes ended.
    """
    course = Course(host, task, seed, data_dir, options or {}, workers, elsewhere, device)
    everyone = list(dict.fromkeys([*([baseline] if baseline else []), *specs]))
    compiled = [CompiledCandidate(course)] if compare_compile else []
    candidates = [*(TrainingCandidate(course, spec) for spec in [*everyone, None]), *compiled]
    try:
        for each in compiled:
            each.attempt(each.enter)
        deadline = perf_counter() + budget_s - host.waited_s
        for one in candidates:
            if one not in compiled:
                one.attempt(one.enter)
        deadline += host.waited_s
        course.envelope = course.find_envelope(_REFERENCE_SHARE * max(0.0, deadline - perf_counter()))
        base = next((one for one in candidates if one.name == baseline and not one.failure), None)
        active = [one for one in candidates if not one.failure]
        requests = [_TURNS * one.turn_s for one in active]
        shares = dict(zip([one.name for one in active], fair_share(deadline - perf_counter(), requests), strict=True))
        slow = [one for one in active if one.spec and MIN_ROUNDS * one.turn_s > shares[one.name]]
        if base in slow:
            base = None
        fast = [one for one in active if one not in slow]
        if course.uneven and fast:
            longest_s = max(one.step_estimate_s for one in fast)
            course.choose_turns(longest_s, (deadline - perf_counter()) / len(fast))
            for one in fast:
                one.turn_steps = course.turn_steps or 1
        analyses = run_rounds(fast, base, deadline, seed=seed)
        base = None if base and base.failure else base
        accounts = [
            _predicted(one, shares[one.name]) if one in slow else _measured(one, base, analyses, len(everyone))
            for one in candidates
        ]
        _predict_speedups(accounts, baseline)
        return [(one.row, one.extra) for one in accounts]
    finally:
        for one in candidates:
            one.release()
        course.referee.close()


def fair_share(budget: float, requests: Sequence[float]) -> list[float]:
    """Allocate each request in full where it is no more than an equal share of what the smaller ones leave.

    Returns the allocations in the order of ``requests``; their sum is at most ``budget`` (all in seconds).
    """
    allocated = [0.0] * len(requests)
    for left, i in zip(
        range(len(requests), 0, -1), sorted(range(len(requests)), key=requests.__getitem__), strict=True
    ):
        allocated[i] = max(0.0, min(requests[i], budget / left))
        budget -= allocated[i]
    return allocated


def _account(one: TrainingCandidate, failure: KernelFailure | None = None) -> Account:
    course = one.course
    row = TrainingRow(course.name, one.name, course.host.threads, course.workers, course.device)
    if failure:
        row.status, row.reason = failure.status, failure.reason
    return Account(row, course, _losses(one.losses, course.envelope))


def _losses(losses: list[float], envelope: Envelope) -> dict[str, Any]:
    thin = slice(None, None, max(1, -(-len(losses) // _POINTS)))
    return {
        "loss_steps": list(range(len(losses)))[thin],
        "losses": losses[thin],
        "reference": envelope.reference[: len(losses)][thin],
        "envelope": envelope.width[: len(losses)][thin],
    }


def _measured(one: TrainingCandidate, base: TrainingCandidate | None, analyses: int, comparisons: int) -> Account:
    """Account for a candidate that took turns."""
    account, course = _account(one, one.failure), one.course
    if one.failure:
        return account
    row = account.row
    row.steps, row.extrapolated = len(one.losses), not one.finished
    row.compile_s = one.compile_s
    if not one.samples:
        row.reason = "no time was left for a step"
        return account
    account.note(None if one.finished else f"{row.steps} of {course.steps} steps")
    account.note(*course.notes)
    row.final_loss, row.loss_deviation = one.losses[-1], course.envelope.deviation(one.losses)
    account.note(None if isfinite(row.final_loss) else "its losses are not finite, nor are the reference's")
    row.train_accuracy, row.test_accuracy = one.accuracies
    alone = Comparison(one, None, analyses, comparisons)
    row.step_s, row.step_ci_low_s, row.step_ci_high_s = alone.time.figures
    account.extra["step_samples"] = alone.samples
    if base:
        paired = Comparison(one, base, analyses, comparisons)
        if paired.samples:
            row.measured_speedup, row.measured_ci_low, row.measured_ci_high = paired.speedup.figures
    if one.product_samples:
        account.split_step(np.median(one.product_samples, axis=0).tolist(), statistics.median(one.non_matmul_samples))
    if one.communication_shares:
        row.communication_share = statistics.median(one.communication_shares)
    return account


def _predicted(one: TrainingCandidate, share_s: float) -> Account:
    """Account for a kernel too slow for its share of the time: it learns from a few rows, and its step is predicted."""
    account, course, estimate = _account(one), one.course, one.step_estimate_s
    row = account.row
    row.extrapolated, row.steps = True, 0
    rows = min(_FEW_ROWS, course.rows, int(course.rows * max(share_s, _FEW_ROWS_S) / (2 * estimate)))
    account.note("predicted from smaller products")
    envelope = course.find_envelope(_SILENCE_S / 2, rows, 2) if rows else Envelope([], [])
    if envelope.reference:
        try:
            losses = ask(one._child, TrainFewRows(rows, 2), _SILENCE_S)
            for step, loss in enumerate(losses):
                envelope.check(step, loss)
        except KernelFailure as failure:
            return _account(one, failure)
        row.steps, row.final_loss, row.loss_deviation = 2, losses[-1], envelope.deviation(losses)
        account.note(f"losses of {rows} of {course.rows} rows")
        account.extra = _losses(losses, envelope)
    else:
        why = "the model does not take so few rows" if rows else "too slow even for one row"
        account.note(f"{why}: its losses were not compared")
    account.note(*course.notes)
    row.step_s = estimate
    account.split_step(one.predicted_s, course.non_matmul_s)
    return account


def _predict_speedups(accounts: list[Account], baseline: str | None) -> None:
    """Predict each speedup from the products' times (Amdahl's law) and set it beside the measured one."""
    base = next((one for one in accounts if one.row.kernel == baseline and one.row.status == Status.OK), None)
    unpaired = None
    if not base:
        unpaired = "no speedup: the baseline failed"
    elif base.row.extrapolated and "step_samples" not in base.extra:
        unpaired = f"no measured speedup: the step of {baseline} is predicted"
    for one in accounts:
        row = one.row
        if row.status != Status.OK:
            continue
        if one is not base:
            one.note(unpaired)
        if not (base and base.products_s and one.products_s):
            continue
        rest_s = base.non_matmul_s
        row.predicted_speedup = (rest_s + sum(base.products_s)) / (rest_s + sum(one.products_s))
        if row.measured_speedup:  # also of a schedule for whose end there was no time
            one.note(_what_moved(one, base), first=True)


def _what_moved(one: Account, base: Account) -> str | None:
    """Say which part of a step is not as predicted, if the speedup is not."""
    row, baseline = one.row, base.row.kernel
    moved = (row.predicted_speedup or 0) / (row.measured_speedup or 1) - 1
    within = (row.measured_ci_low or 0) <= (row.predicted_speedup or 0) <= (row.measured_ci_high or float("inf"))
    if abs(moved) <= _AGREE or within:
        return None
    parts = [("the rest of a step", one.non_matmul_s, f"with {baseline}", base.non_matmul_s)]
    for each, step in ((one, "a step"), (base, f"a step with {baseline}")):
        timed_s = each.non_matmul_s + sum(each.products_s)
        parts.append((step, each.row.step_s or timed_s, "in turns that time its products", timed_s))
    part, seconds, other, other_s = max(parts, key=lambda part: abs(part[1] - part[3]))
    return (
        f"predicted and measured speedup differ by {100 * moved:+.0f} %: {part} takes {seconds * 1e3:.3g} ms, "
        f"{other} {other_s * 1e3:.3g} ms"
    )
