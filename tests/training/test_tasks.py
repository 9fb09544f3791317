import subprocess
import sys

import pytest
import torch

from matmulbench.training import TASKS, find_task
from matmulbench.training.problem import load_problem
from matmulbench.training.trainers import ManualTrainer, TaskProblem


def train(problem):
    trainer = ManualTrainer(problem, torch.matmul)
    losses = [float(trainer.step(step)) for step in range(problem.steps)]
    return losses, *problem.accuracies(trainer.predict)


@pytest.fixture(scope="module")
def digits():
    return load_problem(find_task("digits"))


@pytest.mark.parametrize("seed", range(3))
def test_breast_cancer_reaches_its_accuracy(seed):
    losses, train_accuracy, test_accuracy = train(load_problem(find_task("breast-cancer"), seed=seed))
    assert len(losses) == 100
    assert losses[-1] < losses[0] / 3
    assert train_accuracy >= 0.943
    assert test_accuracy >= 0.895


@pytest.mark.parametrize("seed", range(3))
def test_digits_reaches_its_accuracy(seed):
    losses, train_accuracy, test_accuracy = train(load_problem(find_task("digits"), seed=seed))
    assert len(losses) == 20 * (1437 // 64)
    assert train_accuracy > 0.98
    assert test_accuracy >= 0.95


def test_mnist_reaches_its_accuracy(mnist_dir):
    losses, _, test_accuracy = train(load_problem(find_task("mnist"), mnist_dir))
    assert len(losses) == 781
    assert test_accuracy >= 0.944


def test_the_article_net_learns_the_digit_by_regression(mnist_dir):
    problem = load_problem(find_task("mnist-regression", epochs=3), mnist_dir)
    assert problem.x_train.shape == (50_000, 784)
    manual, written = ManualTrainer(problem, torch.matmul), TaskProblem(problem).begin_plain()
    losses = [(float(manual.step(step)), float(written.step(step))) for step in range(3)]
    assert losses[-1][0] < losses[0][0] / 2
    assert all(abs(a - b) <= 1e-5 * b for a, b in losses)
    assert problem.accuracies(manual.predict) == (None, None)


@pytest.mark.parametrize("name", ["breast-cancer", "digits"])
def test_torch_nn_learns_the_same_and_leaves_the_problem_alone(name):
    problem = load_problem(find_task(name, dtype="float64", epochs=2))
    before = [(weight.clone(), bias.clone()) for weight, bias in problem.parameters]
    manual, written = ManualTrainer(problem, torch.matmul), TaskProblem(problem).begin_plain()
    for step in range(problem.steps):
        assert float(manual.step(step)) == pytest.approx(float(written.step(step)), rel=1e-9)
    assert torch.allclose(manual.predict(problem.x_test), written.predict(problem.x_test), rtol=1e-6)
    for (weight, bias), (weight_before, bias_before) in zip(problem.parameters, before, strict=True):
        assert torch.equal(weight, weight_before)
        assert torch.equal(bias, bias_before)


def test_the_scaler_is_fitted_on_the_train_rows_alone():
    problem = load_problem(find_task("breast-cancer"))
    assert len(problem.x_train) == 455
    assert problem.x_train.mean(0).abs().max() < 1e-6
    assert (problem.x_train.std(0, correction=0) - 1).abs().max() < 1e-5
    assert problem.x_test.mean(0).abs().max() > 1e-2  # not scaled by itself


def test_an_epoch_shows_each_row_once_and_the_next_in_another_order(digits):
    per_epoch = len(digits.x_train) // 64
    assert digits.steps == 20 * per_epoch
    first = torch.cat([digits.orders[0][i * 64 : (i + 1) * 64] for i in range(per_epoch)])
    assert len(first.unique()) == len(first) == per_epoch * 64
    assert not torch.equal(digits.orders[0], digits.orders[1])
    x, y = digits.batch(digits.steps)  # past the end it begins again
    assert torch.equal(x, digits.batch(0)[0])
    assert y.shape == (64,)


def test_the_seed_decides_everything():
    one, same, other = (
        load_problem(find_task("breast-cancer"), seed=1),
        load_problem(find_task("breast-cancer"), seed=1),
        load_problem(find_task("breast-cancer"), seed=2),
    )
    assert torch.equal(one.x_train, same.x_train)
    assert torch.equal(one.parameters[0][0], same.parameters[0][0])
    assert not torch.equal(one.x_train, other.x_train)
    assert not torch.equal(one.parameters[0][0], other.parameters[0][0])


def test_options_change_the_task():
    task = find_task("digits", epochs=2, batch_size=32, hidden=20, lr=0.5, dtype="float64")
    assert (task.epochs, task.batch, task.layers, task.rate, task.dtype) == (2, 32, (784, 20, 10), 0.5, "float64")
    assert find_task("digits", epochs=None) == TASKS["digits"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnits", {}, "task 'mnits' is unknown: did you mean mnist"),
        ("zzz", {}, "known are breast-cancer, digits, mnist, mnist-regression"),
        ("digits", {"dtype": "int8"}, "dtype 'int8': expected float32 or float64 or bfloat16 or float16"),
        ("digits", {"epochs": 0}, "epochs 0: expected"),
        ("digits", {"epochs": 1.5}, "epochs 1.5: expected a whole number above 0"),
        ("digits", {"lr": float("nan")}, "lr nan: expected"),
        ("digits", {"lr": float("inf")}, "lr inf: expected a number above 0"),
        ("digits", {"lr": "0.1"}, "lr '0.1': expected a number above 0"),
        ("digits", {"depth": 3}, "option 'depth' is unknown: known are epochs"),
    ],
)
def test_a_wrong_name_or_option_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        find_task(name, **options)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size 5000: the task digits has 1437 rows"):
        load_problem(find_task("digits", batch_size=5000))


def test_the_table_of_tasks_loads_no_torch():
    code = "import sys, matmulbench.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
