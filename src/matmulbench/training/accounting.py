"""What each kernel costs and buys in one training: runs in a child process, kernels taking turns."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from matmulbench import isolation
from matmulbench.data import DataError
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel
from matmulbench.measurement.statistics import median_interval, ratio_interval
from matmulbench.results.schema import Status, TrainingRow
from matmulbench.training.contestant import Contestant, Stopwatch
from matmulbench.training.cost import predict_seconds, share_out
from matmulbench.training.envelope import Envelope, rounding_envelope
from matmulbench.training.learners import ModuleLearner, ReferenceLearner
from matmulbench.training.problem import Problem
from matmulbench.training.tasks import find_task, load
from matmulbench.workload import Workload, layer_products

TORCH_NN = "torch.nn"
_REFERENCE_SHARE = 0.3  # of the budget, at most, for the float64 reference and its envelope
_TURNS = 60  # wished for each kernel, for an interval of a few percent
_PRECISE = 0.01  # half-width of the speedup's interval at which the clock may stop
_POINTS = 500  # of a loss curve, at most, in the results

Result = tuple[dict[str, Any], dict[str, Any]]


def train_task(
    task_name: str,
    specs: list[str],
    baseline: str,
    budget_s: float,
    seed: int,
    data_dir: str | None,
    options: dict[str, Any],
) -> list[Result]:
    """Train a task with each kernel, taking turns, and account for it.

    Parameters
    ----------
    task_name, options
        as :func:`~matmulbench.training.tasks.find_task` takes them.
    specs, baseline
        kernels, and that one of them that speedups are quoted against.
    budget_s
        seconds that all this may take, about.
    seed
        of split, initial parameters, order of batches and order of turns.
    data_dir
        where MNIST is.

    Returns
    -------
    For each kernel and, last, for ``torch.nn``, a :class:`~matmulbench.results.schema.TrainingRow` as a dict and more
    about it: ``losses`` at ``loss_steps`` with the float64 ``reference`` and the ``envelope`` there, ``step_samples``
    (seconds a step, one a turn), ``products`` (``layer``, ``which``, seconds a step), ``rest_s`` (what a step takes
    besides) and ``ceiling`` (the speedup over this kernel if products took no time).

    Raises
    ------
    ValueError
        if task or option is unknown.
    DataError
        if the data cannot be read.
    """
    deadline = time.monotonic() + budget_s
    try:
        problem = load(find_task(task_name, **options), data_dir, seed)
    except DataError as error:
        isolation.say(("data-error", str(error)))
        raise
    return _Training(problem, specs, baseline, budget_s, deadline, seed).results()


class _Training:
    """All kernels in one problem: cost foretold, reference trained, turns taken, rows made."""

    def __init__(
        self, problem: Problem, specs: list[str], baseline: str, budget_s: float, deadline: float, seed: int
    ) -> None:
        self.problem, self.specs, self.baseline = problem, specs, baseline
        self.deadline, self.random = deadline, random.Random(seed)
        self.rows = {spec: self._row(spec) for spec in [*specs, TORCH_NN]}
        self.extras: dict[str, dict[str, Any]] = {spec: {} for spec in self.rows}
        self.products = layer_products(problem.rows, problem.task.layers, problem.task.dtype)
        self.kernels: dict[str, Kernel] = {}
        self.foretold: dict[str, list[float]] = {}  # seconds of each product of a step
        for spec in specs:
            self._attempt(spec, self._foretell)
        self.rest = self._time_rest()
        self.envelope = rounding_envelope(problem, problem.steps, _REFERENCE_SHARE * budget_s)

    def _row(self, spec: str) -> TrainingRow:
        return TrainingRow(self.problem.task.name, spec, torch.get_num_threads())

    def _attempt(self, spec: str, action: Any, *args: Any) -> bool:
        """Do something with a kernel; if it fails, so does its row, and only that."""
        isolation.say(("kernel", spec))
        try:
            action(spec, *args)
        except Exception as error:
            outcome = isolation.describe(error)
            self._fail(spec, outcome.status, outcome.reason)
            return False
        return True

    def _fail(self, spec: str, status: Status, reason: str | None) -> None:
        self.rows[spec] = self._row(spec)
        self.rows[spec].status, self.rows[spec].reason = status, reason

    def _foretell(self, spec: str) -> None:
        kernel = load_kernel(spec)
        self.foretold[spec] = [predict_seconds(kernel, product) for product in self.products]
        self.kernels[spec] = kernel

    def _time_rest(self) -> float:
        """Return the seconds of a step that no kernel changes."""
        stopwatch = Stopwatch(torch.matmul)
        learner = ReferenceLearner(self.problem, stopwatch)
        rests = []
        for step in range(3):
            stopwatch.seconds.clear()
            start = time.perf_counter()
            learner.step(step)
            rests.append(time.perf_counter() - start - sum(stopwatch.seconds))
        return min(rests)

    # --- the turns ---------------------------------------------------------------------------------------

    def _contestants(self) -> list[Contestant]:
        steps = self.problem.steps
        estimates = {spec: sum(self.foretold[spec]) + self.rest for spec in self.kernels}
        estimates[TORCH_NN] = self.rest + sum(
            predict_seconds(torch.matmul, product) for product in self.products
        )
        wishes = [steps * s + _TURNS * max(s, 2e-3) for s in estimates.values()]
        grants = share_out(max(0.0, self.deadline - time.monotonic()), wishes)
        found = []
        for (spec, estimate), grant in zip(estimates.items(), grants, strict=True):
            if 2 * estimate <= grant or spec in (self.baseline, TORCH_NN):
                kernel = self.kernels.get(spec)
                found.append(Contestant(spec, kernel, self._begin(spec), steps, estimate, grant))
            else:
                self._attempt(spec, self._few_rows, estimate, grant)
        return found

    def _begin(self, spec: str) -> Any:
        if spec == TORCH_NN:
            return lambda: ModuleLearner(self.problem)
        return lambda: ReferenceLearner(self.problem, self.kernels[spec])

    def _few_rows(self, spec: str, estimate: float, grant: float) -> None:
        """Account for a kernel too slow for two steps: learn from fewer rows, and foretell the step."""
        row = self.rows[spec]
        rows = int(self.problem.rows * grant / (2 * estimate))
        row.extrapolated, row.steps = True, 0
        row.reason = f"a step takes about {estimate:.3g} s: foretold from smaller products"
        if rows:
            few = self.problem.first_rows(rows)
            envelope = rounding_envelope(few, 2)
            learner = ReferenceLearner(few, self.kernels[spec])
            losses = []
            for step in range(2):
                isolation.say(("kernel", spec))
                losses.append(float(learner.step(step)))
            row.steps = 2
            row.reason += f"; losses compared over {rows} of {self.problem.rows} rows"
            self._check(spec, losses, envelope)
        else:
            row.reason += "; too slow even for one row: its losses were not compared"
        if self.rows[spec].status == Status.OK:
            row.step_s = estimate
            self._describe(spec, self.foretold[spec], estimate)

    def _take_turns(self, contestants: list[Contestant]) -> list[Contestant]:
        """Let all train, a turn each a round in random order, until time is up or the speedups are known."""
        playing, number = list(contestants), 0
        gc.collect()
        gc.disable()  # its pauses would hit some kernel's turn
        while playing and time.monotonic() < self.deadline:
            self.random.shuffle(playing)
            for contestant in list(playing):
                late = time.monotonic() + contestant.turn_estimate > self.deadline
                if (late and contestant.losses) or not self._attempt(contestant.name, self._turn, contestant, number):
                    playing.remove(contestant)
                elif not contestant.finished and not contestant.affordable:
                    playing.remove(contestant)
            number += 1
            if number % 20 == 0 and self._precise(playing):
                break
        gc.enable()
        return [c for c in contestants if self.rows[c.name].status == Status.OK]

    @staticmethod
    def _turn(_: str, contestant: Contestant, number: int) -> None:
        contestant.turn(number)

    def _precise(self, playing: list[Contestant]) -> bool:
        return all(
            c.finished
            and len(c.step_samples) >= _TURNS // 2
            and median_interval(list(c.step_samples.values())).relative_half_width < _PRECISE
            for c in playing
        )

    # --- the rows ----------------------------------------------------------------------------------------

    def results(self) -> list[Result]:
        """Train all and return their rows."""
        contestants = {c.name: c for c in self._take_turns(self._contestants())}
        for contestant in contestants.values():
            self._attempt(contestant.name, self._account, contestant)
        self._compare(contestants)
        return [(asdict(row), self.extras[spec]) for spec, row in self.rows.items()]

    def _account(self, spec: str, contestant: Contestant) -> None:
        """Make a contestant's row, but for what the baseline is needed for."""
        self._check(spec, contestant.losses, self.envelope)
        row = self.rows[spec]
        if row.status != Status.OK:
            return
        samples = list(contestant.step_samples.values())
        interval = median_interval(samples)
        row.step_s, row.step_ci_low_s, row.step_ci_high_s = interval.median, interval.low, interval.high
        row.steps = len(contestant.losses)
        row.extrapolated = not contestant.finished
        if contestant.learnt:
            row.train_accuracy, row.test_accuracy = self.problem.accuracies(contestant.learnt.predict)
        else:
            row.reason = f"{row.steps} of {self.problem.steps} steps, as many as the time allowed"
        self.extras[spec]["step_samples"] = samples
        if contestant.product_samples:
            self._describe(spec, np.median(contestant.product_samples, axis=0).tolist(), interval.median)

    def _check(self, spec: str, losses: list[float], envelope: Envelope) -> None:
        """Compare the losses with the reference's; outside the envelope, no figure is left."""
        thin = slice(None, None, -(-len(losses) // _POINTS) or 1)
        self.extras[spec] |= {
            "loss_steps": list(range(len(losses)))[thin],
            "losses": losses[thin],
            "reference": envelope.reference[: len(losses)][thin].tolist(),
            "envelope": envelope.width[: len(losses)][thin].tolist(),
        }
        row = self.rows[spec]
        row.final_loss, row.loss_deviation = losses[-1], envelope.deviation(losses)
        step = envelope.first_outside(losses)
        if step is not None:
            self._fail(
                spec,
                Status.FAILED_VERIFICATION,
                f"it learns differently: at step {step + 1} the loss is {losses[step]:.6g}, the float64 reference's "
                f"{envelope.reference[step]:.6g}, and rounding explains ±{envelope.width[step]:.2g}",
            )

    def _describe(self, spec: str, seconds: list[float], step_s: float) -> None:
        """Note where a step's time went."""
        rest = max(0.0, step_s - sum(seconds))
        self.rows[spec].matmul_share = 1 - rest / step_s
        self.extras[spec] |= {
            "products": [
                {"layer": layer, "which": which, "workload": str(product), "seconds": s}
                for (layer, which, product), s in zip(_in_order(self.problem), seconds, strict=True)
            ],
            "rest_s": rest,
            "ceiling": step_s / rest if rest else None,
        }

    def _compare(self, contestants: dict[str, Contestant]) -> None:
        """Predict each speedup from the products' times (Amdahl's law) and set it beside the measured one."""
        base = self.rows.get(self.baseline)
        if not base or base.step_s is None:
            return
        for spec, row in self.rows.items():
            extra = self.extras[spec]
            if row.status != Status.OK:
                continue
            if "products" in extra and "rest_s" in self.extras[self.baseline]:
                products = sum(product["seconds"] for product in extra["products"])
                row.predicted_speedup = base.step_s / (self.extras[self.baseline]["rest_s"] + products)
            if spec in contestants and self.baseline in contestants:
                ours, theirs = contestants[spec].step_samples, contestants[self.baseline].step_samples
                rounds = sorted(ours.keys() & theirs.keys())
                if rounds:
                    ratio = ratio_interval([theirs[r] for r in rounds], [ours[r] for r in rounds])
                    row.measured_speedup = ratio.median
                    row.measured_ci_low, row.measured_ci_high = ratio.low, ratio.high


def _in_order(problem: Problem) -> list[tuple[int, str, Workload]]:
    """List a step's products in the order in which back-propagation asks for them: layer, which, workload."""
    rows, dtype = problem.rows, problem.task.dtype
    pairs = list(enumerate(pairwise(problem.task.layers), 1))
    forward = [(i, "forward", Workload(rows, n_in, n_out, dtype=dtype)) for i, (n_in, n_out) in pairs]
    backward = []
    for i, (n_in, n_out) in reversed(pairs):
        backward.append((i, "weight-gradient", Workload(n_in, rows, n_out, "TN", dtype)))
        if i > 1:
            backward.append((i, "input-gradient", Workload(rows, n_out, n_in, "NT", dtype)))
    return forward + backward
