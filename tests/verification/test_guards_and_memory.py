import subprocess
import sys

import numpy as np
import pytest
import torch

from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification import memory
from matmulbench.verification.guards import guarded
from matmulbench.verification.memory import Appetite, refusal


@pytest.mark.parametrize("letter", "NTR")
@pytest.mark.parametrize("at_end", [True, False])
def test_guarded_operands_hold_their_values(letter, at_end):
    values = np.arange(35, dtype="float64").reshape(5, 7)
    assert np.array_equal(guarded(values, letter, at_end).numpy(), values)


_PREDICT = """
from matmulbench.audit.mutants.right import full_broadcast
from matmulbench.verification.memory import Appetite
print(Appetite.of(full_broadcast, "float32").bytes(1000, 1000, 1000))
"""


def test_a_temporary_of_m_k_n_is_predicted_within_a_third():
    # In a process of its own, as in verification: memory that earlier tests freed would serve again unseen.
    predicted = subprocess.run([sys.executable, "-c", _PREDICT], capture_output=True, text=True, check=True).stdout
    assert int(predicted) == pytest.approx(4e9, rel=0.33)


def test_blas_needs_little_more_than_its_result():
    appetite = Appetite.of(load_kernel("torch"), "float32")
    assert appetite.bytes(1000, 1000, 1000) < 1e8


def test_too_large_a_temporary_is_refused_with_its_bytes(monkeypatch):
    monkeypatch.setattr(memory, "_peak_of", lambda kernel, a, b: 4 * a.shape[0] ** 3)
    reason = refusal(torch.matmul, "float32", 100_000, 10_000, 1000)
    assert "predicted to need 4,000,000,000,000 bytes of temporary memory" in reason
    assert refusal(torch.matmul, "float32", 10, 10, 10) is None


def test_nothing_is_left_in_the_kernel_by_measuring():
    calls = []

    def kernel(a, b):
        calls.append(a.shape)
        return a @ b

    Appetite.of(kernel, "float64", 48)
    assert set(calls) == {torch.Size([48, 48])}
