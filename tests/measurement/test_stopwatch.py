"""The stopwatch leaves out what other programs took, and nothing that the thread itself did or waited for."""

import time

import pytest

from matmulbench.measurement import stopwatch
from matmulbench.measurement.stopwatch import Stopwatch


def test_what_a_thread_waits_for_counts():
    watch = Stopwatch()
    time.sleep(0.02)
    start, end, own_s, _ = watch.stop()
    assert own_s == end - start >= 0.02


def test_an_interruption_does_not_count(monkeypatch):
    monkeypatch.setattr(stopwatch, "waits", lambda: 7)
    watch = Stopwatch()
    end, used_s = watch._start + 3.0, watch._used_s + 1.0
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: end)
    monkeypatch.setattr(stopwatch, "thread_time", lambda: used_s)
    start, stopped, own_s, late_s = watch.stop()
    assert (start, stopped) == (watch._start, end)
    assert own_s == pytest.approx(1.0)
    assert late_s == 0


def test_where_nobody_counts_waits_all_time_counts(monkeypatch):
    monkeypatch.setattr(stopwatch, "waits", lambda: None)
    watch = Stopwatch()
    monkeypatch.setattr(stopwatch, "thread_time", lambda: watch._used_s)
    start, end, own_s, _ = watch.stop()
    assert own_s == end - start > 0
