import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import matmulbench
from matmulbench.errors import UsageError
from matmulbench.isolation import LostError, Outcome
from matmulbench.isolation.requests import TrainSteps
from matmulbench.ladder.plugins import load_function
from matmulbench.status import Status
from matmulbench.training import accounting, referee, worker
from matmulbench.training.accounting import Course, train_kernels
from matmulbench.training.custom_model import load_model

FACTORIES = Path(__file__).with_name("factories.py")
SPOILT = Path(__file__).with_name("spoilt.py")
WRONG = f"{SPOILT}:off"


def trained(host, factory, *kernels, budget=0.5):
    found = train_kernels(host, f"{FACTORIES}:{factory}", ["torch", *kernels], "torch", budget)
    return {row.kernel: row for row, _ in found}


def test_a_model_is_accounted_for_in_the_same_table(host, to_the_end):
    rows = trained(host, "good", "numpy", WRONG, budget=20.0)
    assert list(rows) == ["torch", "numpy", WRONG, "torch.nn"]
    assert [row.status for row in rows.values()] == ["ok", "ok", "failed-verification", "ok"]
    assert rows["numpy"].steps == 10
    assert rows["numpy"].loss_deviation < 1e-5
    assert 0 < rows["numpy"].matmul_share < 1
    assert rows["numpy"].predicted_speedup > 0
    assert rows["torch.nn"].measured_speedup > 0


def test_all_its_products_are_found_by_watching_a_step():
    found = [(one.which, str(one.workload), one.count) for one in load_model(f"{FACTORIES}:good").products]
    assert found == [
        ("forward", "12x8x8:NT", 2),
        ("forward", "4*3x8x3:NT", 1),
        ("forward", "4*3x3x8", 1),
        ("forward", "4x8x2:NT", 1),
        ("backward", "4x2x8", 1),
        ("backward", "2x4x8:TN", 1),
        ("backward", "4*3x3x8:TN", 1),
        ("backward", "4*3x8x3:NT", 1),
        ("backward", "8x12x8:TN", 2),  # x is data: no gradient of it
        ("backward", "4*3x3x8", 1),
    ]


def test_a_loss_that_penalises_the_models_weights_learns_to():
    spec = f"{FACTORIES}:penalised"
    trainer = load_model(spec).begin_plain()
    found = [float(trainer.step(step)) for step in range(4)]
    torch.manual_seed(0)
    model, loss, batches = load_function(spec, "model")()
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    for step, (x, y) in enumerate(batches[:4]):
        optimiser.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimiser.step()
        assert found[step] == pytest.approx(float(value))


def test_every_trainer_begins_with_the_same_parameters():
    custom = load_model(f"{FACTORIES}:good")
    trainers = custom.begin(torch.matmul), custom.begin_plain(), custom.begin(torch.matmul), custom.reference()
    first = [float(trainer.step(0)) for trainer in trainers]
    assert first[0] == first[2]
    assert first == pytest.approx([first[0]] * 4, rel=1e-6)


def test_the_articles_model_is_described():
    custom = load_model(f"{FACTORIES}:articles")
    assert len(custom.products) == 5
    assert (custom.rows, custom.steps) == (64, 10)


# --- how it can be judged ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "note"),
    [
        ("dropout", "own dtype: it is random (dropout?), and seeded alike at each step"),
        ("numpys_noise", "own dtype: it is random (dropout?), and seeded alike at each step"),
        ("pythons_coin", "own dtype: it is random (dropout?), and seeded alike at each step"),
        ("unforeseeable", "losses were not compared: the model does not do the same twice"),
        ("made_by_chance", "losses were not compared: the model does not do the same twice"),
        ("casts", "own dtype: in float64 it ends in RuntimeError: mat1 and mat2 must have the same dtype"),
        ("class_weights", "own dtype: in float64 it ends in RuntimeError: expected scalar type Double"),
        ("stateful", "it keeps a state besides its parameters"),
        ("bank", "it keeps a state besides its parameters"),
        ("compiled_in_part", "it is trained without torch.compile"),
        ("compiled_at_the_top", "it is trained without torch.compile"),
        ("complex_numbers", "left to torch: complex64 on cpu"),
        ("mixed", "left to torch: bfloat16 on cpu, autocast?"),
        ("muon", "left to torch: bfloat16 on cpu, by the optimiser"),
        ("convolutional", "left to torch: convolution is one operator"),
        ("frozen_encoder", "not told from the rest of a step: the encoder's fast path is one operator"),
    ],
)
@pytest.mark.filterwarnings("error:Casting complex")
def test_what_a_reader_should_know_is_said(factory, note):
    found = referee.describe(f"{FACTORIES}:{factory}", 0, None, {})
    assert note in "; ".join(found["notes"])
    reference, width, name = referee.envelope(3, 5.0, None)
    comparable = "not compared" not in note
    assert len(reference) == len(width) == 3 * comparable
    assert ("plain torch" in name) == ("own dtype" in "; ".join(found["notes"]))


@pytest.mark.parametrize("factory", ["dropout", "casts", "stateful"])
def test_a_right_kernel_passes_and_a_wrong_one_fails(host, factory):
    rows = trained(host, factory, "numpy", WRONG)
    assert [row.status for row in rows.values()] == ["ok", "ok", "failed-verification", "ok"]
    assert rows["numpy"].loss_deviation < 1e-5
    assert "it learns differently" in rows[WRONG].reason


@pytest.mark.parametrize("factory", ["scripted", "graph", "graph_by_rows"])
def test_what_torch_copies_or_stores_in_its_own_way_is_trained(host, factory):
    rows = trained(host, factory, "numpy")
    assert [(row.status, row.reason) for row in rows.values() if row.status != "ok"] == []


@pytest.mark.parametrize("factory", ["empty_buffer", "bank", "annealed"])
def test_buffers_of_any_kind_and_what_calls_change_are_nobodys_fault(host, to_the_end, monkeypatch, factory):
    monkeypatch.setattr("matmulbench.training.accounting._JUDGED", 1.0)
    rows = trained(host, factory, "numpy", budget=20.0)  # enough for the reference
    assert [(row.status, row.reason) for row in rows.values() if row.status != "ok"] == []
    state = "it keeps a state besides its parameters"
    assert [state in (row.reason or "") for row in rows.values()] == [factory != "empty_buffer"] * 3


def test_where_only_calls_decide_a_wrong_kernel_still_fails(host, to_the_end):
    assert trained(host, "annealed", WRONG)[WRONG].status == "failed-verification"


def test_a_step_that_torch_cannot_do_either_is_the_models(host, monkeypatch):
    model = load_model(f"{FACTORIES}:bad_label")
    monkeypatch.setattr(referee, "_problems", [model])
    assert referee.look_again(7) is None, "whoever takes the step on batch 8 will see"
    for judged in (True, False):  # by its parameters: whether a model is or not, the fault is its own
        model.judged = judged
        with pytest.raises(UsageError, match=r"bad_label': a step on batch 8 of 20 ends in IndexError: Target 9"):
            referee.look_again(8)


def test_a_kernels_error_that_torch_has_too_ends_the_training():
    def course(status, reason):
        referee = SimpleNamespace(call=lambda *_, **__: Outcome(status, reason=reason), killed=False)
        return SimpleNamespace(referee=referee, task="m.py:make", notes=[])

    with pytest.raises(UsageError, match="a step on batch 8 of 20"):
        Course.parameters_decide(course(Status.ERROR, "model 'm.py:make': a step on batch 8 of 20 ends in"), 8)
    assert Course.parameters_decide(course(Status.OK, None), 8)
    for status in (Status.TIMEOUT, Status.LOST):
        with pytest.raises(LostError):
            Course.parameters_decide(course(status, "no sign of life"), 8)


@pytest.mark.parametrize(("steps", "longest_s", "turn"), [(20, 1e-3, 20), (1000, 1e-3, 334), (12, 0.1, 4), (7, 9.0, 1)])
def test_turns_over_uneven_batches_are_the_same_for_all_and_of_an_odd_number(steps, longest_s, turn):
    course = SimpleNamespace(steps=steps)
    Course.choose_turns(course, longest_s, 10.0)
    assert course.turn_steps == turn
    assert -(-steps // turn) % 2 == 1


def test_batches_that_differ_in_size_are_timed_together(host, monkeypatch):
    turns = []
    monkeypatch.setattr(accounting, "TrainSteps", lambda *steps: turns.append(steps[:2]) or TrainSteps(*steps))
    trained(host, "uneven", budget=5.0)
    assert set(turns) <= {(0, 20), (0, 1)}, "all, but for the first step of a fresh process"
    turns.clear()
    trained(host, "articles")
    assert max(last - first for first, last in turns) < 10


def test_random_data_at_the_top_of_a_file_are_the_same_in_every_process(tmp_path):
    file = tmp_path / "top.py"
    file.write_text(
        "import torch\nX, Y = torch.randn(24, 8), torch.randint(3, (24,))\n"
        "def make():\n    batches = list(zip(X.split(6), Y.split(6)))\n"
        "    return torch.nn.Linear(8, 3), torch.nn.CrossEntropyLoss(), batches\n"
    )
    assert referee.describe(f"{file}:make", 0, None, {})["notes"] == []


def test_threads_are_those_that_were_asked_for():
    before = torch.get_num_threads()
    load_model(f"{FACTORIES}:more_threads")
    assert torch.get_num_threads() == before


def test_no_one_is_judged_where_the_model_does_not_repeat_itself(host):
    rows = trained(host, "unforeseeable", "numpy", WRONG)
    for row in rows.values():
        assert row.status == "ok"
        assert row.loss_deviation is None
        assert "losses were not compared" in row.reason


# --- of what form it may be ----------------------------------------------------------------------------

FORMS = (
    "in_place", "keeps", "locked", "normed", "routed", "ragged", "own_loss", "loss_of_output", "dict_and_target",
    "dict_in_a_pair", "two_inputs", "autoencoder", "endless", "workers", "fixed_rows", "warns", "encodings",
    "scheduled", "penalised", "penalised_for_good",
)  # fmt: skip


@pytest.mark.parametrize("factory", FORMS)
def test_a_model_of_another_form_is_taken(factory):
    found = referee.describe(f"{FACTORIES}:{factory}", 0, None, {})
    assert (found["notes"], found["non_matmul_s"] > 0) == ([], True)
    reference, width, _ = referee.envelope(3, 5.0, None)
    custom = referee._problems[0]
    trainer = custom.begin(lambda a, b: a @ b)
    trainer.prepare(0, 2)  # batches of its own, the third is made when it is asked for
    losses = [float(trainer.step(step)) for step in range(3)]
    assert losses == pytest.approx(reference, rel=1e-5)
    assert len(set(losses)) == 3
    assert max(width) < 0.01
    assert len(custom.split(_watched(custom), 3)) == len(found["products"])


def _watched(custom):
    from matmulbench.training.trainers import TimedKernel

    watch = TimedKernel(torch.matmul)
    trainer = custom.begin(watch)
    for step in range(3):
        trainer.step(step)
    assert sum(custom.split(watch, 3)) == pytest.approx(sum(watch.seconds) / 3)
    return watch


@pytest.mark.parametrize("factory", ["workers", "ragged", "routed"])
def test_it_is_trained_to_its_end(host, to_the_end, factory):
    rows = trained(host, factory, "numpy", budget=20.0)
    assert [row.status for row in rows.values()] == ["ok"] * 3
    assert not any(row.extrapolated for row in rows.values())


def test_fewer_rows_are_not_asked_of_a_model_that_takes_none():
    referee.describe(f"{FACTORIES}:fixed_rows", 0, None, {})
    assert referee.envelope(2, 5.0, 4)[:2] == [[], []]
    referee.describe(f"{FACTORIES}:in_place", 0, None, {})
    assert len(referee.envelope(2, 5.0, 4)[0]) == 2


def test_the_seed_is_set_before_the_factory_is_called():
    first, same, other = (load_model(f"{FACTORIES}:ragged", seed) for seed in (1, 1, 2))
    losses = [float(custom.begin_plain().step(0)) for custom in (first, same, other)]
    assert losses[0] == losses[1] != losses[2]


def test_the_rate_is_that_of_plain_sgd():
    slow, fast = (load_model(f"{FACTORIES}:ragged", lr=rate).begin_plain() for rate in (1e-9, 1.0))
    assert float(slow.step(0)) == float(fast.step(0))
    assert slow.loss_at(0) != pytest.approx(fast.loss_at(0), rel=1e-3)


# --- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "no_products",
            "no matrix product that a kernel can do, expected nn.Linear, @ or another in float32 or float64",
        ),
        ("only_convolution", "no matrix product that a kernel can do.*left to torch: convolution is one operator"),
        ("autocast", "no matrix product that a kernel can do.*left to torch: bfloat16 on cpu, autocast?"),
        ("half", "no matrix product that a kernel can do.*left to torch: float16 on cpu"),
        ("no_batches", "got no batch; batches must be at least one pair"),
        ("arrays", "got numpy.ndarray in a batch; torch.from_numpy makes tensors"),
        ("data_set", r"got \(model, loss, TensorDataset: a DataLoader makes batches of it\)"),
        ("needs_arguments", "the factory is called without arguments: give each of its parameters"),
        ("bad_label", "a step on batch 8 of 20 ends in IndexError: Target 9 is out of bounds"),
        ("two", r"expected \(model, loss, batches\) or .* from the factory, got tuple of 2"),
        ("nothing", "from the factory, got None$"),
        ("loss_class", r"got \(model, the class CrossEntropyLoss: call it, batches\)"),
        ("loss_first", r"got \(loss, model, batches\)$"),
        ("batches_second", r"got \(model, batches, function\)$"),
        ("batches_last", r"got \(model, function, optimiser factory, batches\)$"),
        ("asynchronous", "the factory is an async function, expected a plain one"),
        ("broken", r"its factory ends in RuntimeError: no data today; expected \(model, loss, batches\)"),
        ("leaves", "its factory ends in SystemExit: 3; expected"),
        ("batches_end", "its batches end in ZeroDivisionError: division by zero; expected"),
        ("needs_another", "its factory ends in ModuleNotFoundError: No module named 'not_installed'"),
        ("absent", "no function 'absent'"),
        ("unfit", r"a step on batch 1 of 1 ends in RuntimeError: mat1.*the batch has tensors of \(3, 5\), \(3, 1\)"),
        ("vector_loss", r"its loss returned shape \(3, 1\), expected a tensor of one number"),
        ("frozen", "none of its parameters asks for a gradient, expected one to learn"),
        (
            "steps_on_nothing",
            "its optimiser factory ends in ValueError: optimizer got an empty parameter list; expected",
        ),
        ("steps_on_another", "its optimiser steps on nothing that the model learns, expected the parameters"),
        ("needs_closure", "its optimiser is LBFGS, expected one whose step.. takes no closure"),
        ("made_optimizer", r"got \(model, loss, batches, SGD: a function of the parameters is expected"),
    ],
)
def test_a_factory_of_something_else_is_refused(factory, message):
    with pytest.raises(UsageError, match=rf"factories\.py:{factory}'.*{message}") as refused:
        referee.describe(f"{FACTORIES}:{factory}", 0, None, {})
    assert "\n" not in str(refused.value)


def test_a_refusal_reaches_the_parent(host):
    with pytest.raises(UsageError, match="no data today"):
        train_kernels(host, f"{FACTORIES}:broken", ["torch"], "torch", 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3}, "epochs 3 does not go with model"),
        ({"batch_size": 3}, "batch_size 3 does not go with model"),
        ({"hidden": 3}, "hidden 3 does not go with model"),
        ({"dtype": "float64"}, "dtype 'float64' does not go with model"),
        ({"lr": float("inf")}, "lr inf: expected a number above 0"),
        ({"depth": 3}, "option 'depth' is unknown: a model takes lr"),
    ],
)
def test_an_option_of_the_tasks_is_refused_at_once(options, message):
    with pytest.raises(UsageError, match=message):
        matmulbench.train(f"{FACTORIES}:good", "numpy", **options)


def test_a_rate_is_refused_where_the_factory_has_an_optimiser():
    with pytest.raises(UsageError, match=r"lr 0\.1: the optimiser factory of model .* sets the rate"):
        load_model(f"{FACTORIES}:workers", lr=0.1)


@pytest.mark.parametrize("verb", ["train", pytest.param("run", marks=pytest.mark.slow)])
def test_what_a_model_prints_and_warns_of_is_said_once_and_not_among_the_data(verb, brief, tmp_path):
    options = {"train": ["numpy"], "run": ["--kernel", "numpy", "--out", str(tmp_path / "run")]}[verb]
    command = [*brief, verb, *options, "--model", f"{FACTORIES}:warns"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "all is well" not in done.stdout
    assert done.stderr.count("epoch 1: all is well") == 1, "though each kernel's process makes the model anew"
    assert done.stderr.count("UserWarning: an old way to do it") == 1, done.stderr


def test_a_compiled_kernel_beside_a_model_stays_compiled(tmp_path):
    file = tmp_path / "both.py"
    file.write_text(
        "import torch\nfrom matmulbench.ladder.row_slice import matmul\n"
        "kernel = torch.compile(lambda a, b: matmul(a, b), backend='eager')\n"
        f"import sys; sys.path.insert(0, {str(FACTORIES.parent)!r})\nfrom factories import net, batches\n"
        "def make():\n    return net(), torch.nn.CrossEntropyLoss(), batches()\n"
    )
    worker.open_training(f"{file}:make", f"{file}:kernel", 0, None, {}, "cpu")
    assert hasattr(worker._desks[0].kernel, "_torchdynamo_orig_callable")
    worker._desks.pop().block.close()
