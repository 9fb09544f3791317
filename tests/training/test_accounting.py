import math
from pathlib import Path

import pytest
import torch

from matmulbench.isolation import Host
from matmulbench.measurement import stopwatch
from matmulbench.results.schema import TrainingRow
from matmulbench.status import Status
from matmulbench.training import trainers, worker
from matmulbench.training.accounting import Account, Envelope, _predict_speedups, fair_share, train_kernels
from matmulbench.training.problem import load_problem
from matmulbench.training.referee import rounding_envelope
from matmulbench.training.tasks import find_task
from matmulbench.training.trainers import ManualTrainer, TaskProblem, TimedKernel
from matmulbench.training.worker import predict_seconds
from matmulbench.workload import Workload

SPOILT = Path(__file__).with_name("spoilt.py")


def account(host, *specs, task="breast-cancer", baseline="torch", budget=0.3, **options):
    found = train_kernels(host, task, list(specs), baseline, budget, options=options)
    return {row.kernel: (row, extra) for row, extra in found}


@pytest.fixture(scope="module")
def accounts(host):
    return account(host, "triple-loop", "row-slice", "einsum", "torch", budget=0.5)


@pytest.fixture
def finished(host, to_the_end):
    return account(host, "einsum", budget=20.0)


def test_rows_come_in_order_and_torch_nn_last(accounts):
    assert list(accounts) == ["torch", "triple-loop", "row-slice", "einsum", "torch.nn"]
    assert {row.status for row, _ in accounts.values()} == {"ok"}


def test_a_fast_kernel_finishes_the_schedule(finished):
    for spec in ("torch", "einsum", "torch.nn"):
        row, extra = finished[spec]
        assert (row.steps, row.extrapolated) == (100, False)
        assert row.step_ci_low_s <= row.step_s <= row.step_ci_high_s
        assert row.loss_deviation < 1e-5
        assert row.train_accuracy > 0.9
        assert row.test_accuracy > 0.9
        assert len(extra["losses"]) == len(extra["reference"]) == len(extra["loss_steps"]) == 100
        assert extra["losses"][-1] == row.final_loss
    assert finished["torch"][0].measured_speedup == 1
    assert finished["torch"][0].predicted_speedup == 1


def test_a_slow_kernel_is_flagged_and_its_losses_still_agree(accounts):
    for spec in ("triple-loop", "row-slice"):
        row, extra = accounts[spec]
        assert row.extrapolated
        assert 0 <= row.steps < 100
        assert row.reason
        assert row.train_accuracy is row.test_accuracy is None
        assert row.predicted_speedup < 0.1
        assert ("losses were not compared" in row.reason) == (row.steps == 0)
        if row.steps:
            assert all(abs(a - b) <= 1e-5 * b for a, b in zip(extra["losses"], extra["reference"], strict=True))
    assert accounts["triple-loop"][0].measured_speedup is None  # no whole step was made


def test_a_steps_parts_make_the_step(finished):
    row, extra = finished["einsum"]
    products = sum(product["seconds"] for product in extra["products"])
    assert [(p["layer"], p["which"], p["workload"]) for p in extra["products"]] == [
        (1, "forward", "455x30x14"),
        (2, "forward", "455x14x1"),
        (2, "weight-gradient", "1x455x14:TN"),
        (2, "input-gradient", "455x1x14:NT"),
        (1, "weight-gradient", "14x455x30:TN"),
    ]
    assert row.matmul_share == pytest.approx(products / (products + extra["non_matmul_s"]))
    assert extra["amdahl_limit"] == pytest.approx(1 / (1 - row.matmul_share))
    base = finished["torch"][1]
    base_products = sum(product["seconds"] for product in base["products"])
    amdahl = (base["non_matmul_s"] + base_products) / (base["non_matmul_s"] + products)
    assert row.predicted_speedup == pytest.approx(amdahl)


def test_the_products_are_those_that_the_net_asks_for():
    problem = load_problem(find_task("digits"))
    asked = []

    def matmul(a, b):
        asked.append((a.shape[0], a.shape[1], b.shape[1]))
        return a @ b

    ManualTrainer(problem, matmul).step(0)
    assert asked == [(w.m, w.k, w.n) for w in (one.workload for one in TaskProblem(problem).products)]


@pytest.mark.parametrize("kernel", ["coarse", "off", "not_a_number"])
def test_a_kernel_that_learns_differently_gets_no_figure(host, kernel):
    spec = f"{SPOILT}:{kernel}"
    row, extra = account(host, spec, "torch")[spec]
    assert row.status == "failed-verification"
    assert "it learns differently: at step" in row.reason
    assert row.step_s is row.measured_speedup is row.predicted_speedup is row.final_loss is None
    assert "products" not in extra


@pytest.mark.parametrize(
    ("kernel", "status", "reason"),
    [
        (f"{SPOILT}:raises", "error", "ArithmeticError: no luck today (spoilt.py"),
        (f"{SPOILT}:late", "error", "ArithmeticError: too large for me (spoilt.py"),
        (f"{SPOILT}:hungry", "out-of-memory", "allocate"),
        ("no_such_module:matmul", "unavailable", "No module named 'no_such_module'"),
    ],
)
def test_a_kernel_that_fails_costs_its_own_row(host, kernel, status, reason):
    rows = account(host, kernel, "torch")
    assert rows[kernel][0].status == status
    assert reason in rows[kernel][0].reason
    assert rows["torch"][0].status == rows["torch.nn"][0].status == "ok"


def test_without_any_time_the_losses_are_compared_all_the_same(host):
    wrong = f"{SPOILT}:off"
    rows = account(host, wrong, "torch", budget=0.001)
    assert rows[wrong][0].status == "failed-verification"
    row, extra = rows["torch"]
    assert (row.status, row.extrapolated, row.steps) == ("ok", True, 2)
    assert len(extra["losses"]) == 2
    assert "losses of 256 of 455 rows" in row.reason


def test_without_a_working_baseline_there_is_no_speedup(host):
    baseline = f"{SPOILT}:raises"
    row, _ = account(host, baseline, "torch", baseline=baseline)["torch"]
    assert row.status == "ok"
    assert row.step_s > 0
    assert row.measured_speedup is row.predicted_speedup is None


def test_a_refused_baseline_is_not_replaced_by_torch_nn(host):
    row, _ = account(host, "torch", baseline=None)["torch"]
    assert row.step_s > 0
    assert row.measured_speedup is row.measured_ci_low is row.measured_ci_high is row.predicted_speedup is None


def test_beside_a_baseline_that_is_too_slow_speedups_are_predicted(host):
    found = account(host, "numpy", "triple-loop", baseline="triple-loop")
    row, _ = found["numpy"]
    assert row.status == found["triple-loop"][0].status == "ok"
    assert row.predicted_speedup > 10
    assert row.measured_speedup is None
    assert "no measured speedup: the step of triple-loop is predicted" in row.reason


def test_a_crash_costs_one_row(host):
    spec = f"{SPOILT}:dies"
    rows = account(host, spec, "numpy")
    assert list(rows) == ["torch", spec, "numpy", "torch.nn"]
    assert (rows[spec][0].status, rows[spec][0].threads) == (Status.CRASHED, 1)
    assert rows[spec][0].reason == "SIGSEGV (memory it does not own)"
    assert rows["torch"][0].status == rows["numpy"][0].status == Status.OK


def test_losses_are_not_taken_from_the_kernels_word(host):
    spec = f"{SPOILT}:forges"
    row, _ = account(host, spec, budget=1.0)[spec]
    assert row.status == Status.FAILED_VERIFICATION
    assert "by its parameters, it learns differently" in row.reason


def test_torch_compile_is_a_row_on_request(host, to_the_end):
    results = train_kernels(host, "breast-cancer", ["torch"], "torch", 20.0, compare_compile=True)
    rows = {row.kernel: row for row, _ in results}
    assert list(rows) == ["torch", "torch.nn", "torch.compile"]
    compiled = rows.pop("torch.compile")
    assert (compiled.status, compiled.steps, compiled.extrapolated) == (Status.OK, 100, False)
    assert compiled.final_loss == pytest.approx(rows["torch"].final_loss, rel=1e-5)
    assert compiled.measured_speedup > 0
    assert compiled.compile_s > 1 > 10 * compiled.step_s
    assert all(row.compile_s is None for row in rows.values())


def test_where_there_is_no_compiler_the_row_is_unavailable_with_the_reason(monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with Host() as host:
        results = train_kernels(host, "breast-cancer", ["torch"], "torch", 0.1, compare_compile=True)
    rows = {row.kernel: row for row, _ in results}
    assert [row.status for row in rows.values()] == ["ok", "ok", "unavailable"]
    assert "compiler" in rows["torch.compile"].reason
    assert rows["torch.compile"].step_s is rows["torch.compile"].compile_s is None


def test_of_a_step_that_was_interrupted_products_are_timed_by_the_processors_clock(monkeypatch):
    worker.open_training("breast-cancer", "torch", 0, None, {}, "cpu")
    monkeypatch.setattr(worker, "wait_for_turn", lambda: None)
    monkeypatch.setattr(trainers, "thread_time", iter(range(1000)).__next__)
    monkeypatch.setattr(stopwatch.Stopwatch, "stop", lambda _: [0.0, 2.0, 1.0, 0.0])
    *_, products, _ = worker.train_steps(0, 1, True)
    assert products == [1.0] * 5
    monkeypatch.setattr(stopwatch.Stopwatch, "stop", lambda _: [0.0, 2.0, 2.0, 0.0])
    *_, products, _ = worker.train_steps(0, 1, True)
    assert 0 < sum(products) < 1


def test_bad_names_are_refused_before_anything_runs(host):
    with pytest.raises(ValueError, match="did you mean breast-cancer"):
        train_kernels(host, "breast-cancr", ["torch"], "torch", 1.0)


# --- the parts ------------------------------------------------------------------------------------------


def test_small_requests_are_met_first():
    assert fair_share(9, [1, 100, 2, 100]) == [1, 3, 2, 3]
    assert fair_share(10, [1, 2]) == [1, 2]
    assert fair_share(0, [5]) == [0]
    assert fair_share(5, []) == []


def test_a_slow_kernels_cost_is_predicted_without_running_it(monkeypatch):
    now = 0.0
    macs = []

    def matmul(a, b):
        nonlocal now
        macs.append(a.shape[0] * a.shape[1] * b.shape[1])
        now += macs[-1] * 1e-6
        return a @ b

    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(f"matmulbench.measurement.stopwatch.{clock}", lambda: now)
    workload = Workload(64, 784, 50)
    seconds = predict_seconds(matmul, workload)
    assert seconds == pytest.approx(workload.flop / 2 * 1e-6)
    assert sum(macs) < workload.flop / 2 / 10


@pytest.mark.parametrize("layout", ["NN", "TN", "NT"])
def test_costs_are_tried_in_the_workloads_own_layout(layout):
    seen = set()

    def matmul(a, b):
        if min(*a.shape, *b.shape) > 1:
            seen.add(("N" if a.is_contiguous() else "T") + ("N" if b.is_contiguous() else "T"))
        assert a.shape[1] == b.shape[0]
        return a @ b

    predict_seconds(matmul, Workload(7, 9, 5, layout))
    assert seen == {layout}


def test_the_envelope_holds_honest_rounding_and_little_more():
    problem = load_problem(find_task("digits"))
    envelope = Envelope(*rounding_envelope(TaskProblem(problem), 40))

    def holds(kernel):
        trainer = ManualTrainer(problem, kernel)
        return all(envelope.holds(step, float(trainer.step(step))) for step in range(40))

    def reversed_sum(a, b):
        return a.flip(1) @ b.flip(0)

    def coarse(a, b):
        return a.bfloat16().float() @ b.bfloat16().float()

    for honest in (torch.matmul, reversed_sum):
        assert holds(honest)
    assert not holds(coarse)
    assert envelope.width == sorted(envelope.width)


def test_a_diverging_schedule_is_compared_as_far_as_it_is_finite():
    problem = load_problem(find_task("digits", lr=1e9))
    found = Envelope(*rounding_envelope(TaskProblem(problem), 10))
    trainer = ManualTrainer(problem, torch.matmul)
    losses = [float(trainer.step(step)) for step in range(10)]
    finite = next(step for step, loss in enumerate(losses) if not math.isfinite(loss))
    assert 0 < len(found.reference) <= finite < 10
    assert all(found.holds(step, loss) for step, loss in enumerate(losses))
    assert not found.holds(0, losses[finite])


def test_the_stopwatch_notes_each_product_and_changes_none():
    stopwatch = TimedKernel(torch.matmul)
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(stopwatch(a, b), a @ b)
    stopwatch(a, b)
    assert len(stopwatch.seconds) == 2
    assert min(stopwatch.seconds) > 0


@pytest.mark.parametrize(
    ("rest_s", "step_s", "base_step_s", "said"),
    [
        (3e-3, 5e-3, 2e-3, "by +25 %: the rest of a step takes 3 ms, with torch 1 ms"),
        (1e-3, 5e-3, 2e-3, "by +25 %: a step takes 5 ms, in turns that time its products 3 ms"),
        (1e-3, 3e-3, 4e-3, "by +25 %: a step with torch takes 4 ms, in turns that time its products 2 ms"),
    ],
)
def test_a_row_says_which_part_of_a_step_is_not_as_predicted(rest_s, step_s, base_step_s, said):
    def account(kernel, product_s, rest_s, step_s, high=None):
        row = TrainingRow("digits", kernel, 1, 1)
        row.status, row.extrapolated = Status.OK, kernel != "torch"  # of a schedule that was not trained to its end
        row.step_s, row.measured_speedup = step_s, 1.0 if kernel == "torch" else 2 / 3 / 1.25
        row.measured_ci_low, row.measured_ci_high = 0.99 * row.measured_speedup, high or 1.01 * row.measured_speedup
        return Account(row, None, {}, [product_s], rest_s)

    accounts = [account("mine", 2e-3, rest_s, step_s), account("torch", 1e-3, 1e-3, base_step_s)]
    _predict_speedups(accounts, "torch")
    assert accounts[0].row.predicted_speedup == pytest.approx(2 / 3)
    assert accounts[0].row.reason == f"predicted and measured speedup differ {said}"
    assert accounts[1].row.reason is None
    accounts[0] = account("mine", 2e-3, rest_s, step_s, high=0.7)
    _predict_speedups(accounts, "torch")
    assert accounts[0].row.reason is None, "the interval of what was measured holds what was predicted"


def test_torch_nn_has_its_own_parameters():
    problem = load_problem(find_task("breast-cancer"))
    before = [weight.clone() for weight, _ in problem.parameters]
    trainer = TaskProblem(problem).begin_plain()
    for step in range(3):
        trainer.step(step)
    assert all(torch.equal(weight, old) for (weight, _), old in zip(problem.parameters, before, strict=True))
