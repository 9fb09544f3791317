"""What is held against a kernel's clock, by the figures alone; kernels that lie are in test_rounds."""

import pytest

from matmulbench.measurement.seal import Seal


@pytest.mark.parametrize(("disturbed", "refused"), [(2, False), (5, False), (6, True), (8, True)])
def test_processor_time_is_missed_where_hardly_a_turn_is_without(disturbed: int, refused: bool) -> None:
    peers: list[Seal] = []
    Seal(1, peers, turns_s=[2e-3] * 8, excess_s=[1e-4] * 8)
    seen = Seal(1, peers, turns_s=[2e-3] * 8, late_s=[0.0] * 8, wall_s=0.02)
    seen.excess_s = [1e-4] * (8 - disturbed) + [5e-4] * disturbed
    assert ("two clocks disagree" in (seen.finding() or "")) is refused
