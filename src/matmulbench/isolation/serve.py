"""The host's and the child's side of the process boundary."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import importlib
import io
import json
import os
import signal
import socket
import sys
import sysconfig
import traceback
import warnings
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError, printable
from matmulbench.isolation import system
from matmulbench.isolation.requests import Request
from matmulbench.isolation.system import Connection
from matmulbench.ladder.plugins import stand_here
from matmulbench.status import Status

_NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")  # in torch's messages
_OURS = (str(Path(__file__).parents[1]) + os.sep, "<frozen ")
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_to_parent: Connection | None = None
_pid = 0


def send(progress: Any, kind: str = "progress") -> None:
    """Send ``progress`` to the parent: a sign of life, and word of what is being done. Silent in no child."""
    if _to_parent:
        if os.getpid() != _pid:  # a kernel forked it, and an exception led it out of the kernel
            os._exit(1)
        _to_parent.send_bytes(json.dumps([kind, progress]).encode())


def wait_for_go() -> bytes:
    """Tell the parent that all is laid out, and wait for its word, which is returned.

    The time from the last word on is seen from outside, too.
    """
    if not _to_parent:
        return b""
    send(None, "ready")
    return _to_parent.recv_bytes()


def serve(handle: int) -> None:
    """Be the host: import modules, fork children, and report how they end, until the parent closes the pipe."""
    if sys.platform == "win32":  # where nothing is forked
        return
    system.die_with_parent()
    stand_here()
    control = system.connect(handle)
    ended, wakeup = socket.socketpair()
    ended.setblocking(False)
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    children: set[int] = set()
    while True:
        if ended in wait([control, ended]):
            with contextlib.suppress(BlockingIOError):
                ended.recv(4096)
            dead = [(pid, status) for pid, status in (os.waitpid(one, os.WNOHANG) for one in children) if pid]
            children -= {pid for pid, _ in dead}
            # Whoever ended: what was being forked meanwhile has no parent but this process.
            for orphan in system.kill_children(os.getpid(), spare=children):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(orphan, 0)
            for pid, status in dead:
                control.send((pid, os.waitstatus_to_exitcode(status)))
            continue
        try:
            modules, request, memory_limit = control.recv()
            pipe = system.connect(system.receive_descriptor(control)) if memory_limit is not None else None
        except (EOFError, ConnectionError):
            return
        _prepare(modules, request)  # here, once, so that every child forked hereafter has it already
        if pipe is None:
            continue
        gc.collect()
        gc.freeze()
        with warnings.catch_warnings():
            # BLAS pools make the process multi-threaded; they install fork handlers of their own.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            ended.close()
            wakeup.close()
            system.die_with_parent()
            _live(pipe, memory_limit)
        pipe.close()
        children.add(child)
        control.send((child, None))


def _prepare(modules: list[str], request: Request | None) -> None:
    for module in modules:
        importlib.import_module(module)
    if request:
        with contextlib.suppress(Exception):  # a child that needs it will say what is wrong
            request.carry_out([])


def live(handle: int, memory_limit: int) -> None:
    """Be a child that was not forked: prepare, say so, and go on as one that was."""
    system.die_with_parent()
    stand_here()
    pipe = system.connect(handle)
    try:
        modules, request = pipe.recv()
        _prepare(modules, request)
        pipe.send_bytes(b"started")
    except (EOFError, ConnectionError):  # the parent has gone meanwhile
        os._exit(0)
    _live(pipe, memory_limit)


def _live(pipe: Connection, memory_limit: int) -> None:
    """Be a child: carry out requests until the parent closes the pipe."""
    global _to_parent, _pid
    _set_up(memory_limit)
    _to_parent, _pid = pipe, os.getpid()
    while True:
        try:
            request, descriptors = pipe.recv()
            handles = [system.receive_descriptor(pipe) for _ in range(descriptors)]
            send(_carry_out(request, handles), "answer")
        except (EOFError, OSError) as error:
            os._exit(system.NO_PIPE if getattr(error, "errno", 0) == errno.EBADF else 0)


def _carry_out(request: Request, descriptors: list[int]) -> tuple[Status, Any, str | None]:
    """Return status, value and reason."""
    try:
        value = request.carry_out(descriptors)
        json.dumps(value)
    except BaseException as error:
        status, reason = describe(error)
        return status, None, reason
    return Status.OK, value, None


class _Outlet(io.TextIOWrapper):
    """What a process prints: the first of it, for a kernel may print in each of a million calls."""

    left = 1000  # characters

    def write(self, text: str, /) -> int:
        if len(text) <= self.left:
            self.left -= super().write(text)
        elif self.left >= 0:
            super().write(text[: self.left] + "\n[what else it prints is left out]\n")
            self.left = -1
        return len(text)


def _set_up(memory_limit: int) -> None:
    """Make this process the child that it should be; what cannot be had is done without."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.setsid()  # so that a kernel's own children die with it
    try:
        os.dup2(2, 1)  # what a kernel prints must not mix with data on stdout
    except OSError:  # standard error is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    # Made anew, for Python has kept whether the old one was a file. What cannot be encoded is no error, as on stderr.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for number, name in enumerate(("stdout", "stderr"), 1):
        raw = open(number, "wb", closefd=False)  # noqa: SIM115  # for good
        setattr(sys, name, _Outlet(raw, encoding, "backslashreplace", line_buffering=True))
    _warn_once()
    faulthandler.disable()
    system.limit(memory_limit)


def _warn_once() -> None:
    """Show each warning once: Python forgets which it has shown wherever a library changes its filters for a while."""
    show, shown = warnings.showwarning, set()

    def once(message: Any, *where: Any) -> None:
        if (warning := (str(message), *where[:3])) not in shown:
            shown.add(warning)
            show(message, *where)

    warnings.showwarning = once  # type: ignore[assignment]  # which is called with all of them, in this order


def _place(error: BaseException) -> traceback.FrameSummary | None:
    """Return the last line of the user's own that led to an error; else of a library's, but none of the suite's."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(_OURS)]
    own = [each for each in frames if not each.filename.startswith(_LIBRARIES)]
    return next(reversed(own or frames), None)


def describe(error: BaseException) -> tuple[Status, str]:
    """Turn an exception into a status and a one-line reason that says where it was raised."""
    try:
        notes = [printable(note) for note in getattr(error, "__notes__", ())]
        if isinstance(error, SystemExit):
            notes.append("sys.exit ends a program; what a file does as one belongs under `if __name__ == '__main__':`")
        inner = [repr(one) for one in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
        text = printable("; ".join([str(error), *inner]), 300 if notes else 500)
    except Exception:  # a kernel's own exception may not even have a text
        text, notes = "an exception without a text", []
    memory = isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)
    place = _place(error)
    where = f" ({os.path.basename(place.filename)}:{place.lineno})" if place else ""
    plain = isinstance(error, ImportError | UsageError)
    status = Status.UNAVAILABLE if isinstance(error, ImportError) else Status.OUT_OF_MEMORY if memory else Status.ERROR
    # Advice comes last, and is never cut for length.
    return status, "; ".join([text if plain else f"{type(error).__name__}: {text}{where}", *notes])
