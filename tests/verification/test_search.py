import math

import pytest
import torch

from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest, WrongError
from matmulbench.verification.search import check_all, randomised


def _under_test(kernel):
    return KernelUnderTest("a kernel", kernel, "float32")


def _search(kernel):
    check_all(kernel, randomised(kernel, 200, 30), 30)


def test_the_search_finds_the_smallest_failing_shape():
    def kernel(a, b):
        c = a @ b
        return c + 1 if len(a) >= 37 and b.shape[1] >= 5 else c

    with pytest.raises(WrongError) as caught:
        _search(_under_test(kernel))
    case = caught.value.case
    assert (case.m, case.k, case.n, case.layout) == (37, 1, 5, "NN")


def test_the_search_finds_what_a_kernel_raises():
    def kernel(a, b):
        if a.shape[1] > 20:
            raise RuntimeError("too long")
        return a @ b

    with pytest.raises(RuntimeError, match="too long"):
        _search(_under_test(kernel))


def test_an_error_that_comes_and_goes_is_not_forgotten():
    calls = []

    def kernel(a, b):
        c = a @ b
        if c.numel():
            calls.append(1)
        return c * math.nan if len(calls) == 30 else c

    with pytest.raises(WrongError):
        _search(_under_test(kernel))


def test_a_slow_kernel_is_spared_what_would_take_too_long():
    volumes = []

    def kernel(a, b):
        volumes.append(a.numel() * b.shape[1])
        return a @ b

    under_test = _under_test(kernel)
    for _ in range(2):  # the first call is taken for compilation
        under_test.pace.learn(Case(1, 1000, 1), 0.5)
    check_all(under_test, [Case(100, 100, 100), Case(2, 2, 2)], 1.0)
    assert volumes == [8]
    volumes.clear()
    under_test = _under_test(kernel)
    check_all(under_test, [Case(100, 100, 100), Case(2, 2, 2)], 1000.0)
    assert volumes == [10**6, 8]


def test_random_cases_are_many_and_different_but_the_same_each_time():
    under_test = _under_test(torch.matmul)
    once, again = (list(randomised(under_test, 300, 100.0)) for _ in range(2))
    assert once == again
    assert len({(case.m, case.k, case.n, case.layout, case.values) for case in once}) > 200
