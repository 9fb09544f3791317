"""What each kernel costs and buys in one training: runs in a child process, kernels taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from matmulbench import isolation
from matmulbench.errors import UsageError
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import load_kernel
from matmulbench.measurement.statistics import Interval, median_interval, ratio_interval
from matmulbench.results.schema import Status, TrainingRow
from matmulbench.training.competition import compete, share_out
from matmulbench.training.contestant import Contestant, Stopwatch
from matmulbench.training.cost import predict_seconds
from matmulbench.training.envelope import Envelope, rounding_envelope
from matmulbench.training.learners import Learner, Subject, TaskSubject
from matmulbench.training.own_model import load_model
from matmulbench.training.tasks import find_task, load

TORCH_NN = "torch.nn"
_REFERENCE_SHARE = 0.3  # of the time left, at most, for the float64 reference and its envelope
_POINTS = 500  # of a loss curve, at most, in the results
_SLOWEST_SHARE = 0.25  # of the time left, at most, for one kernel to learn from one row
_TO_COMPARE = 0.5  # seconds that may go into comparing a kernel's losses even when no time is left
_FEW = 256  # rows, at most, that a kernel too slow for the whole batch learns from
_AGREE = 0.1  # predicted and measured speedup should, within this

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
        as :func:`~matmulbench.training.tasks.find_task` takes them; or a model of one's own, as
        :func:`~matmulbench.training.own_model.load_model` does.
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
    UsageError
        if task, model or option cannot be used, or the data cannot be read.
    """
    deadline = time.monotonic() + budget_s
    try:
        if ":" in task_name:
            subject: Subject = load_model(task_name, **options)
        else:
            subject = TaskSubject(load(find_task(task_name, **options), data_dir, seed))
    except UsageError as error:
        isolation.say(("refused", str(error)))
        raise
    return _Training(subject, specs, baseline, deadline, seed).results()


class _Training:
    """All kernels in one problem: costs foretold, the reference trained, turns taken, rows made."""

    def __init__(self, subject: Subject, specs: list[str], baseline: str, deadline: float, seed: int) -> None:
        self.subject, self.baseline, self.deadline, self.seed = subject, baseline, deadline, seed
        self.rows = {spec: self._row(spec) for spec in [*specs, TORCH_NN]}
        self.extras: dict[str, dict[str, Any]] = {spec: {} for spec in self.rows}
        self.products = subject.products()
        self.kernels: dict[str, Kernel] = {}
        self.foretold: dict[str, list[float]] = {}  # seconds of each product of a step
        for spec in specs:
            self._attempt(spec, self._foretell)
        isolation.say(("kernel", "float64 reference"))
        self.rest = self._time_rest()
        self.envelope = rounding_envelope(subject, subject.steps, _REFERENCE_SHARE * self._left)

    @property
    def _left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def _row(self, spec: str) -> TrainingRow:
        return TrainingRow(self.subject.name, spec, torch.get_num_threads())

    def _attempt(self, spec: str, action: Callable[..., None], *args: Any) -> bool:
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
        self.foretold[spec] = [predict_seconds(kernel, product) for _, _, product in self.products]
        self.kernels[spec] = kernel

    def _time_rest(self) -> float:
        """Return the seconds of a step that no kernel changes."""
        stopwatch = Stopwatch(torch.matmul)
        learner = self.subject.begin(stopwatch)
        rests = []
        for step in range(3):
            stopwatch.seconds.clear()
            start = time.perf_counter()
            learner.step(step)
            rests.append(time.perf_counter() - start - sum(stopwatch.seconds))
        return min(rests)

    def results(self) -> list[Result]:
        """Train all and return their rows."""
        contestants = self._contestants()
        wishes = [contestant.wish for contestant in contestants]
        grants = {c.name: grant for c, grant in zip(contestants, share_out(self._left, wishes), strict=True)}
        slow = [c for c in contestants if c.kernel and 2 * c.turn_estimate > grants[c.name]]
        for c in slow:  # two steps of a single row, if that is not too much to ask
            one_row = 2.2 * c.turn_estimate / self.subject.rows
            grants[c.name] = max(grants[c.name], min(one_row, _SLOWEST_SHARE * self._left))
        compete(
            [c for c in contestants if c not in slow],
            self.baseline,
            self.deadline - sum(grants[c.name] for c in slow),
            lambda contestant, number: self._attempt(contestant.name, self._turn, contestant, number),
            self.seed,
        )
        for contestant in contestants:
            spec = contestant.name
            if self.rows[spec].status == Status.OK and contestant.step_samples:
                self._attempt(spec, self._account, contestant)
            elif self.rows[spec].status == Status.OK and not contestant.kernel:
                self.rows[spec].reason = "no time was left for a step"
            elif self.rows[spec].status == Status.OK:
                self._attempt(spec, self._few_rows, contestant.turn_estimate, grants[spec])
        self._compare({c.name: c for c in contestants})
        return [(asdict(row), self.extras[spec]) for spec, row in self.rows.items()]

    def _contestants(self) -> list[Contestant]:
        def contestant(spec: str, begin: Callable[[], Learner], seconds: list[float]) -> Contestant:
            return Contestant(spec, self.kernels.get(spec), begin, self.subject.steps, self.rest + sum(seconds))

        found = [
            contestant(spec, partial(self.subject.begin, kernel), self.foretold[spec])
            for spec, kernel in self.kernels.items()
        ]
        seconds = [predict_seconds(torch.matmul, product) for _, _, product in self.products]
        return [*found, contestant(TORCH_NN, self.subject.begin_plain, seconds)]

    @staticmethod
    def _turn(_: str, contestant: Contestant, number: int) -> None:
        contestant.turn(number)

    def _few_rows(self, spec: str, estimate: float, grant: float) -> None:
        """Account for a kernel too slow for two steps: learn from fewer rows, and foretell the step."""
        row = self.rows[spec]
        rows = min(_FEW, self.subject.rows, int(self.subject.rows * max(grant, _TO_COMPARE) / (2 * estimate)))
        row.extrapolated, row.steps = True, 0
        row.reason = f"a step takes about {estimate:.3g} s: foretold from smaller products"
        if rows:
            few = self.subject.few(rows)
            envelope = rounding_envelope(few, 2)
            learner = few.begin(self.kernels[spec])
            losses = []
            for step in range(2):
                isolation.say(("kernel", spec))
                losses.append(float(learner.step(step)))
            row.steps = 2
            row.reason += f"; losses compared over {rows} of {self.subject.rows} rows"
            self._check(spec, losses, envelope)
        else:
            row.reason += "; too slow even for one row: its losses were not compared"
        if self.rows[spec].status == Status.OK:
            row.step_s = estimate
            self._describe(spec, self.foretold[spec], self.rest)

    def _account(self, spec: str, contestant: Contestant) -> None:
        """Make a contestant's row, but for what the baseline is needed for."""
        self._check(spec, contestant.losses, self.envelope)
        row = self.rows[spec]
        if row.status != Status.OK:
            return
        samples = list(contestant.step_samples.values())
        interval = median_interval(samples)
        row.step_s = interval.median
        row.step_ci_low_s, row.step_ci_high_s = _ends(interval)
        row.steps = len(contestant.losses)
        row.extrapolated = not contestant.learnt
        if contestant.learnt:
            row.train_accuracy, row.test_accuracy = self.subject.accuracies(contestant.learnt)
        else:
            row.reason = f"{row.steps} of {self.subject.steps} steps, as many as the time allowed"
        self.extras[spec]["step_samples"] = samples
        if contestant.product_samples:
            seconds = np.median(contestant.product_samples, axis=0).tolist()
            self._describe(spec, seconds, float(np.median(contestant.rest_samples)))

    def _check(self, spec: str, losses: list[float], envelope: Envelope) -> None:
        """Compare the losses with the reference's; outside the envelope, no figure is left."""
        thin = slice(None, None, max(1, -(-len(losses) // _POINTS)))
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

    def _describe(self, spec: str, seconds: list[float], rest: float) -> None:
        """Note where a step's time goes."""
        step = sum(seconds) + rest
        self.rows[spec].matmul_share = 1 - rest / step
        self.extras[spec] |= {
            "products": [
                {"layer": layer, "which": which, "workload": str(product), "seconds": s}
                for (layer, which, product), s in zip(self.products, seconds, strict=True)
            ],
            "rest_s": rest,
            "ceiling": step / rest,
        }

    def _compare(self, contestants: dict[str, Contestant]) -> None:
        """Predict each speedup from the products' times (Amdahl's law) and set it beside the measured one."""
        base = self.extras.get(self.baseline, {})
        for spec, row in self.rows.items():
            extra = self.extras[spec]
            if row.status != Status.OK or "rest_s" not in base:
                continue
            if "rest_s" in extra:
                row.predicted_speedup = (base["rest_s"] + _sum(base)) / (base["rest_s"] + _sum(extra))
            if spec not in contestants or self.baseline not in contestants:
                continue
            ours, theirs = contestants[spec].step_samples, contestants[self.baseline].step_samples
            if rounds := sorted(ours.keys() & theirs.keys()):
                ratio = ratio_interval([theirs[r] for r in rounds], [ours[r] for r in rounds])
                row.measured_speedup = ratio.median
                row.measured_ci_low, row.measured_ci_high = _ends(ratio)
            if row.predicted_speedup and row.measured_speedup and not row.extrapolated:
                moved = row.predicted_speedup / row.measured_speedup - 1
                if abs(moved) > _AGREE:
                    row.reason = (
                        f"predicted and measured speedup differ by {moved:+.0%}: the rest of a step takes "
                        f"{extra['rest_s'] * 1e6:.3g} µs, with {self.baseline} {base['rest_s'] * 1e6:.3g} µs"
                    )


def _sum(extra: dict[str, Any]) -> float:
    return float(sum(product["seconds"] for product in extra["products"]))


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    """Return an interval's ends, in which no time is negative; None where one sample could not tell."""
    return (max(0.0, interval.low), interval.high) if np.isfinite(interval.low) else (None, None)
