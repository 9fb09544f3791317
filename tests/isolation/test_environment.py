"""What children find in their environment."""

from collections.abc import Iterator

import pytest

from matmulbench.isolation import environment
from matmulbench.isolation.environment import thread_environment


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    environment._numba_cache.cache_clear()
    yield
    environment._numba_cache.cache_clear()


def test_without_a_home_what_numba_compiles_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    assert "NUMBA_CACHE_DIR" in thread_environment(1)


def test_a_place_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    assert "NUMBA_CACHE_DIR" not in thread_environment(1)


def test_threads_that_wait_spin_where_time_is_taken_alone() -> None:
    assert thread_environment(2)["GOMP_SPINCOUNT"] != "0"
    assert thread_environment(2, spin=False)["GOMP_SPINCOUNT"] == "0"
