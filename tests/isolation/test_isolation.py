"""Whatever a kernel does to its process becomes a status with a reason; the host lives on."""

import importlib
import os
import runpy
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from matmulbench.isolation import Host, Outcome
from matmulbench.isolation.requests import Request
from matmulbench.isolation.serve import describe
from matmulbench.isolation.system import missing, processor_s, start_method
from matmulbench.status import Status

LIMIT = 20.0
forks = pytest.mark.skipif(start_method() != "fork", reason="there is no process that forks the others")

MISDEEDS = """
import ctypes, os, signal, subprocess, sys, time
from matmulbench.isolation import send
from matmulbench.isolation.requests import Request

_kept = []
def root(x): return x ** 0.5
def pid(): return os.getpid()
def parent(): return os.getppid()
def segfault(): ctypes.string_at(2**64 - 8)
def leaves(): os._exit(0)
def closes_all(): os.closerange(3, 100)
def writes_much():
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with open(__file__ + '.much', 'wb') as file: file.write(bytes(100))
def spins():
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (1, 9))
    while True: pass
def hangs(): time.sleep(60)
def hoards(): return len(bytearray(2**32))
def absent(): import no_such_module
def raises(): raise KeyError('lost')
def raises_two(): raise ExceptionGroup('both', [ValueError('one'), KeyError('two')])
def exits(): sys.exit(5)
def talks():
    for i in range(6): time.sleep(0.3); send(i)
    return 'done'
def prints(): print('noise'); os.system('echo more noise'); return 1
def prints_in_each_call():
    for file in (sys.stdout, sys.stderr):
        for call in range(9000): print('noise', call, file=file)
def pools():
    import numpy, torch, numba, threadpoolctl
    return [torch.get_num_threads(), numba.get_num_threads()] + [
        pool['num_threads'] for pool in threadpoolctl.threadpool_info()]
def counts(): _kept.append(1); return len(_kept)
def alarms(): signal.alarm(1); return 1
def breeds():
    for number in range(12):
        if not os.fork():
            if number == 3: os.setsid()
            time.sleep(100)
    subprocess.Popen(['sleep', '100'])
    if not os.fork():  # a daemon: its parent ends at once
        if not os.fork(): os.setsid(); time.sleep(100)
        os._exit(0)
    return 13
def disowns():
    ctypes.CDLL(None).prctl(36, 0)  # no longer takes in the orphans of its descendants
    ours, theirs = os.pipe()
    if not os.fork():
        if pid := os.fork(): os.write(theirs, str(pid).encode()); os._exit(0)
        time.sleep(100)
    os.wait()
    return int(os.read(ours, 20))
def strays():
    if not os.fork(): raise ValueError('in the copy')
    os.wait()
    return 'the one that was asked'
def speaks_badly(): raise ValueError('\\udce9\\x1b[31mred' + 'x' * 10**7)
def pickles(): return object()

class A(Request, target=''): pass
"""
NAMES = [line.split("(")[0].removeprefix("def ") for line in MISDEEDS.splitlines() if line.startswith("def ")]


@pytest.fixture(scope="module")
def misdeeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module of requests, each to carry out a function of its own, where children find it, too."""
    folder = tmp_path_factory.mktemp("misdeeds")
    requests = "".join(
        f"class Do_{name}(Request, target='misdeeds:{name}'):\n    {'x: float = 9.0' if name == 'root' else 'pass'}\n"
        for name in NAMES
    )
    (folder / "misdeeds.py").write_text(MISDEEDS + requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("misdeeds")


@pytest.fixture(scope="module")
def host(misdeeds: ModuleType) -> Iterator[Host]:
    with Host(threads=1) as host:
        yield host


@pytest.fixture
def do(host: Host, misdeeds: ModuleType):
    def carry_out(name: str, limit: float = LIMIT, **options) -> Outcome:
        return host.call(getattr(misdeeds, f"Do_{name}")(), silence_limit=limit, **options)

    return carry_out


def test_a_value_comes_back(do) -> None:
    assert do("root").value == 3


def test_each_call_has_a_process_of_its_own(do) -> None:
    ids = {do("pid").value for _ in range(3)}
    assert len(ids) == 3
    assert os.getpid() not in ids


def test_a_child_keeps_what_it_was_given_until_it_is_closed(host: Host, misdeeds: ModuleType) -> None:
    child = host.fork(misdeeds.Do_counts)
    other = host.fork(misdeeds.Do_counts)
    counted = [one.call(misdeeds.Do_counts(), silence_limit=LIMIT).value for one in (child, child, other, child)]
    assert counted == [1, 2, 1, 3]
    for one in (child, other):
        one.close()


def test_a_signal_is_a_crash_and_the_host_goes_on(do) -> None:
    outcome = do("segfault")
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "SIGSEGV (memory it does not own)")
    assert do("root").value == 3


def test_leaving_without_a_word_is_a_crash(do) -> None:
    outcome = do("leaves")
    assert outcome.status == Status.CRASHED
    assert outcome.reason == "the process ended itself with exit code 0, as os._exit does, and exit() in C"


@pytest.mark.posix
def test_what_a_process_was_ended_by_is_explained(do) -> None:
    pytest.importorskip("resource", exc_type=ImportError)
    assert do("writes_much").reason == "SIGXFSZ (a file larger than `ulimit -f` allows)"
    assert do("closes_all").reason.startswith("the process closed its pipe to the suite, as os.closerange does")


def test_a_hang_is_ended(do) -> None:
    start = time.monotonic()
    assert do("hangs", 0.5).status == Status.TIMEOUT
    assert time.monotonic() - start < 30
    assert do("root").status == Status.OK


@pytest.mark.skipif("memory: a kernel" in str(missing()), reason="this system limits no memory")
def test_a_memory_hog_is_stopped(do) -> None:
    assert do("hoards", memory_limit=2**30).status == Status.OUT_OF_MEMORY


def test_a_missing_module_is_unavailable(do) -> None:
    assert do("absent").status == Status.UNAVAILABLE


def test_an_exception_is_an_error_with_its_place(do) -> None:
    outcome = do("raises")
    assert outcome.status == Status.ERROR
    assert outcome.reason.startswith("KeyError: 'lost' (misdeeds.py:")
    assert do("raises_two").reason.startswith(
        "ExceptionGroup: both (2 sub-exceptions); ValueError('one'); KeyError('two') (misdeeds.py:"
    )


def test_a_text_that_cannot_be_shown_is_made_so_and_cut(do) -> None:
    reason = do("speaks_badly").reason
    assert reason.startswith("ValueError: ?redxxx")
    assert len(reason) < 600
    assert reason.isprintable()


@pytest.mark.posix
def test_a_limit_of_processor_time_is_nobodys_fault(do) -> None:
    pytest.importorskip("resource", exc_type=ImportError)
    outcome = do("spins")
    assert (outcome.status, outcome.reason) == (
        Status.LOST,
        "SIGXCPU: it reached the limit of processor time (ulimit -t)",
    )


def test_sys_exit_is_no_way_out(do) -> None:
    outcome = do("exits")
    assert outcome.status == Status.ERROR
    assert "SystemExit: 5 (misdeeds.py:" in outcome.reason
    assert outcome.reason.endswith("belongs under `if __name__ == '__main__':`")


def test_what_is_no_json_is_an_error(do) -> None:
    assert do("pickles").status == Status.ERROR


def test_progress_arrives_and_is_a_sign_of_life(do) -> None:
    heard: list[int] = []
    assert (do("talks", 1.0, on_progress=heard.append).value, heard) == ("done", list(range(6)))


def test_a_kernels_prints_stay_off_stdout_and_of_many_the_first_are_shown(
    misdeeds: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with Host(threads=1) as host:  # whose streams are what they were when it was started
        assert host.call(misdeeds.Do_prints(), silence_limit=LIMIT).value == 1
        out, said = capfd.readouterr()
        assert (out, said) == ("", "noise\nmore noise\n")
        assert host.call(misdeeds.Do_prints_in_each_call(), silence_limit=LIMIT).status == Status.OK
    out, said = capfd.readouterr()
    assert out == ""
    assert said.startswith("noise 0\nnoise 1\n")
    assert said.count("noise 0\n") == said.count("what else it prints is left out") == 2
    assert len(said) < 3000


def test_every_pool_has_the_threads_asked_for(do) -> None:
    counts = do("pools", 60).value
    assert len(counts) >= 4
    assert set(counts) == {1}


def test_an_alarm_ends_its_own_child_alone(host: Host, misdeeds: ModuleType) -> None:
    alarmed, other = host.fork(), host.fork()
    assert alarmed.call(misdeeds.Do_alarms(), silence_limit=LIMIT).value == 1
    time.sleep(1.3)
    outcome = alarmed.call(misdeeds.Do_root(), silence_limit=LIMIT)
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "SIGALRM")
    assert other.call(misdeeds.Do_root(), silence_limit=LIMIT).value == 3
    other.close()


@forks
def test_all_descendants_end_with_their_child(do, host: Host) -> None:
    def alive() -> list[psutil.Process]:
        found = psutil.Process(host.pid).children(recursive=True)
        return [one for one in found if psutil.pid_exists(one.pid) and one.is_running()]

    assert do("breeds").value == 13
    deadline = time.monotonic() + 20
    while (left := alive()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


@forks
def test_a_copy_that_a_kernel_forked_does_not_answer_for_it(do) -> None:
    assert do("strays").value == "the one that was asked"


@forks
def test_what_a_kernel_disowns_is_ended_while_the_kernel_lives(host: Host, misdeeds: ModuleType) -> None:
    child, other = host.fork(), host.fork()
    disowned = psutil.Process(child.call(misdeeds.Do_disowns(), silence_limit=LIMIT).value)
    assert disowned.ppid() == host.pid
    host.end_strangers()
    disowned.wait(LIMIT)
    for one in (child, other):
        assert one.call(misdeeds.Do_root(), silence_limit=LIMIT).value == 3
        one.close()


@pytest.mark.posix
def test_who_was_stopped_goes_on_when_a_child_is_closed(host: Host, misdeeds: ModuleType) -> None:
    stopped, other = host.fork(), host.fork()
    os.kill(stopped.pid, signal.SIGSTOP)
    other.close()
    assert stopped.call(misdeeds.Do_root(), silence_limit=2.0).value == 3
    stopped.close()


@forks
def test_a_host_that_is_killed_is_nobodys_fault_and_is_tried_again(misdeeds: ModuleType) -> None:
    with Host(threads=1) as host:
        child = host.fork(misdeeds.Do_root)
        os.kill(host.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert child.call(misdeeds.Do_root(), silence_limit=LIMIT).status == Status.LOST
        assert host.call(misdeeds.Do_root(), silence_limit=LIMIT).value == 3
        assert child.call(misdeeds.Do_root(), silence_limit=LIMIT).status == Status.LOST


@pytest.mark.skipif("census" in str(missing()), reason="this system counts no processor time")
def test_processor_time_is_seen_from_outside(host: Host, misdeeds: ModuleType) -> None:
    child = host.fork()
    before = processor_s(child.pid)
    child.call(misdeeds.Do_speaks_badly(), silence_limit=LIMIT)
    assert 0 < processor_s(child.pid) - before < LIMIT
    child.close()


@forks
def test_nothing_outlives_its_host(misdeeds: ModuleType) -> None:
    with Host(threads=1) as doomed:
        pid = doomed.call(misdeeds.Do_parent(), silence_limit=LIMIT).value
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_every_request_names_a_function_that_takes_its_fields() -> None:
    import inspect
    from dataclasses import fields

    for request in Request.__subclasses__():
        if request.__module__ != Request.__module__:
            continue
        module, _, name = request.target.partition(":")
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        asked = {field.name for field in fields(request)}
        assert asked <= parameters.keys(), request
        needed = {name for name, one in parameters.items() if one.default is one.empty}
        assert needed - {"descriptors"} <= asked, request


def test_an_error_within_a_library_names_the_users_own_line(tmp_path: Path) -> None:
    (tmp_path / "own_line.py").write_text("import json\n\ndef fails():\n    json.loads('{')\n")
    with pytest.raises(ValueError, match="Expecting") as raised:
        runpy.run_path(str(tmp_path / "own_line.py"))["fails"]()
    assert describe(raised.value)[1].endswith("(own_line.py:4)")
