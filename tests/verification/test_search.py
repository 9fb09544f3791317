import math

import pytest
import torch

from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest, WrongError
from matmulbench.verification.search import check_all, check_large, randomised, smallest


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


def test_a_slow_first_call_still_says_how_long_the_next_may_take():
    under_test = _under_test(torch.matmul)
    under_test.pace.learn(Case(64, 784, 50), 0.05)
    assert under_test.pace.predict(640, 784, 50) < 1


def test_random_cases_are_many_and_different_but_the_same_each_time():
    under_test = _under_test(torch.matmul)
    once, again = (list(randomised(under_test, 300, 100.0)) for _ in range(2))
    assert once == again
    assert len({(case.m, case.k, case.n, case.layout, case.values) for case in once}) > 200


def test_a_product_that_needs_too_much_memory_is_left_out_with_a_note():
    def kernel(a, b):
        if len(a) > 1000:
            raise MemoryError
        return a @ b

    under_test = _under_test(kernel)
    check_large(under_test, [Case(1001, 2, 3), Case(7, 2000, 3)], 10.0)
    assert under_test.cases == 1
    assert under_test.notes == {"not judged: 1001x2x3, for which it needs more memory than it may take"}


def test_a_finding_is_of_equal_sizes_where_only_those_fail():
    def kernel(a, b):
        c = a @ b
        return c.t().contiguous() if len(c) == c.shape[1] else c

    error = smallest(_under_test(kernel), Case(40, 9, 40, "TR", values="integers"), WrongError("exactness", "", "", ""))
    assert (error.case.m, error.case.k, error.case.n, error.case.layout) == (2, 1, 2, "NN")


def test_advice_stands_once_where_one_check_is_within_another():
    def kernel(a, b):  # within the norm bound, but small integers are not exact
        return a @ b + (0.002 if a.stride(1) != 1 and b.stride(1) != 1 else 0)

    with pytest.raises(WrongError) as caught:
        _under_test(kernel).check(Case(100, 100, 100, "TT"))
    assert str(caught.value).count("it is right where both operands are contiguous") == 1
