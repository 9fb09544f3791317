"""Runs compared: drift of the machine is no regression, a slower kernel is, and a history says since when."""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from matmulbench.cli import app
from matmulbench.comparison import compare, differences, history, one_processor, ranks, summary, why_unclear
from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.results.folder import Results, load_results
from matmulbench.results.schema import EVERY, SCHEMA_VERSION, MeasurementRow, Status

RUNGS = [rung.name for rung in LADDER]
WORKLOADS = [f"{m}x784x10" for m in range(5, 26)]


def run(
    path: Path,
    seconds: float,
    clock: float = 1.0,
    status: str = Status.OK,
    rounds: int = 40,
    crowd: float = 1.0,
    seed: int = 0,
    kernels: Sequence[str] = ("numpy",),
    workloads: Sequence[str] = WORKLOADS[:1],
    restart: float = 0.0,
) -> Results:
    """A run in which each kernel takes ``seconds`` on a machine that is slower by ``clock``; rounds scatter by 0.5 %.

    ``crowd``: by how much calls are slower beyond that; ``restart``: what each cell differs by from run to run.
    """
    rng = np.random.default_rng([seed, int(1e6 * seconds * clock)])
    machine, versions = {"cpu": "some", "cores": 2}, {"numpy": "2.0", "torch": "2.13"}
    about = {"machine": machine, "versions": versions, "end": None, "options": {"baseline": "torch"}}
    start = f"2026-11-{1 + seed % 28:02}T08:00:00+00:00"
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "start": start} | about))
    with (path / "journal.jsonl").open("w") as journal:
        for workload in workloads:
            calibration = [1e-3 * clock, 1e-3 * clock * crowd] * np.exp(0.005 * rng.standard_normal((rounds, 2)))
            for kernel in kernels:
                noise = 0.005 * rng.standard_normal(rounds) + restart * rng.standard_normal()
                samples = seconds * clock * np.exp(noise)
                row = MeasurementRow(workload, 5, 784, 10, "NN", "float32", 1, kernel, status=status)
                row.median_s = float(np.median(samples))
                entry = {"table": "measurements", "row": asdict(row), "samples": samples.tolist()}
                journal.write(json.dumps(entry | {"calibration_samples": calibration.tolist()}) + "\n")
    return load_results(path)


def verdicts(frame: pd.DataFrame, every: bool = False) -> list[str]:
    return frame["verdict"][(frame["workload"] == EVERY) == every].tolist()


def elsewhere(results: Results) -> None:
    """Let a run have been made on another processor."""
    results.run["machine"]["cpu"] = "another"
    (results.path / "run.json").write_text(json.dumps(results.run))


@pytest.mark.parametrize(
    ("seconds", "clock", "verdict"),
    [(1.0, 1.0, "same"), (1.0, 1.3, "same"), (1.1, 1.0, "slower"), (1.1, 0.8, "slower"), (0.9, 1.3, "faster")],
)
def test_verdict(tmp_path: Path, seconds: float, clock: float, verdict: str) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", seconds, clock, seed=1))
    assert verdicts(frame) == [verdict]
    cell = frame.iloc[-1]
    assert cell["speedup"] == pytest.approx(1 / seconds, rel=0.01)
    assert cell["drift_arithmetic"] == pytest.approx(clock, rel=0.01)
    assert cell["drift_calls"] == pytest.approx(clock, rel=0.01)


def test_why_most_products_are_unclear_is_said(tmp_path: Path) -> None:
    one, other = (run(tmp_path / name, 1.0, workloads=WORKLOADS, seed=seed) for seed, name in enumerate("ab"))
    crowded = run(tmp_path / "c", 1.0, crowd=1.3, workloads=WORKLOADS, seed=2)
    assert why_unclear(compare(one, other)) is None
    assert set(compare(one, crowded)["verdict"]) == {"unclear"}
    done = CliRunner().invoke(app, ["compare", str(one.path), str(crowded.path)])
    # Short calls drifted by 30 % more than arithmetic, of which 5 % tell nothing.
    assert "most products are unclear: the change of half of them is known to no better than ±4" in done.stderr


def test_a_run_and_itself_are_the_same_whatever_the_noise(tmp_path: Path) -> None:
    once = run(tmp_path / "a", 1.0, rounds=3, workloads=WORKLOADS, restart=0.3)
    frame = compare(once, once)
    assert set(frame["verdict"]) == {"same"}
    assert (frame["speedup_ci_low"] == 1).all()


def test_of_the_same_rounds_what_was_changed_is_found_exactly(tmp_path: Path) -> None:
    once, again = run(tmp_path / "a", 1.0, workloads=WORKLOADS), run(tmp_path / "b", 1.0, workloads=WORKLOADS)
    again.journal[3]["samples"] = [1.03 * sample for sample in again.journal[3]["samples"]]
    frame = compare(once, again)
    assert verdicts(frame) == ["slower" if i == 3 else "same" for i in range(len(WORKLOADS))]
    assert verdicts(frame, every=True) == ["same"]


@pytest.mark.parametrize("seed", range(5))
def test_two_runs_that_differ_by_restarts_are_the_same_and_five_percent_are_found(tmp_path: Path, seed: int) -> None:
    kernels = ("numpy", "torch", "numba")
    one, other, slower = (
        run(tmp_path / name, seconds, kernels=kernels, workloads=WORKLOADS, restart=0.008, seed=10 * seed + i)
        for i, (name, seconds) in enumerate([("a", 1.0), ("b", 1.0), ("c", 1.05)])
    )
    quiet = compare(one, other)
    assert set(verdicts(quiet, every=True)) == {"same"}
    assert verdicts(quiet).count("same") >= 0.9 * len(verdicts(quiet))
    assert not {"faster", "slower"} & set(verdicts(quiet))
    found = compare(one, slower)
    assert set(verdicts(found, every=True)) == {"slower"}
    assert verdicts(found).count("slower") >= 0.8 * len(verdicts(found))


def moved(results: Results, factor: Callable[[str, str], float]) -> None:
    """Let the samples of each cell be longer by what ``factor`` says of its workload and kernel."""
    for entry in results.journal:
        by = factor(entry["row"]["workload"], entry["row"]["kernel"])
        entry["samples"] = [by * sample for sample in entry["samples"]]
        entry["row"]["median_s"] *= by


def ladders(folder: Path, restart: float = 0.005) -> tuple[Results, Results]:
    """Two runs of the whole ladder; in the second, each product takes otherwise long, whatever the kernel."""
    a, b = (
        run(folder / n, 1.0, kernels=RUNGS, workloads=WORKLOADS, restart=restart, seed=i) for i, n in enumerate("ab")
    )
    drifts = dict(zip(WORKLOADS, np.exp(0.05 * np.random.default_rng(7).standard_normal(len(WORKLOADS))), strict=True))
    moved(b, lambda workload, kernel: float(drifts[workload]))
    return a, b


def test_what_all_kernels_of_a_product_do_is_the_machine(tmp_path: Path) -> None:
    a, b = ladders(tmp_path)
    frame = compare(a, b)
    assert verdicts(frame).count("same") >= 0.9 * len(verdicts(frame))
    assert not {"faster", "slower"} & set(frame["verdict"])
    one = frame[frame["workload"] == WORKLOADS[0]]
    assert (one["drift_kernels"] - one["ratio"]).abs().max() < 0.05
    b.run["versions"]["torch"] = "another"  # no kernel is what it was: fixed work alone tells of the machine
    frame = compare(a, b)
    assert verdicts(frame).count("same") < 0.5 * len(verdicts(frame))
    assert frame["drift_kernels"].isna().all()


def test_five_percent_in_one_kernel_are_found_on_each_product_beside_the_others(tmp_path: Path) -> None:
    a, b = ladders(tmp_path)
    moved(b, lambda workload, kernel: 1.05 if kernel == "torch" else 1.0)
    frame = compare(a, b)
    slower = frame[frame["verdict"] == "slower"]
    assert set(slower["kernel"]) == {"torch"}
    assert len(slower) >= 0.9 * (1 + len(WORKLOADS))
    assert slower["speedup"].iloc[0] == pytest.approx(1 / 1.05, abs=0.01)


def test_where_unchanged_products_differ_more_than_expected_nothing_is_claimed_of_any(tmp_path: Path) -> None:
    frame = compare(*ladders(tmp_path, restart=0.06))
    assert not {"faster", "slower"} & set(frame["verdict"])
    assert verdicts(frame).count("unclear") >= 0.9 * len(verdicts(frame))


def test_a_part_and_another_part_of_a_product_are_not_compared(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.5)
    a.journal[0]["timed_on"], b.journal[0]["timed_on"] = "5x784x10", "2x784x10"
    frame = compare(a, b)
    assert frame["verdict"].tolist() == ["unclear"]
    assert frame["ratio"].tolist() == [pytest.approx(1.5, rel=0.01)]


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "unclear"), (1.3, "unclear"), (3.0, "slower")])
def test_where_calls_are_slowed_more_than_arithmetic_a_kernel_may_be_in_between(
    tmp_path: Path, seconds: float, verdict: str
) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", seconds, crowd=1.5))
    assert verdicts(frame) == [verdict]
    assert frame["drift_calls"].iloc[0] == pytest.approx(1.5, rel=0.01)


def test_what_calls_drift_on_a_quiet_machine_says_nothing_of_kernels(tmp_path: Path) -> None:
    assert verdicts(compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0, crowd=1.04))) == ["same"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_few_rounds_are_unclear(tmp_path: Path, rounds: int) -> None:
    one = run(tmp_path / "a", 1.0, rounds=rounds, restart=0.01)
    other = run(tmp_path / "b", 1.0, rounds=rounds, seed=1)
    other.journal[0]["samples"][0] *= 1.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verdicts(compare(one, other)) == ["unclear"]


def test_a_kernel_that_no_longer_works_is_broken(tmp_path: Path) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0, status=Status.CRASHED))
    assert frame["verdict"].tolist() == ["broken"]


def test_what_else_differs_is_said(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0)
    assert differences(a, b) == []
    b.run["versions"]["numpy"] = "1.0"
    assert "versions: numpy was" in differences(a, b)[0]


def test_a_kernel_that_only_one_of_the_runs_has_is_named(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 1.0, kernels=["numpy", "old.py:f"], workloads=WORKLOADS[:3])
    b = run(tmp_path / "b", 1.0, kernels=["numpy", "new.py:f"], workloads=WORKLOADS[:2])
    assert differences(a, b) == [
        f"kernels: old.py:f only in {a.path}",
        f"kernels: new.py:f only in {b.path}",
        "cells: 1 of kernels in both stand in one of them only, and are left out",
    ]


def test_a_kernel_under_another_path_is_compared_with_itself(tmp_path: Path) -> None:
    places = ["before/my.py:f", "here/my.py:f", "my.py:f", "C:\\src\\my.py:f"]
    runs = [run(tmp_path / str(i), 1.0, kernels=["numpy", place], seed=i) for i, place in enumerate(places)]
    assert differences(*runs[:2]) == ["kernels: before/my.py:f is taken for here/my.py:f"]
    frame = compare(*runs[:2])
    assert frame["kernel"].tolist() == ["numpy", "here/my.py:f"] * 2
    assert set(frame["verdict"]) == {"same"}
    assert set(history(runs)["kernel"]) == {"numpy", places[-1]}
    assert ranks(runs)["kernel"].tolist() == ["numpy", places[-1]]


def test_of_two_kernels_under_another_path_none_is_guessed(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 1.0, kernels=["numpy", "one/my.py:f", "two/my.py:f"])
    b = run(tmp_path / "b", 1.0, kernels=["numpy", "three/my.py:f"])
    assert [line.partition(" only in")[0] for line in differences(a, b)] == [
        "kernels: one/my.py:f, two/my.py:f",
        "kernels: three/my.py:f",
    ]
    assert set(compare(a, b)["kernel"]) == {"numpy"}


def test_the_verdicts_are_counted_and_the_measured_ratio_is_kept(tmp_path: Path) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.1, clock=1.3))
    assert frame["ratio"].iloc[-1] == pytest.approx(1.43, rel=0.01)
    assert summary(frame) == "1 slower"
    many = pd.DataFrame({"workload": "5x784x10", "verdict": ["same"] * 186 + ["slower"] + ["faster"] * 2})
    assert summary(many) == "2 faster, 1 slower, 186 same"
    assert summary(many[:0]) == "nothing to compare"


@pytest.mark.parametrize("work", [compare, lambda *runs: history(runs), lambda *runs: ranks(runs)])
def test_runs_with_nothing_in_common_are_refused(tmp_path: Path, work: Callable[..., pd.DataFrame]) -> None:
    runs = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0, kernels=["torch"], workloads=WORKLOADS)
    with pytest.raises(UsageError, match="no kernel and product in common") as refused:
        work(*runs)
    assert f"{runs[0].path} has numpy on 5x784x10 (float32, threads 1)" in str(refused.value)
    assert f"{runs[1].path} has torch on 5x784x10, 6x784x10," in str(refused.value)
    assert ", … (float32" in str(refused.value)


def test_a_run_that_measured_nothing_is_named(tmp_path: Path) -> None:
    runs = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0, kernels=[])
    with pytest.raises(UsageError, match=r"/b has none$"):
        compare(*runs)


def test_the_command_counts_first_and_shows_only_what_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path / "a", 1.0)
    run(tmp_path / "b", 1.1)
    command = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    every, faster = (CliRunner().invoke(app, [*command, *only]) for only in ([], ["--only", "faster"]))
    assert (every.exit_code, faster.exit_code) == (1, 1)
    assert every.stdout.startswith("1 slower\n")
    assert "numpy" in every.stdout
    assert faster.stdout.startswith("1 slower\n")
    assert "numpy" not in faster.stdout
    assert "verdict 'sloower' is unknown: did you mean slower?" in str(
        CliRunner().invoke(app, [*command, "--only", "sloower"]).stderr
    )


@pytest.mark.parametrize(
    ("others", "message"),
    [([], "compare takes two folders at least"), (["b"], "no kernel and product in common")],
)
def test_the_command_says_what_cannot_be_compared(tmp_path: Path, others: list[str], message: str) -> None:
    run(tmp_path / "a", 1.0)
    run(tmp_path / "b", 1.0, kernels=["torch"])
    done = CliRunner().invoke(app, ["compare", *(str(tmp_path / name) for name in ["a", *others])])
    assert done.exit_code == 2
    assert message in done.stderr


def test_that_the_newer_run_was_named_first_is_said(tmp_path: Path) -> None:
    older, newer = (str(run(tmp_path / str(day), 1.0, seed=day).path) for day in (1, 2))
    right, wrong = (CliRunner().invoke(app, ["compare", *both]) for both in ([older, newer], [newer, older]))
    assert "was made after" not in right.stderr
    assert f"warning: {newer} was made after {older}: expected the oldest first" in wrong.stderr


def series(folder: Path, times: Sequence[float], **more: object) -> list[Results]:
    """Runs of one kernel, with ``times`` in seconds, on a machine that drifts by 2 %."""
    pytest.importorskip("ruptures", reason="no ruptures here: it has no wheel for this Python")
    clocks = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(times)))
    return [
        run(folder / f"{i:02}", seconds, clock, seed=i, **more)  # type: ignore[arg-type]
        for i, (seconds, clock) in enumerate(zip(times, clocks, strict=True))
    ]


def test_a_step_of_three_percent_is_found_within_five_runs(tmp_path: Path) -> None:
    frame = history(series(tmp_path, [1.0] * 10 + [1.03] * 5, workloads=WORKLOADS, restart=0.009))
    together = frame[frame["workload"] == EVERY]
    assert together["segment"].tolist() == [0] * 10 + [1] * 5
    assert together["verdict"].iloc[-1] == "slower"
    assert together["speedup"].iloc[-1] == pytest.approx(1 / 1.03, abs=0.005)
    assert together["level"].iloc[-1] == pytest.approx(1.03, abs=0.005)


def test_products_change_with_their_kernel_where_they_are_nearer_to_it_than_to_none(tmp_path: Path) -> None:
    runs = series(tmp_path, [1.0] * 6 + [1.03] * 4, workloads=WORKLOADS, restart=0.009)
    for one in runs[6:]:
        moved(one, lambda workload, _: 1 / 1.03 if workload == WORKLOADS[0] else 1.0)
    frame = history(runs)
    newest = frame[(frame["run"] == 9) & (frame["workload"] != EVERY)]
    changed = newest["verdict"] == "slower"
    assert not changed.iloc[0]
    assert changed.sum() >= 0.8 * len(newest)
    assert (newest["segment"][changed] == 1).all()


def test_a_history_in_which_nothing_changed_has_no_change(tmp_path: Path) -> None:
    """100 series and five of kernels, of which one at most may be marked."""
    kernels = ("numpy", "torch", "numba", "einsum", "broadcasting")
    frame = history(series(tmp_path, [1.0] * 12, kernels=kernels, workloads=WORKLOADS[:20], rounds=12, restart=0.011))
    newest = frame[frame["run"] == 11]
    assert len(newest) == 105
    assert (newest["segment"] > 0).sum() <= 1


@pytest.mark.parametrize("place", [0, 1, 6, 11, 12])
def test_an_outlier_is_no_change(tmp_path: Path, place: int) -> None:
    frame = history(series(tmp_path, [1.5 if i == place else 1.0 for i in range(13)]))
    assert frame["segment"].max() == 0


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ([1.0, 1.0, 1.0], "same"),
        ([1.0, 1.0, 1.2], "unclear"),
        ([1.0] * 6 + [9.0], "unclear"),
        ([1.2, 1.2, 1.2, 1.0, 1.0, 1.0], "faster"),
    ],
)
def test_a_change_takes_two_runs_on_either_side(tmp_path: Path, times: list[float], verdict: str) -> None:
    assert history(series(tmp_path, times))["verdict"].iloc[-1] == verdict


def test_a_kernel_that_fails_is_broken_until_it_works_again(tmp_path: Path) -> None:
    runs = [*series(tmp_path, [1.0] * 4), *(run(tmp_path / name, 1.0, status=Status.CRASHED) for name in ("x", "y"))]
    assert history(runs)["verdict"].fillna("").tolist() == ["same"] * 4 + ["broken"] * 2
    assert history(runs[:1:-1])["verdict"].fillna("").tolist() == ["", "", "same", "same"]
    done = CliRunner().invoke(app, ["compare", *(str(one.path) for one in runs), "--html", str(tmp_path / "page.html")])
    assert done.exit_code == 1
    assert done.stdout.startswith("1 broken\n")


def test_without_its_library_a_history_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = series(tmp_path, [1.0] * 4)
    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(UsageError, match="pip install ruptures"):
        history(runs)


@pytest.mark.parametrize(("newest", "code"), [(1.1, 1), (0.9, 0), (1.0, 0)])
def test_the_command_follows_many_runs(tmp_path: Path, newest: float, code: int) -> None:
    runs = series(tmp_path, [1.0] * 5 + [newest] * 3)
    page = tmp_path / "page.html"
    command = ["compare", *(str(one.path) for one in runs), "--html", str(page)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == code, done.output
    since = runs[5].run["start"][:16]
    assert (f"{since} " in done.stdout) == (newest != 1)
    assert page.read_text("utf-8").count("<img") == 2
    only = CliRunner().invoke(app, [*command, "--only", "slower", "--format", "csv"])
    assert only.stdout.count("\n") == (1 + 2 * len(runs) if newest > 1 else 1)


def test_two_runs_have_a_page(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.1)
    page = tmp_path / "page.html"
    command = ["compare", str(one.path), str(other.path), "--html"]
    assert CliRunner().invoke(app, [*command, str(page)]).exit_code == 1
    text = page.read_text("utf-8")
    assert '<p class="headline">1 slower</p>' in text
    assert text.count("<img") == 1
    assert "Change of each kernel, all products together: numpy 1.10× slower slower." in text
    done = CliRunner().invoke(app, [*command, str(tmp_path / "nowhere" / "page.html")])
    assert done.exit_code == 2
    assert "page.html: No such file or directory" in done.stderr


def test_on_another_processor_kernels_are_ranked(tmp_path: Path) -> None:
    here = run(tmp_path / "a", 1.0, kernels=["numpy", "torch", "numba"])
    there = run(tmp_path / "b", 0.5, kernels=["numpy", "torch", "numba"])
    for results, times in ((here, [1.0, 2.0, 3.0]), (there, [4.0, 4.05, 3.0])):
        lines = [json.loads(line) for line in (results.path / "journal.jsonl").read_text().splitlines()]
        for entry, seconds in zip(lines, times, strict=True):
            entry["row"] |= {"median_s": seconds, "extrapolated": seconds == 4.0}
        (results.path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert one_processor([here, there])
    elsewhere(there)
    assert not one_processor([here, there])
    done = CliRunner().invoke(app, ["compare", str(here.path), str(there.path), "--format", "csv"])
    assert done.exit_code == 0
    found = [line.split(",") for line in done.stdout.splitlines()]
    assert found[0][3:] == [
        "kernel",
        "median_s_1",
        "rank_1",
        "median_s_2",
        "rank_2",
        "extrapolated_1",
        "extrapolated_2",
    ]
    assert [[row[3], row[5], row[7]] for row in found[1:]] == [
        ["numpy", "1", "2"],
        ["torch", "2", "2"],
        ["numba", "3", "1"],
    ]
    command = ["compare", str(here.path), str(there.path), "--html", str(tmp_path / "page.html")]
    table = CliRunner().invoke(app, command)
    assert table.stdout.startswith("Different processors: ranks on each\n")
    assert "≈ 4.00 s" in table.stdout
    assert table.stdout.count("≈") == 2, "the time, and what the mark means"
    assert "cpu was" in (tmp_path / "page.html").read_text("utf-8")
    refused = CliRunner().invoke(app, [*command, "--only", "slower"])
    assert (refused.exit_code, "there are ranks" in refused.stderr) == (2, True)
