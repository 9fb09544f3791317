from fractions import Fraction

import numpy as np
import pytest

from matmulbench.verification.bounds import product


def _exactly(a, b):
    return [[sum(Fraction(x) * Fraction(y) for x, y in zip(row, column, strict=True)) for column in b.T] for row in a]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 7, 2), (2, 64, 3), (2, 129, 1)])
def test_the_reference_errs_by_far_less_than_a_roundoff(dtype, m, k, n):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    value, rest = product(a, b)
    for i, row in enumerate(_exactly(a.tolist(), np.array(b.tolist()))):
        for j, exact in enumerate(row):
            magnitude = float(np.abs(a[i].astype(float)) @ np.abs(b[:, j].astype(float)))
            error = abs(float(Fraction(value[i, j]) + Fraction(rest[i, j]) - exact))
            assert error <= k * np.finfo(dtype).eps / 500 * magnitude


def test_float64_sums_that_cancel_keep_their_last_bits():
    a, b = np.array([[1.0, 2.0**-80, -1.0]]), np.array([[1.0], [1.0], [1.0]])
    value, rest = product(a, b)
    assert (value + rest)[0, 0] == 2.0**-80


def test_an_empty_sum_is_zero():
    value, rest = product(np.empty((2, 0)), np.empty((0, 3)))
    assert (value == np.zeros((2, 3))).all()
    assert (rest == 0).all()
