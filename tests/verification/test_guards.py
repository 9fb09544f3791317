import numpy as np
import pytest

from matmulbench.verification.guards import guarded


@pytest.mark.parametrize("letter", "NTR")
@pytest.mark.parametrize("at_end", [True, False])
def test_guarded_operands_hold_their_values(letter, at_end):
    values = np.arange(35, dtype="float64").reshape(5, 7)
    assert np.array_equal(guarded(values, letter, at_end).numpy(), values)
