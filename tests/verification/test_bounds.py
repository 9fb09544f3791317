import numpy as np
import pytest

from matmulbench.verification.bounds import effective_k, gamma, judge, judge_exact, norm_bound

DTYPES = ("float32", "float64")


def _operands(dtype, m=5, k=30, n=4):
    rng = np.random.default_rng(1)
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_passes_with_a_residual_below_one(dtype):
    a, b = _operands(dtype)
    judgement = judge(a, b, a @ b)
    assert judgement.verdict == "pass"
    assert 0 < judgement.residual < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_error_is_measured_in_units_of_the_bound(dtype):
    a, b = _operands(dtype)
    c = a @ b
    unit = 30 * np.finfo(dtype).eps / 2 * (np.abs(a) @ np.abs(b))[2, 3]
    c[2, 3] += 2 * unit
    judgement = judge(a, b, c)
    assert judgement.verdict != "pass"
    assert judgement.residual == pytest.approx(2, abs=0.7)
    assert "c[2, 3]" in judgement.detail


def test_beyond_the_norm_bound_there_is_no_excuse():
    a, b = _operands("float32")
    bound = norm_bound(a.astype(float), b.astype(float), 30, 2.0**-24)
    c = a @ b
    c[0, 0] += 0.9 * bound
    assert judge(a, b, c).verdict == "normwise"
    c[0, 0] += 0.3 * bound
    assert judge(a, b, c).verdict == "fail"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(value):
    a, b = _operands("float32")
    c = a @ b
    c[1, 1] = value
    assert judge(a, b, c).verdict == "fail"
    assert judge_exact(np.ones((5, 30)), np.ones((30, 4)), np.full((5, 4), value)).verdict == "fail"


def test_zeros_in_the_operands_do_not_loosen_the_bound():
    a, b = np.zeros((2, 100), "float32"), np.ones((100, 2), "float32")
    a[:, 3] = 1.1
    assert effective_k(a, b) == 1
    assert judge(a, b, (a @ b) * np.float32(1 + 1e-5)).verdict == "fail"


def test_products_that_underflow_are_allowed_to():
    a, b = np.full((1, 4), 1e-30, "float32"), np.full((4, 1), 1e-15, "float32")
    assert judge(a, b, a @ b).verdict == "pass"


def test_integers_allow_no_error_at_all():
    a, b = np.full((2, 3), 1000.0, "float32"), np.full((3, 2), 1000.0, "float32")
    assert judge_exact(a, b, a @ b).verdict == "pass"
    c = a @ b
    c[1, 0] += 0.25
    assert "c[1, 0] is 3000000.25, expected exactly 3000000" in judge_exact(a, b, c).detail


def test_gamma_is_a_little_more_than_ku():
    assert gamma(1000, 2.0**-24) == pytest.approx(1000 * 2.0**-24, rel=1e-4)
    assert gamma(1000, 2.0**-24) > 1000 * 2.0**-24
