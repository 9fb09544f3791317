"""The run in a few sentences: the climb, the winner, what it buys, and what was amiss with the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matmulbench.ladder import LADDER
from matmulbench.report.formatting import compared, count, factor, known, percent, seconds
from matmulbench.report.queries import (
    Row,
    amdahl_limit,
    baseline_of,
    has_figure,
    kernels_of,
    labels,
    ladders,
    reference_of,
    task_title,
    tasks,
)
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status


def headline(results: Results) -> list[str]:
    """Return what the run found, sentence by sentence, the most general first; no more than its verdicts allow."""
    baseline = baseline_of(results)
    label = labels([*kernels_of(results), baseline])
    return [
        *_climb(results, baseline),
        *_beyond_the_ladder(results, baseline, label),
        *_bought(results, baseline, label[baseline]),
        *_refused(results, baseline, label),
    ]


def warnings(results: Results) -> list[str]:
    """Return what was amiss with the machine: each cause once, at its worst, with the number of workloads."""
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


def _climb(results: Results, baseline: str) -> Iterator[str]:
    found = [ladder for ladder in ladders(results.measurements) if len(ladder.timed) > 1]
    if not found:
        return
    rows = found[0].timed
    slowest, best = max(rows, key=lambda row: row["median_s"]), min(rows, key=lambda row: row["median_s"])
    mark = ", extrapolated" if slowest["extrapolated"] else ""
    gain = compared(slowest["median_s"] / best["median_s"], _between(best, slowest, baseline), slowest["label"])
    yield (
        f"On {found[0].title}, {best['label']} takes {seconds(best['median_s'])}: "
        f"{gain} ({seconds(slowest['median_s'])}{mark})."
    )


def _between(best: Row, slowest: Row, baseline: str) -> str:
    """Return the verdict on two kernels: the table's, if one is the baseline, else by whether intervals overlap."""
    for one, other in ((best, slowest), (slowest, best)):
        if one["kernel"] == baseline:
            return str(other["verdict"])
    high, low = known(best["ci_high_s"]), known(slowest["ci_low_s"])
    return "faster" if high is not None and low is not None and high < low else "unclear"


def _beyond_the_ladder(results: Results, baseline: str, label: dict[str, str]) -> Iterator[str]:
    """Say of each right kernel that is not of the ladder how it does."""
    right = results.verification[results.verification["status"] == Status.OK]
    others = [kernel for kernel in dict.fromkeys(right["kernel"]) if kernel not in {rung.name for rung in LADDER}]
    for kernel in others:
        verdicts = [f"{row.verdict} in {row.dtype}" for row in right[right["kernel"] == kernel].itertuples()]
        parts = [f"{label[kernel]} is right ({', '.join(verdicts)})"]
        for ladder in ladders(results.measurements)[:1]:
            if row := ladder.row(kernel):
                claims = [f"{ladder.title} takes {seconds(row['median_s'])}"]
                if kernel != baseline and has_figure(row, "speedup"):
                    claims.append(compared(row["speedup"], row["verdict"], label[baseline]))
                if has_figure(row, "roof_percent"):
                    claims.append(f"{percent(row['roof_percent'], of=100)} of the roof")
                parts.append(", ".join(claims))
        for (task, threads), rows in tasks(results.training).items():
            step = f"a training step of {task_title(task, threads)}"
            mine = [row for row in rows if row["kernel"] == kernel != baseline and has_figure(row, "predicted_speedup")]
            parts += [f"{step} {_step_gain(row, label[baseline])}" for row in mine]
        yield f"{'; '.join(parts)}."


def _step_gain(row: Row, baseline: str) -> str:
    """Say how a training step compares; an interval around 1, or none, allows no claim."""
    if not has_figure(row, "measured_speedup"):
        return f"is predicted to be {compared(row['predicted_speedup'], None, f'with {baseline}')}"
    low, high = known(row["measured_ci_low"]), known(row["measured_ci_high"])
    clear = low is not None and high is not None and not low <= 1 <= high
    return f"is {compared(row['measured_speedup'], None if clear else 'unclear', f'with {baseline}')}"


def _bought(results: Results, baseline: str, name: str) -> Iterator[str]:
    for (task, threads), rows in tasks(results.training).items():
        reference = reference_of(rows, baseline)
        others = [
            row
            for row in rows
            # torch.nn, which is torch's own layers and no kernel, has no share.
            if row["kernel"] != baseline and has_figure(row, "measured_speedup") and has_figure(row, "matmul_share")
        ]
        if not reference or not others:
            continue
        best = max(others, key=lambda row: row["measured_speedup"])
        limit = amdahl_limit(reference)
        most = f"; products that cost nothing would make it {factor(limit)}" if limit else ""
        yield (
            f"A training step of {task_title(task, threads)} {_step_gain(best, name)} "
            f"when its products go through {best['label']}, the best other kernel{most}."
        )


def _refused(results: Results, baseline: str, label: dict[str, str]) -> Iterator[str]:
    wrong = results.verification[results.verification["status"] == Status.FAILED_VERIFICATION]
    if len(wrong):
        yield f"Refused as wrong, and not timed: {', '.join(map(label.__getitem__, dict.fromkeys(wrong['kernel'])))}."
    timed = results.measurements[results.measurements["status"] == Status.OK]
    if len(timed) and timed["speedup"].isna().all():
        yield f"There are no speedups: {label[baseline]}, the baseline, has no time."
