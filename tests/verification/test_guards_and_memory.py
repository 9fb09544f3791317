import numpy as np
import pytest
import torch

from matmulbench.audit.zoo.right import full_broadcast
from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification.guards import guarded
from matmulbench.verification.memory import Appetite, refusal


@pytest.mark.parametrize("letter", "NTR")
@pytest.mark.parametrize("at_end", [True, False])
def test_guarded_operands_hold_their_values(letter, at_end):
    values = np.arange(35, dtype="float64").reshape(5, 7)
    assert np.array_equal(guarded(values, letter, at_end).numpy(), values)


def test_a_temporary_of_m_k_n_is_predicted_within_a_third():
    appetite = Appetite.of(full_broadcast, "float32")
    assert appetite.bytes(1000, 1000, 1000) == pytest.approx(4e9, rel=0.33)


def test_blas_needs_little_more_than_its_result():
    appetite = Appetite.of(load_kernel("torch"), "float32")
    assert appetite.bytes(1000, 1000, 1000) < 1e8


def test_too_large_a_temporary_is_refused_with_its_bytes():
    reason = refusal(full_broadcast, "float32", 100_000, 10_000, 1000)
    assert "bytes of temporary memory" in reason
    assert refusal(full_broadcast, "float32", 10, 10, 10) is None


def test_nothing_is_left_in_the_kernel_by_measuring():
    calls = []

    def kernel(a, b):
        calls.append(a.shape)
        return a @ b

    Appetite.of(kernel, "float64", 48)
    assert set(calls) == {torch.Size([48, 48])}
