"""The stopwatch leaves out what other programs took, and nothing that the thread itself did or waited for."""

import time

import pytest

from matmulbench.measurement import stopwatch
from matmulbench.measurement.stopwatch import Stopwatch


def test_what_a_thread_waits_for_counts():
    watch = Stopwatch()
    time.sleep(0.02)
    start, end, own_s = watch.stop()
    assert own_s == end - start >= 0.02


def test_an_interruption_does_not_count(monkeypatch):
    watch = Stopwatch()
    end, used_s = watch._start + 3.0, watch._used_s + 1.0
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: end)
    monkeypatch.setattr(stopwatch, "thread_time", lambda: used_s)
    monkeypatch.setattr(stopwatch, "waits", lambda: watch._waits)
    start, stopped, own_s = watch.stop()
    assert (start, stopped) == (watch._start, end)
    assert own_s == pytest.approx(1.0)
