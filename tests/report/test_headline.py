"""The run in a few sentences, none of which claims more than its verdict."""

from collections.abc import Callable
from pathlib import Path

import pytest

from matmulbench.report import write_report
from matmulbench.report.headline import answers, headline, measured, summary, warnings
from matmulbench.report.page import render
from matmulbench.report.tables import verification_table
from matmulbench.results.folder import Results, load_results
from matmulbench.workload import Workload

OWN = "work/fast.py:matmul"


@pytest.fixture
def run(make_run: Callable[..., Results], tmp_path: Path) -> Results:
    return make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=("digits",), kernels=("numpy", "torch", OWN))


def change(results: Results, table: str, kernel: str, **values: object) -> None:
    frame = results.tables[table]
    for column, value in values.items():
        frame.loc[frame["kernel"] == kernel, column] = value


def about(results: Results, start: str) -> str:
    [sentence] = [sentence for sentence in headline(results) if sentence.startswith(start)]
    return sentence


def test_the_users_kernel_comes_first_and_answers_four_questions(run: Results) -> None:
    first = headline(run)[0]
    assert first.startswith("fast.py:matmul: ✓ right (pass in float32, pass in float64); 83.4 µs on 5x784x10")
    assert "11.4× slower than torch; 2.8 % of the roof: the bandwidth of DRAM allows 33.2 GFLOP/s;" in first
    assert first.endswith("a training step of digits · 1 thread is 38.2× slower than with torch.")
    [answer] = answers(run)
    assert [question for question, _ in answer.facts] == ["Right", "Time", "Roof", "Buys"]


def test_a_kernel_that_was_not_timed_is_right_all_the_same(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], tasks=(), kernels=("torch", OWN))
    assert headline(run) == ["fast.py:matmul: ✓ right (pass in float32, pass in float64)."]


def test_a_kernel_is_not_wrong_in_a_dtype_that_it_does_not_take(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", [], tasks=(), kernels=("torch", OWN))
    double = (run.verification["kernel"] == OWN) & (run.verification["dtype"] == "float64")
    run.verification.loc[double, ["status", "verdict"]] = "unavailable", None
    assert headline(run) == ["fast.py:matmul: ✓ right (pass in float32)."]
    [row] = [row for row in verification_table(run.verification).rows if row[0].text == "fast.py:matmul"]
    assert ("unavailable", "faint") in [(cell.text, cell.tone) for cell in row]
    run.verification.loc[run.verification["kernel"] == OWN, ["status", "verdict"]] = "unavailable", None
    assert headline(run) == ["fast.py:matmul: ✗ unavailable in float32."]


def test_a_wrong_kernel_says_where_and_has_no_figure(small: Results) -> None:
    [said] = [sentence for sentence in headline(small) if "mine.py:matmul" in sentence]
    assert said.startswith("mine.py:matmul: ✗ wrong in float32: 5x784x10: element (0, 0) is 3.1")
    assert "Repeat" not in said
    assert [answer.right for answer in answers(small)] == [False]


@pytest.mark.parametrize(("table", "where"), [("measurements", "float32"), ("training", "digits")])
def test_a_kernel_found_wrong_while_timed_or_trained_is_not_called_right(run: Results, table: str, where: str) -> None:
    change(run, table, OWN, status="failed-verification", reason="it returns an earlier answer. Repeat: `x`")
    assert headline(run)[0].startswith(f"fast.py:matmul: ✗ wrong in {where}: it returns an earlier answer")
    assert [answer.right for answer in answers(run)] == [False]


def test_of_what_was_only_measured_the_users_kernel_is_told(run: Results, small: Results) -> None:
    [said] = measured(run.measurements, "torch")
    assert said.startswith("fast.py:matmul: ✓ right; ")
    assert "on 5x784x10 · float32 · 1 thread" in said
    assert measured(run.measurements, OWN) == []
    change(run, "measurements", OWN, status="failed-verification")
    assert measured(run.measurements, "torch") == []


def test_a_kernel_that_failed_later_says_how(run: Results) -> None:
    change(run, "measurements", OWN, status="crashed", reason="SIGSEGV")
    change(run, "training", OWN, status="timeout")
    first = headline(run)[0]
    assert "; none on 5x784x10 · float32 · 1 thread: crashed: SIGSEGV; a training step of digits" in first
    assert first.endswith("failed: timeout.")


def test_what_a_step_gains_is_predicted_where_it_was_not_measured(run: Results) -> None:
    change(run, "training", OWN, measured_speedup=float("nan"))
    assert "a training step of digits · 1 thread is predicted to be" in headline(run)[0]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("same", "as fast as torch"),
        ("unclear", "not clearly faster or slower than torch (1.02× slower – 1.06× faster)"),
    ],
)
def test_no_sentence_claims_more_than_the_verdict(run: Results, verdict: str, said: str) -> None:
    interval = {"speedup_ci_low": 0.98, "speedup_ci_high": 1.06}
    change(run, "measurements", OWN, median_s=9e-6, speedup=1.04, verdict=verdict, **interval)
    change(run, "measurements", "numpy", median_s=8e-6, speedup=1.04, verdict=verdict)
    assert f"9.00 µs on 5x784x10 · float32 · 1 thread, {said};" in headline(run)[0]
    change(run, "measurements", OWN, status="crashed")
    assert "faster than" not in about(run, "On 5x784x10").replace("clearly faster or slower than", "")


def test_torch_nn_is_no_kernel_and_never_the_best(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], tasks=("digits",), kernels=("numpy", "torch", "torch.nn"))
    change(run, "training", "torch.nn", measured_speedup=5.0)
    assert "when its products go through numpy, the best kernel of the ladder" in about(
        run, "A training step of digits"
    )
    assert answers(run) == []


@pytest.fixture
def model_run(make_run: Callable[..., Results], tmp_path: Path) -> Results:
    kernels = ("numpy", "torch", "torch.compile", OWN)
    run = make_run(tmp_path / "run", [Workload(5, 784, 10), Workload(8, 9, 7)], tasks=("digits",), kernels=kernels)
    run.run["options"]["model"] = "digits"
    for entry in run.journal:
        for i, product in enumerate(entry.get("products", ())):
            product |= {"workload": ("5x784x10", "8x9x7")[i % 2], "dtype": "float32"}
    change(run, "training", "torch", matmul_share=0.41)
    change(run, "training", "torch.compile", measured_speedup=9.0)
    gains = {"predicted_speedup": 1.21, "measured_speedup": 1.19, "measured_ci_low": 1.17, "measured_ci_high": 1.212}
    change(run, "training", "numpy", **gains)
    change(run, "training", OWN, **gains | {"predicted_speedup": 1.3})
    return run


def test_of_a_model_it_is_said_what_its_products_take_and_buy(model_run: Results) -> None:
    assert about(model_run, "Your step") == (
        "Your step (digits · 1 thread) spends 41.0 % in products of 2 shapes; with `numpy` predicted 1.21× faster, "
        "measured 1.19× faster (1.17–1.21× faster), limit 1.69× faster."
    )
    assert headline(model_run)[0].endswith(
        "; a training step of digits · 1 thread, predicted 1.30× faster, measured 1.19× faster (1.17–1.21× faster), "
        "limit 1.69× faster."
    )


def test_of_a_models_many_shapes_it_is_said_how_many_were_timed(model_run: Results) -> None:
    model_run.tables["measurements"] = model_run.measurements[model_run.measurements["workload"] == "8x9x7"]
    assert "spends 41.0 % in products of 2 shapes, of which the 1 that take longest were timed; with" in about(
        model_run, "Your step"
    )


def test_two_whose_intervals_overlap_are_not_ranked(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=(), kernels=("numpy", "numba"))
    change(run, "measurements", "numba", median_s=9e-6, ci_low_s=7e-6, speedup_ci_high=1.3)
    change(run, "measurements", "numpy", median_s=8e-6, ci_high_s=8e-6, speedup_ci_low=1.2)
    unclear = "numpy takes 8.00 µs: not clearly faster or slower than numba (9.00 µs)."
    assert about(run, "On 5x784x10").endswith(unclear)
    for speedups in ({"speedup_ci_low": 1.4}, {"speedup_ci_low": None, "ci_high_s": 6e-6}):
        change(run, "measurements", "numpy", **speedups)
        assert about(run, "On 5x784x10").endswith("numpy takes 8.00 µs: 1.12× faster than numba (9.00 µs).")
    change(run, "measurements", "numpy", ci_high_s=8e-6)
    assert about(run, "On 5x784x10").endswith(unclear)


def test_what_is_said_of_the_ladder_leaves_the_users_kernels_out(run: Results) -> None:
    change(run, "measurements", OWN, median_s=1e-9, speedup=5000.0)
    change(run, "training", OWN, measured_speedup=50.0)
    assert not any("fast.py" in sentence for sentence in summary(run))
    assert len(summary(run)) == 2


def test_a_step_whose_interval_holds_one_is_not_called_faster(run: Results) -> None:
    change(run, "training", "numpy", measured_speedup=1.03, measured_ci_low=0.98, measured_ci_high=1.05)
    change(run, "training", OWN, status="crashed")
    said = about(run, "A training step of digits")
    interval = "1.02× slower – 1.05× faster"
    assert f"is not clearly faster or slower than with torch ({interval}) when its products go through numpy" in said


def test_a_baseline_without_a_time_leaves_no_speedups(run: Results) -> None:
    change(run, "measurements", "torch", status="crashed", median_s=float("nan"))
    for table in ("measurements", "training"):
        names = [name for name in run.tables[table] if "speedup" in name or name.startswith("measured")]
        run.tables[table][names] = float("nan")
    run.measurements["verdict"] = None
    change(run, "training", "torch", status="crashed")
    mine, last = headline(run)
    assert mine.startswith("fast.py:matmul: ✓ right (pass in float32, pass in float64); 83.4 µs on 5x784x10")
    assert "torch" not in mine
    assert last == "There are no speedups: torch, the baseline, has no time."
    assert last in write_report(run).read_text()


def test_kernels_of_one_name_are_told_apart(make_run: Callable[..., Results], tmp_path: Path) -> None:
    kernels = ("torch", "work/before/kernel.py:matmul", "work/after/kernel.py:matmul")
    said = headline(make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=("digits",), kernels=kernels))
    for label in ("before/kernel.py:matmul", "after/kernel.py:matmul"):
        assert any(sentence.startswith(f"{label}: ✓ right") for sentence in said)


def test_what_was_amiss_with_the_machine_is_said_once_at_its_worst(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    workloads = [Workload(5, 784, 10), Workload(64, 64, 64)]
    run = make_run(tmp_path / "run", workloads, tasks=(), kernels=("numpy", "torch"))
    assert warnings(run) == []
    assert "Warning: " not in render(run, [])
    entries = [entry for entry in run.journal if entry["table"] == "measurements"]
    for entry, share in zip(entries, (7, 7, 12, 12), strict=True):
        entry["warnings"] = [f"unsteady processor: fixed work varied by {share}%"]
    entries[0]["warnings"].append("swap: memory was written to disk")
    assert warnings(run) == [
        "unsteady processor: fixed work varied by 12% (2 workloads)",
        "swap: memory was written to disk (1 workload)",
    ]


def test_the_page_shows_what_was_amiss() -> None:
    reference = load_results(Path(__file__).parents[2] / "results" / "reference")
    page = render(reference, [])
    assert warnings(reference)
    head, _, _ = page.partition("<nav")
    assert all(f"Warning: {warning}." in head for warning in warnings(reference))
