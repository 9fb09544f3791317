"""The process boundary: kernels run in children whose threads are fixed before torch, numpy or numba load.

A :class:`Host` is one Python process with a fixed thread count. It imports what a call needs, then *forks* a
child for each call, so that a fresh process costs milliseconds instead of the seconds that importing torch takes.
A child that raises, crashes, hangs or eats memory becomes an :class:`Outcome` with a status and a reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

from matmulbench.errors import UsageError
from matmulbench.results.schema import Status

# torch, numpy's OpenBLAS, MKL and numba each keep a pool of their own; pinning one leaves the others.
_POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Threads that wait spin first: for milliseconds, by default, in which they take the cores from the next library's.
# These are some tenths of a millisecond: long enough from one call to the next, short against a block.
_PATIENCE = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1", "OPENBLAS_THREAD_TIMEOUT": "20"}
# glibc gives freed memory back to the system or keeps it, as the heap happens to lie; to get it anew takes longer than
# many a product. Kept, a result's memory serves again, whichever kernel comes next.
_KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
DEFAULT_MEMORY_LIMIT = 16 * 2**30
_IMPORT_LIMIT = 120.0
_SLICE = 0.5
_PR_SET_PDEATHSIG = 1


@dataclass
class Outcome:
    """What became of one call: ``value`` where the status is ``ok``, else a ``reason`` in words."""

    status: Status
    value: Any = None
    reason: str | None = None


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables, to be set before a process starts, that fix every pool's threads and keep freed memory."""
    return dict.fromkeys(_POOLS, str(threads)) | {"MKL_DYNAMIC": "FALSE"} | _PATIENCE | _KEEPING


class Host:
    """A process with ``threads`` threads per pool that forks a child for each call.

    Use as a context manager, or :meth:`close` it.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the host; a child still running is killed."""
        if self._process:
            self._process.kill()
            self._process.wait()
        if self._pipe:
            self._pipe.close()
        self._process = self._pipe = None

    def _start(self) -> Connection:
        if self._pipe and self._process and self._process.poll() is None:
            return self._pipe
        self.close()
        ours, theirs = Pipe()
        environment = os.environ | thread_environment(self.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from matmulbench.isolation import _serve; _serve({theirs.fileno()})"],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C goes to the parent alone, which then ends its children in order
        )
        theirs.close()
        self._pipe = ours
        return ours

    def warm(self, *modules: str) -> None:
        """Start the host and let it import ``modules``, without waiting for it."""
        self._start().send((None, modules, 0))

    def call(
        self,
        target: str,
        *args: Any,
        silence_limit: float,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        listen: Callable[[Any], None] = lambda message: None,
    ) -> Outcome:
        """Run ``target`` (``package.module:function``) on ``args`` in a fresh child.

        ``silence_limit`` is how many seconds may pass without a :func:`say` from the child; then it is killed.
        ``memory_limit`` is how many bytes it may take beyond those of the host. ``listen`` hears each message.
        """
        pipe = self._start()
        child: int | None = None
        answer: Outcome | None = None
        try:
            pipe.send((target, args, memory_limit))
            while True:
                # Importing, before the fork, is not the kernel's time.
                if not _hears(pipe, silence_limit if child else _IMPORT_LIMIT):
                    answer = Outcome(Status.TIMEOUT, reason=f"no sign of life for {silence_limit:g} s")
                    if not child:
                        self.close()
                        return answer
                    _kill(child)
                kind, content = pipe.recv()
                if kind == "started":
                    child = content
                elif kind == "said":
                    listen(content)
                elif kind == "answer":
                    answer = content
                elif kind == "ended":
                    return answer or _crash(content)
        except (EOFError, ConnectionError):
            self.close()
            return Outcome(Status.CRASHED, reason="the process and its host died")
        except BaseException:
            self.close()
            _kill(child)
            raise


def _hears(pipe: Connection, limit: float) -> bool:
    """Wait ``limit`` seconds for a message, in slices that count for what was asked, not for what a clock says.

    A virtual machine may stand still for minutes: then all clocks jump, and the silence is not the child's.
    """
    slices = max(1, round(limit / _SLICE))
    return any(pipe.poll(limit / slices) for _ in range(slices))


def _kill(child: int | None) -> None:
    if child:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)


def _crash(wait_status: int) -> Outcome:
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return Outcome(Status.CRASHED, reason=f"the process ended itself with exit code {code}")
    name = signal.Signals(-code).name
    hint = {"SIGKILL": " (killed, probably for lack of memory)", "SIGSEGV": " (memory it does not own)"}.get(name, "")
    return Outcome(Status.CRASHED, reason=f"{name}{hint}")


# --- the host's and the child's side -----------------------------------------------------------------

_to_parent: Connection | None = None


def say(message: Any) -> None:
    """Send ``message`` to the parent: a sign of life, and word of what is being done. Silent in no child."""
    if _to_parent:
        _to_parent.send(("said", message))


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, so that a killed run leaves nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(descriptor: int) -> None:
    _die_with_parent()
    pipe = Connection(descriptor)
    while True:
        try:
            target, args, memory_limit = pipe.recv()
        except (EOFError, ConnectionError):
            return
        # Imported here, once, so that every child forked hereafter has it already.
        for module in args if target is None else [target.partition(":")[0]]:
            importlib.import_module(module)
        if target is None:
            continue
        gc.collect()
        gc.freeze()
        with warnings.catch_warnings():
            # BLAS pools make the process multi-threaded; they install fork handlers of their own.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _run(pipe, target, args, memory_limit)
        _, status = os.waitpid(child, 0)
        pipe.send(("ended", status))


def _run(pipe: Connection, target: str, args: tuple[Any, ...], memory_limit: int) -> None:
    """Be the child: call, answer, leave."""
    global _to_parent
    _die_with_parent()
    pipe.send(("started", os.getpid()))
    os.setsid()  # so that a kernel's own children die with it
    os.dup2(2, 1)  # what a kernel prints must not mix with data on stdout
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory(memory_limit)
    _to_parent = pipe
    module, _, function = target.partition(":")
    try:
        value = getattr(importlib.import_module(module), function)(*args)
        pipe.send(("answer", Outcome(Status.OK, value)))
    except BaseException as error:
        pipe.send(("answer", describe(error)))
    os._exit(0)


def limit_memory(limit: int) -> None:
    """Let this process take at most ``limit`` bytes of address space beyond what it has."""
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + limit, resource.RLIM_INFINITY))


def describe(error: BaseException) -> Outcome:
    """Turn an exception into a status and a one-line reason that says where it was raised."""
    text = " ".join("; ".join([str(error), *getattr(error, "__notes__", ())]).split())
    memory = isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory" in text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, ImportError):
        return Outcome(Status.UNAVAILABLE, reason=text)
    if isinstance(error, UsageError):
        return Outcome(Status.ERROR, reason=text)
    return Outcome(Status.OUT_OF_MEMORY if memory else Status.ERROR, reason=f"{type(error).__name__}: {text}{where}")
