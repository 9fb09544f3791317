"""The run in a few sentences: a kernel of one's own has one to itself."""

from collections.abc import Callable
from pathlib import Path

from matmulbench.report.headline import headline
from matmulbench.results.folder import Results
from matmulbench.workload import Workload

OWN = "work/fast.py:matmul"


def test_a_kernel_of_ones_own_has_a_sentence(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=("digits",), kernels=("numpy", "torch", OWN))
    [mine] = [sentence for sentence in headline(run) if sentence.startswith("fast.py:matmul is right")]
    assert "5x784x10 · float32 · 1 thread takes 83.4 µs, 1/11.4 as fast as torch" in mine
    assert "% of the roof; a training step of digits" in mine


def test_a_kernel_that_was_not_timed_is_right_all_the_same(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], tasks=(), kernels=("torch", OWN))
    assert headline(run) == ["fast.py:matmul is right (correct in float32, correct in float64)."]


def test_a_wrong_kernel_is_named_as_refused_and_has_no_other_sentence(small: Results) -> None:
    said = [sentence for sentence in headline(small) if "mine.py:matmul" in sentence]
    assert said == ["Refused as wrong, and not timed: mine.py:matmul."]


def test_what_a_step_gains_is_foretold_where_it_was_not_measured(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", [], tasks=("digits",), kernels=("torch", OWN))
    run.tables["training"]["measured_speedup"] = float("nan")
    [mine] = [sentence for sentence in headline(run) if sentence.startswith("fast.py:matmul is right")]
    assert "a training step of digits · 1 thread is foretold to be" in mine
