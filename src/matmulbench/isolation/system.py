"""What differs by operating system: how processes start, are watched, limited and ended, and what they share.

Built for Linux, macOS and Windows, and run on Linux alone. What a system cannot do is done without, and
:func:`missing` says so.
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from multiprocessing import connection, reduction
from typing import TypeAlias

import psutil

from matmulbench.errors import UsageError

if sys.platform == "win32":
    Connection: TypeAlias = connection.Connection | connection.PipeConnection  # of sockets, and of pipes
else:
    Connection: TypeAlias = connection.Connection
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CPU_CLOCK = 2  # CPUCLOCK_SCHED: the processor time of all threads of a process, in nanoseconds
_TICK_S, _MOMENT_S = 0.01, 1e-5  # the longest tick that Linux is built with
_SEAL_FUTURE_WRITE = 0x10  # whoever maps the file from now on can only read
_F_ADD_SEALS = 1033
NO_PIPE = 74  # with which a child ends that finds its pipe closed: EX_IOERR of sysexits.h
# What a process ends with that tells why: signals, exit codes, and Windows' exceptions, as unsigned numbers.
END_HINTS = {
    "SIGKILL": " (killed, probably for lack of memory)",
    "SIGSEGV": " (memory it does not own)",
    "SIGILL": " (an instruction that this processor does not have)",
    "SIGXFSZ": " (a file larger than `ulimit -f` allows)",
    0xC0000005: " (memory it does not own)",
    0xC00000FD: " (stack overflow)",
}


# --- starting ----------------------------------------------------------------------------------------


def start_method() -> str:
    """Return how children start: ``fork`` where that is safe, else ``spawn``, a fresh interpreter for each.

    The variable ``MATMULBENCH_START_METHOD`` chooses.

    Raises
    ------
    UsageError
        if it names none that this system has.
    """
    able = ("fork", "spawn") if hasattr(os, "fork") else ("spawn",)
    # macOS has fork, but its own libraries (Accelerate among them) need not survive it.
    method = os.environ.get("MATMULBENCH_START_METHOD") or ("spawn" if sys.platform == "darwin" else able[0])
    if method not in able:
        raise UsageError(f"MATMULBENCH_START_METHOD={method!r}: expected {' or '.join(able)} on this system")
    return method


def start_python(call: str, end: Connection, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start an interpreter that calls a function of ``isolation.serve`` with its ``end`` of a pipe.

    ``call`` is as ``live({}, 2**30)``; the braces stand for the handle, of which :func:`connect` makes the pipe again.
    """
    handle = end.fileno()
    # -P: a random.py where the user stands must not be taken for Python's own.
    arguments = ["-P", "-c", f"from matmulbench.isolation import serve; serve.{call.format(handle)}"]
    # Ctrl-C goes to the parent alone, which then ends its children in order.
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        # A virtual environment's python.exe starts another one, which would have the pipe, while we had its starter.
        return subprocess.Popen(
            [getattr(sys, "_base_executable", sys.executable), *arguments],
            env=environment | {"__PYVENV_LAUNCHER__": sys.executable},
            startupinfo=startup,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
            stdin=subprocess.DEVNULL,
        )
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        pass_fds=[handle],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )


def quoted(argument: str) -> str:
    """Return an argument as this system's shells take it, in a command that is printed to be typed."""
    return subprocess.list2cmdline([argument]) if sys.platform == "win32" else shlex.quote(argument)


def connect(handle: int) -> Connection:
    """Return the pipe whose ``handle`` this process was started with."""
    if sys.platform == "win32":
        return connection.PipeConnection(handle)
    os.set_inheritable(handle, False)
    return connection.Connection(handle)


# --- ending ------------------------------------------------------------------------------------------


def die_with_parent() -> None:
    """End this process when its parent ends; where Linux runs, it also takes in the orphans of its descendants."""
    with suppress(OSError, AttributeError, TypeError):  # AttributeError, TypeError: no Linux
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, 9)
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        return

    def follow(parent: int) -> None:
        with suppress(psutil.Error):
            process = psutil.Process(parent)
            while os.getppid() == parent and process.is_running():  # Windows gives a child no other parent
                time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()


def kill(pid: int) -> None:
    """Kill a process, its descendants in whatever session they are, and what else is of its process group."""
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, 9)
    with suppress(psutil.Error):
        psutil.Process(pid).kill()


def kill_children(pid: int, spare: set[int]) -> list[int]:
    """Kill all children of ``pid`` but those of ``spare``, with their descendants; return which."""
    killed = [child for child in _children(pid) if child not in spare]
    for child in killed:
        kill(child)
    return killed


def _children(pid: int) -> list[int]:
    # A hundred times faster than psutil, where Linux was built with it.
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def resume(pid: int) -> None:
    """Let a process go on that was stopped."""
    with suppress(psutil.Error):
        psutil.Process(pid).resume()


# --- limiting ----------------------------------------------------------------------------------------


def limit(memory: int) -> None:
    """Let this process take at most ``memory`` bytes of address space beyond what it has, and leave no core dump.

    Where its processor time is limited, a signal says so a second earlier: at the limit it would be killed without.
    """
    if sys.platform == "win32" or resource is None:
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if hard != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_CPU, (max(1, min(hard - 1, soft % 2**63)), hard))
    with suppress(OSError, ValueError, psutil.Error):
        taken = psutil.Process().memory_info().vms
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = [value for value in (taken + memory, soft, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min(wanted), hard))


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    with suppress(AttributeError):  # macOS
        return sorted(psutil.Process().cpu_affinity())
    return list(range(os.cpu_count() or 1))


def pin(pid: int, core: int) -> None:
    """Keep the first thread of a process, on Windows all of them, to one core, where that can be done."""
    with suppress(OSError, AttributeError, psutil.Error):
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(pid, {core})
        else:
            psutil.Process(pid).cpu_affinity([core])


def protect(start: int, length: int, readable: bool) -> None:
    """Let nobody write the pages at the address ``start``, nor read them, unless they are to be ``readable``.

    Raises
    ------
    OSError
        if the system does not do it.
    """
    if sys.platform == "win32":
        no_access, read_only, before = 1, 2, ctypes.c_ulong()
        change = ctypes.windll.kernel32.VirtualProtect
        mode = read_only if readable else no_access
        if not change(ctypes.c_void_p(start), ctypes.c_size_t(length), mode, ctypes.byref(before)):
            raise ctypes.WinError()
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.PROT_READ if readable else 0):
        error = ctypes.get_errno()
        raise OSError(error, f"mprotect: {os.strerror(error)}")


# --- watching ----------------------------------------------------------------------------------------


def wait_until_asleep(pid: int) -> None:
    """Wait until the first thread of ``pid`` sleeps, or has run for a tick of the system's.

    Only then :func:`processor_s` is exact: Linux adds up what a thread uses where it stops and at each tick. A process
    that has just sent something is still at work for a moment, while the receiver reads it.
    """
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
        deadline = time.perf_counter() + _TICK_S
        while time.perf_counter() < deadline and stat.read().rpartition(b") ")[2][:1] == b"R":
            stat.seek(0)
            time.sleep(_MOMENT_S)  # it may want this core


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that all threads of ``pid`` have used; NaN where that cannot be asked."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            return time.clock_gettime((~pid << 3) | _CPU_CLOCK)  # as clock_getcpuclockid(3) makes it
    elif sys.platform == "darwin":  # Windows counts ticks of 16 ms
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            return float(times.user + times.system)
    return math.nan


def descendants_s(pid: int) -> float:
    """Return the seconds of processor time of all descendants of ``pid``, living or waited for."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        times = process.cpu_times()
        living = process.children(recursive=True)
        waited: float = times.children_user + times.children_system
        return waited + sum(used for child in living if (used := processor_s(child.pid)) == used)
    return 0.0


def delay_s(pid: int | str = "thread-self") -> float:
    """Return the seconds that the first thread of ``pid`` has waited for a core; 0 where Linux does not count them."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/schedstat") as schedstat:
        return int(schedstat.read().split()[1]) / 1e9
    return 0.0


def waits() -> int | None:
    """Return how often this thread gave up its core by itself; None where that is not counted."""
    if sys.platform == "win32" or resource is None or not hasattr(resource, "RUSAGE_THREAD"):
        return None
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


# --- sharing -----------------------------------------------------------------------------------------


def shared_file(size: int) -> int:
    """Return the descriptor of a fresh file of ``size`` bytes that has no name: in memory, where Linux runs."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("matmulbench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise UsageError(f"{size:,} bytes are to be shared in memory, a limit (ulimit -f) allows fewer") from None
    return descriptor


def seal(descriptor: int) -> None:
    """Let nobody map a shared file to write who has not done so already."""
    if sys.platform == "linux":
        with suppress(OSError, ImportError):
            from fcntl import fcntl

            fcntl(descriptor, _F_ADD_SEALS, _SEAL_FUTURE_WRITE)


def send_descriptor(pipe: Connection, descriptor: int, pid: int) -> None:
    """Give the process ``pid``, at the other end of ``pipe``, a file of this one's.

    Raises
    ------
    OSError
        if that process has ended.
    """
    if sys.platform == "win32":
        import msvcrt

        assert isinstance(pipe, connection.PipeConnection)
        reduction.send_handle(pipe, msvcrt.get_osfhandle(descriptor), pid)
        return
    try:
        reduction.send_handle(pipe, descriptor, pid)
    except RuntimeError as error:  # on macOS, where files are acknowledged
        raise BrokenPipeError(str(error)) from None


def receive_descriptor(pipe: Connection) -> int:
    """Take what :func:`send_descriptor` sent."""
    if sys.platform == "win32":
        import msvcrt

        assert isinstance(pipe, connection.PipeConnection)
        return msvcrt.open_osfhandle(reduction.recv_handle(pipe), os.O_RDWR | os.O_BINARY)
    return reduction.recv_handle(pipe)


# --- what is missing ---------------------------------------------------------------------------------


def missing() -> list[str]:
    """Return what this system does without, and what follows from it; nothing on Linux where it forks."""
    linux, windows = sys.platform == "linux" and resource is not None, sys.platform == "win32"
    spawns = start_method() == "spawn"
    lacking = {
        "fork: every process starts afresh, which takes seconds": spawns,
        "a limit of memory: a kernel that takes too much may take the machine with it": not linux,
        "pinning: turns of a round may take place on different cores": not (
            hasattr(os, "sched_setaffinity") or windows
        ),
        "a census of processor time: more threads than asked for, and work out of turn, go unseen": math.isnan(
            processor_s(os.getpid())
        ),
        "a count of waits for a core: what other programs took of a block is not told from the kernel's own": waits()
        is None,
        "a seal on shared operands: a kernel that means to could write to them": not hasattr(os, "memfd_create"),
        "orphans' return: processes that a kernel starts and disowns go unseen": spawns or not linux,
        "the peak of memory: how much a kernel takes beside its operands is not predicted": not linux,
        "the sizes of caches: the roof knows the memory's bandwidth alone": not linux and sys.platform != "darwin",
    }
    return [f"this system lacks {text}" for text, lacks in lacking.items() if lacks]
