"""What is held against a kernel's clock, by the figures alone; kernels that lie are in test_rounds."""

from types import SimpleNamespace
from typing import cast

import pytest

from matmulbench.isolation import Child
from matmulbench.measurement.rounds import SealedCandidate
from matmulbench.measurement.seal import Seal


@pytest.mark.parametrize(("disturbed", "refused"), [(2, False), (4, False), (5, True), (8, True)])
def test_processor_time_is_missed_where_most_turns_used_more(disturbed: int, refused: bool) -> None:
    peers: list[Seal] = []
    Seal(1, peers, turns_s=[2e-3] * 8, excess_s=[1e-4] * 8)
    seen = Seal(1, peers, turns_s=[2e-3] * 8, late_s=[0.0] * 8, wall_s=0.02)
    seen.excess_s = [1e-4] * (8 - disturbed) + [5e-4] * disturbed
    assert ("two clocks disagree" in (seen.finding() or "")) is refused


class Asked(SealedCandidate):
    """A candidate whose process is not there; ``used_s`` is what it would have used."""

    place = "a test"
    take_turn = renew = close = lambda *_: None


def test_what_an_interim_analysis_asks_for_is_no_work_while_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    used_s = [0.0]

    def asked(*_: object) -> None:
        used_s[0] += 1.0

    monkeypatch.setattr(Seal, "_used_s", lambda *_: used_s[0])
    monkeypatch.setattr(Seal, "count_descendants", lambda *_: None)
    monkeypatch.setattr("matmulbench.measurement.rounds.ask", asked)
    one = Asked("mine", 1, [])
    one.child = cast("Child", SimpleNamespace(pid=1, pids=(1,)))
    one.seal.rest(one.child)
    used_s[0] += 0.25  # before
    one.audit()
    used_s[0] += 0.5  # and after it
    one.seal.count_idle(one.child)
    assert used_s[0] == 1.75
    assert one.seal.idle_processor_s == pytest.approx(0.75, abs=0.01)
    one.release()
