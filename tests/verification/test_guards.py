import numpy as np
import pytest

from matmulbench.verification.case import arrange
from matmulbench.verification.guards import guarded


@pytest.mark.parametrize("letter", "NTRCO")
@pytest.mark.parametrize("at_end", [True, False])
def test_guarded_operands_hold_their_values(letter, at_end):
    values = np.arange(35, dtype="float64").reshape(5, 7)
    operand = arrange(values, letter)
    copy = guarded(operand, at_end)
    assert np.array_equal(copy.numpy(), values)
    assert copy.stride() == operand.stride()
