import math

import pytest
import torch

from matmulbench.verification.case import Case
from matmulbench.verification.shapes import AWKWARD, grid, judge_all, randomised, search
from matmulbench.verification.subject import Subject, WrongError


def _subject(kernel):
    return Subject("a kernel", kernel, "float32")


def test_every_pair_of_awkward_sizes_meets_in_each_pair_of_dimensions():
    cases = list(grid("float32"))
    sizes = [size for size in AWKWARD if size]
    for x in sizes:
        for y in sizes:
            assert any((case.m, case.k) == (x, y) for case in cases)
            assert any((case.k, case.n) == (x, y) for case in cases)
            assert any((case.m, case.n) == (x, y) for case in cases)


def test_all_combinations_are_there_when_asked_for():
    assert {(case.m, case.k, case.n) for case in grid("float32", True)} >= {
        (m, k, n) for m in AWKWARD for k in AWKWARD for n in AWKWARD
    }


def test_the_search_finds_the_smallest_failing_shape():
    def kernel(a, b):
        c = a @ b
        return c + 1 if len(a) >= 37 and b.shape[1] >= 5 else c

    with pytest.raises(WrongError) as caught:
        search(_subject(kernel), 200, 30)
    case = caught.value.case
    assert (case.m, case.k, case.n, case.layout) == (37, 0, 5, "NN")


def test_the_search_finds_what_a_kernel_raises():
    def kernel(a, b):
        if a.shape[1] > 20:
            raise RuntimeError("too long")
        return a @ b

    with pytest.raises(RuntimeError, match="too long"):
        search(_subject(kernel), 200, 30)


def test_an_error_that_comes_and_goes_is_not_forgotten():
    calls = []

    def kernel(a, b):
        c = a @ b
        if c.numel():
            calls.append(1)
        return c * math.nan if len(calls) == 30 else c

    with pytest.raises(WrongError):
        search(_subject(kernel), 200, 30)


def test_a_slow_kernel_is_spared_what_would_take_too_long():
    volumes = []

    def kernel(a, b):
        volumes.append(a.numel() * b.shape[1])
        return a @ b

    subject = _subject(kernel)
    for _ in range(2):  # the first call is taken for compilation
        subject.learn(Case(1, 1000, 1), 0.5)
    judge_all(subject, [Case(100, 100, 100), Case(2, 2, 2)], 1.0)
    assert volumes == [8]
    volumes.clear()
    subject = _subject(kernel)
    judge_all(subject, [Case(100, 100, 100), Case(2, 2, 2)], 1000.0)
    assert volumes == [10**6, 8]


def test_random_cases_are_many_and_different_but_the_same_each_time():
    subject = _subject(torch.matmul)
    once, again = (list(randomised(subject, 300, 100.0)) for _ in range(2))
    assert once == again
    assert len({(case.m, case.k, case.n, case.layout, case.values) for case in once}) > 200
