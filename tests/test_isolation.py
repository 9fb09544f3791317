"""Whatever a kernel does to its process becomes a status with a reason; the host lives on."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from matmulbench.isolation import Host
from matmulbench.results.schema import Status

LIMIT = 20.0


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(threads=1) as host:
        yield host


@pytest.fixture
def misdeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host that can import functions that misbehave."""
    (tmp_path / "misdeeds.py").write_text(
        "import os, sys, time\n"
        "from matmulbench.isolation import say\n"
        "def raises(): raise KeyError('lost')\n"
        "def exits(): sys.exit(5)\n"
        "def talks():\n"
        "    for i in range(6): time.sleep(0.3); say(i)\n"
        "    return 'done'\n"
        "def prints(): print('noise'); os.system('echo more noise'); return 1\n"
        "def pools():\n"
        "    import numpy, torch, numba, threadpoolctl\n"
        "    return [torch.get_num_threads(), numba.get_num_threads()] + [\n"
        "        pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Host(threads=1) as host:
        yield host


def test_a_value_comes_back(host: Host) -> None:
    assert host.call("math:sqrt", 9, silence_limit=LIMIT).value == 3


def test_each_call_has_a_process_of_its_own(host: Host) -> None:
    ids = {host.call("os:getpid", silence_limit=LIMIT).value for _ in range(3)}
    assert len(ids) == 3
    assert os.getpid() not in ids


def test_a_signal_is_a_crash_and_the_host_goes_on(host: Host) -> None:
    outcome = host.call("ctypes:string_at", 8, silence_limit=LIMIT)
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "SIGSEGV (memory it does not own)")
    assert host.call("math:sqrt", 4, silence_limit=LIMIT).value == 2


def test_leaving_without_a_word_is_a_crash(host: Host) -> None:
    outcome = host.call("os:_exit", 0, silence_limit=LIMIT)
    assert outcome.status == Status.CRASHED
    assert "exit code 0" in (outcome.reason or "")


def test_a_hang_is_ended(host: Host) -> None:
    start = time.monotonic()
    outcome = host.call("time:sleep", 60, silence_limit=0.5)
    assert outcome.status == Status.TIMEOUT
    assert time.monotonic() - start < 30
    assert host.call("math:sqrt", 4, silence_limit=LIMIT).status == Status.OK


def test_a_memory_hog_is_stopped(host: Host) -> None:
    outcome = host.call("builtins:bytearray", 2**32, silence_limit=LIMIT, memory_limit=2**30)
    assert outcome.status == Status.OUT_OF_MEMORY


def test_a_missing_module_is_unavailable(host: Host) -> None:
    outcome = host.call("matmulbench.ladder.plugins:load_kernel", "no_such_module:f", silence_limit=LIMIT)
    assert outcome.status == Status.UNAVAILABLE


def test_an_exception_is_an_error_with_its_place(misdeeds: Host) -> None:
    outcome = misdeeds.call("misdeeds:raises", silence_limit=LIMIT)
    assert outcome.status == Status.ERROR
    assert outcome.reason == "KeyError: 'lost' (misdeeds.py:3)"


def test_sys_exit_is_no_way_out(misdeeds: Host) -> None:
    assert misdeeds.call("misdeeds:exits", silence_limit=LIMIT).status == Status.ERROR


def test_messages_are_heard_and_are_signs_of_life(misdeeds: Host) -> None:
    heard: list[int] = []
    outcome = misdeeds.call("misdeeds:talks", silence_limit=1.0, listen=heard.append)
    assert (outcome.value, heard) == ("done", list(range(6)))


def test_a_kernels_prints_stay_off_stdout(misdeeds: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert misdeeds.call("misdeeds:prints", silence_limit=LIMIT).value == 1
    assert capfd.readouterr().out == ""


def test_every_pool_has_the_threads_asked_for(misdeeds: Host) -> None:
    counts = misdeeds.call("misdeeds:pools", silence_limit=60).value
    assert len(counts) >= 4
    assert set(counts) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_nothing_outlives_its_host(host: Host) -> None:
    pids: list[int] = []
    with Host(threads=1) as doomed:
        pids.append(doomed.call("os:getppid", silence_limit=LIMIT).value)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
