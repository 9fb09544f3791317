"""The run in a few sentences: the climb, the winner, and what it buys."""

from __future__ import annotations

from matmulbench.ladder import LADDER
from matmulbench.report.view import baseline_of, ceiling, has_figure, ladders, short, task_title, tasks
from matmulbench.report.wording import factor, faster, known, percent, seconds
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status


def headline(results: Results) -> list[str]:
    """Return what the run says, sentence by sentence, the most general first."""
    return [*_climb(results), *_own(results), *_bought(results), *_refused(results)]


def _climb(results: Results) -> list[str]:
    found = [ladder for ladder in ladders(results.measurements) if len(ladder.timed) > 1]
    if not found:
        return []
    rows = found[0].timed
    slowest, best = max(rows, key=lambda row: row["median_s"]), min(rows, key=lambda row: row["median_s"])
    return [
        f"On {found[0].title}, {short(best['kernel'])} takes {seconds(best['median_s'])}: "
        f"{faster(slowest['median_s'] / best['median_s'])} than {short(slowest['kernel'])} "
        f"({seconds(slowest['median_s'])}{', extrapolated' if slowest['extrapolated'] else ''})."
    ]


def _own(results: Results) -> list[str]:
    """Say of each right kernel that is not of the ladder how it does."""
    baseline = baseline_of(results)
    right = results.verification[results.verification["status"] == Status.OK]
    rungs = {rung.name for rung in LADDER}
    sentences = []
    for kernel in (kernel for kernel in dict.fromkeys(right["kernel"]) if kernel not in rungs):
        verdicts = [f"{row.verdict} in {row.dtype}" for row in right[right["kernel"] == kernel].itertuples()]
        said = f"{short(kernel)} is right ({', '.join(verdicts)})"
        for ladder in ladders(results.measurements)[:1]:
            if row := ladder.row(kernel):
                against = "" if kernel == baseline else f", {factor(row['speedup'])} as fast as {short(baseline)}"
                roof = f", {percent(row['roof_percent'], of=100)} of the roof" if known(row["roof_percent"]) else ""
                said += f"; {ladder.title} takes {seconds(row['median_s'])}{against}{roof}"
        for (task, threads), rows in tasks(results.training).items():
            row = next((row for row in rows if row["kernel"] == kernel), None)
            if kernel == baseline or not row or not has_figure(row, "predicted_speedup"):
                continue
            measured = known(row["measured_speedup"]) is not None
            gain = factor(row["measured_speedup"] if measured else row["predicted_speedup"])
            verb = "is" if measured else "is foretold to be"
            said += f"; a training step of {task_title(task, threads)} {verb} {gain} as fast as with {short(baseline)}"
        sentences.append(f"{said}.")
    return sentences


def _bought(results: Results) -> list[str]:
    baseline = baseline_of(results)
    sentences = []
    for (task, threads), every in tasks(results.training).items():
        rows = {row["kernel"]: row for row in every if has_figure(row, "measured_speedup")}
        others = [row for kernel, row in rows.items() if kernel != baseline]
        if baseline not in rows or not others:
            continue
        best = max(others, key=lambda row: row["measured_speedup"])
        limit = ceiling(rows[baseline])
        most = f"; products that cost nothing would make it {factor(limit)}" if limit else ""
        gain = factor(best["measured_speedup"])
        sentences.append(
            f"A training step of {task_title(task, threads)} is {gain} as fast as with {short(baseline)} "
            f"when its products go through {short(best['kernel'])}, the best other kernel{most}."
        )
    return sentences


def _refused(results: Results) -> list[str]:
    wrong = results.verification[results.verification["status"] == Status.FAILED_VERIFICATION]
    names = [short(kernel) for kernel in dict.fromkeys(wrong["kernel"])]
    return [f"Refused as wrong, and not timed: {', '.join(names)}."] if names else []
