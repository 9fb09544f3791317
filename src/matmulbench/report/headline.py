"""The run in a few sentences: the user's kernels first, then the ladder, and what was amiss with the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matmulbench.report.formatting import (
    NOTHING,
    compared,
    count,
    factor,
    factor_interval,
    known,
    percent,
    rate,
    rate_unit,
    seconds,
    text,
)
from matmulbench.report.queries import (
    NO_KERNELS,
    Row,
    amdahl_limit,
    kernels_of,
    labels,
    labels_of,
    ladders,
    limited_by,
    reference_of,
    shapes_of,
    task_title,
    tasks,
    users,
    verdict_of,
)
from matmulbench.results.folder import FleetResults, Results
from matmulbench.results.schema import Status

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Answer:
    """What a user asks of a kernel: question and answer in turn; ``right`` says whether it passed verification."""

    label: str
    right: bool
    facts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """The answers in one sentence."""
        return f"{self.label}: {'; '.join(said for _, said in self.facts)}."


def headline(results: Results) -> list[str]:
    """Return what the run found, sentence by sentence, the user's kernels first; no more than its verdicts allow."""
    return [*(answer.sentence for answer in answers(results)), *summary(results)]


def answers(results: Results) -> list[Answer]:
    """Return for each kernel that the user brought: is it right, how fast, how near the roof, what does it buy."""
    baseline, label = results.baseline, labels_of(results)
    found = []
    for kernel in users(results.verification["kernel"]):
        right, said = _right(results, kernel)
        answer = Answer(label[kernel], right, [("Right", said)])
        if kernel != baseline:
            answer.facts += [
                *_time(results.measurements, kernel, label[baseline]),
                *_buys(results, kernel, label[baseline]),
            ]
        found.append(answer)
    return found


def measured(measurements: pd.DataFrame, baseline: str) -> list[str]:
    """Return how fast each of the user's kernels is; of one that failed, nothing. Only what is right is timed."""
    label = labels([*measurements["kernel"], baseline])
    failed = {baseline, *measurements["kernel"][measurements["status"] != Status.OK]}
    return [
        Answer(label[kernel], True, [("Right", "✓ right"), *_time(measurements, kernel, label[baseline])]).sentence
        for kernel in users(measurements["kernel"])
        if kernel not in failed
    ]


def summary(results: Results) -> list[str]:
    """Return what the run found about the ladder, and whether there is anything to compare with."""
    baseline, label = results.baseline, labels_of(results)
    climb, step = _climb(results, baseline), _best_step(results, baseline, label)
    first, then = (step, climb) if results.run["options"].get("model") else (climb, step)
    return [*first, *then, *_no_speedups(results, label[baseline])]


def warnings(results: Results) -> list[str]:
    """Return what was amiss with the machine: each cause once, at its worst, with the number of workloads.

    Of several machines, each line begins with the machine's name.
    """
    if isinstance(results, FleetResults):
        return [f"{name}: {line}" for name, each in results.machines.items() for line in warnings(each)]
    where: dict[str, set[tuple[str, str, int]]] = {}
    worst: dict[str, str] = {}
    for entry in results.journal:
        row = entry["row"]
        for warning in entry.get("warnings", []):
            cause = warning.partition(":")[0]
            where.setdefault(cause, set()).add((row["workload"], row["dtype"], row["threads"]))
            worst[cause] = max(warning, worst.get(cause, ""), key=_first_number)
    return [f"{worst[cause]} ({count(len(found), 'workload')})" for cause, found in where.items()]


def _first_number(warning: str) -> float:
    found = re.search(r"\d+(\.\d+)?", warning)
    return float(found[0]) if found else 0.0


def _right(results: Results, kernel: str) -> tuple[bool, str]:
    """Say in which dtypes a kernel is right; of one that is not, what is wrong, at its smallest case.

    Some kernels are found wrong only while they are timed, or train.
    """
    verdicts = []
    verified = results.verification[results.verification["kernel"] == kernel]["status"]
    lacking = Status.UNAVAILABLE if Status.OK in set(verified) else None  # a dtype that it does not take
    for name, table in results.tables.items():
        for row in table[(table["kernel"] == kernel) & (table["status"] != lacking)].to_dict("records"):
            wrong = row["status"] == Status.FAILED_VERIFICATION
            if wrong or (name == "verification" and row["status"] != Status.OK):
                where = row["task"] if name == "training" else row["dtype"]
                finding = text(row["finding" if name == "verification" else "reason"])
                said = finding.partition(" Repeat: ")[0].removesuffix(".")
                return False, ": ".join(filter(None, [f"✗ {'wrong' if wrong else row['status']} in {where}", said]))
            if name == "verification":
                verdicts.append(f"{row['verdict']} in {row['dtype']}")
    return True, f"✓ right ({', '.join(verdicts)})"


def _time(measurements: pd.DataFrame, kernel: str, against: str) -> Iterator[tuple[str, str]]:
    for ladder in ladders(measurements)[:1]:
        for row in (row for row in ladder.rows if row["kernel"] == kernel):
            if failure := _failure(row):
                yield "Time", f"none on {ladder.title}: {failure}"
            if not known(row["median_s"]):
                continue
            time = f"{seconds(row['median_s'], row['extrapolated'])} on {ladder.title}"
            interval = row["speedup_ci_low"], row["speedup_ci_high"]
            gain = compared(row["speedup"], row["verdict"], against, *interval) if known(row["speedup"]) else ""
            yield "Time", ", ".join(filter(None, [time, gain]))
            if known(row["roof_percent"]):
                limit = f"{limited_by(row)} allows {rate(row['roof_gflops'])} {rate_unit(row['dtype'])}"
                yield "Roof", f"{percent(row['roof_percent'], of=100)} of the roof: {limit}"


def _buys(results: Results, kernel: str, against: str) -> Iterator[tuple[str, str]]:
    for (task, threads), rows in tasks(results.training).items():
        reference = reference_of(rows, results.baseline)
        for row in (row for row in rows if row["kernel"] == kernel):
            step = f"a training step of {task_title(task, threads)}"
            if failure := _failure(row):
                yield "Buys", f"{step} failed: {failure}"
            elif reference and task == results.run["options"].get("model"):
                yield "Buys", f"{step}, {_gains(row, reference)}"
            elif known(row["predicted_speedup"]):
                yield "Buys", f"{step} {_step_gain(row, against)}"


def _failure(row: Row) -> str:
    """Say how a row failed; that a kernel is wrong is said before."""
    if row["status"] in (Status.OK, Status.FAILED_VERIFICATION):
        return ""
    return ": ".join(filter(None, [row["status"], text(row["reason"])]))


def _step_gain(row: Row, against: str) -> str:
    """Say how a training step compares; an interval around 1, or none, allows no claim."""
    if not known(row["measured_speedup"]):
        return f"is predicted to be {compared(row['predicted_speedup'], None, f'with {against}')}"
    low, high = row["measured_ci_low"], row["measured_ci_high"]
    return f"is {compared(row['measured_speedup'], verdict_of(row), f'with {against}', low, high)}"


def _gains(row: Row, reference: Row) -> str:
    """Say what the products of a user's model were predicted and measured to buy, and what they could at most."""
    speedups = {word: known(row[f"{word}_speedup"]) for word in ("predicted", "measured")}
    found = [f"{word} {factor(value)}" for word, value in speedups.items() if value]
    interval = factor_interval(row["measured_ci_low"], row["measured_ci_high"])
    limit = amdahl_limit(reference)
    return ", ".join(found) + f" ({interval})" * (interval != NOTHING) + (f", limit {factor(limit)}" if limit else "")


def _climb(results: Results, baseline: str) -> Iterator[str]:
    for ladder in ladders(results.measurements):
        rungs = [row for row in ladder.timed if row["kernel"] not in users(kernels_of(results))]
        if len(rungs) < 2:
            continue
        slowest, best = (pick(rungs, key=lambda row: row["median_s"]) for pick in (max, min))
        mark = ", extrapolated" if slowest["extrapolated"] else ""
        gain = compared(slowest["median_s"] / best["median_s"], _between(best, slowest, baseline), slowest["label"])
        yield (
            f"On {ladder.title}, {best['label']} takes {seconds(best['median_s'])}: "
            f"{gain} ({seconds(slowest['median_s'])}{mark})."
        )
        return


def _between(best: Row, slowest: Row, baseline: str) -> str:
    """Return the verdict on two kernels: the table's, if one is the baseline, else by whether intervals overlap.

    Those of speedups, where there are any: they are free of the machine's drift.
    """
    for one, other in ((best, slowest), (slowest, best)):
        if one["kernel"] == baseline:
            return str(other["verdict"])
    less, more = known(slowest["speedup_ci_high"]), known(best["speedup_ci_low"])
    if less is None or more is None:
        less, more = known(best["ci_high_s"]), known(slowest["ci_low_s"])
    return "faster" if less is not None and more is not None and less < more else "unclear"


def _best_step(results: Results, baseline: str, label: dict[str, str]) -> Iterator[str]:
    """Say of each training what the best of the ladder buys; what the user's kernels buy is said of each."""
    for (task, threads), rows in tasks(results.training).items():
        no_rungs = [baseline, *NO_KERNELS, *users(kernels_of(results))]
        others = [row for row in rows if row["kernel"] not in no_rungs and known(row["measured_speedup"])]
        reference = reference_of(rows, baseline)
        if not reference or not others:
            continue
        best, limit = max(others, key=lambda row: row["measured_speedup"]), amdahl_limit(reference)
        if task == results.run["options"].get("model"):
            shapes = shapes_of(results, reference)
            timed = len(shapes & set(zip(results.measurements["workload"], results.measurements["dtype"], strict=True)))
            some = f", of which the {timed} that take longest were timed" if timed < len(shapes) else ""
            yield (
                f"Your step ({task_title(task, threads)}) spends {percent(reference['matmul_share'])} in products of "
                f"{count(len(shapes), 'shape')}{some}; with `{best['label']}` {_gains(best, reference)}."
            )
            continue
        most = f"; products that cost nothing would make it {factor(limit)}" if limit else ""
        yield (
            f"A training step of {task_title(task, threads)} {_step_gain(best, label[baseline])} "
            f"when its products go through {best['label']}, the best kernel of the ladder{most}."
        )


def _no_speedups(results: Results, baseline: str) -> Iterator[str]:
    timed = results.measurements[results.measurements["status"] == Status.OK]
    if len(timed) and timed["speedup"].isna().all():
        yield f"There are no speedups: {baseline}, the baseline, has no time."
