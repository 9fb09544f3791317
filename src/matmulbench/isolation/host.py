"""The parent's side of the process boundary: a host, its children, and what became of a request."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, Self

from matmulbench.isolation import system
from matmulbench.isolation.environment import DROPPED, thread_environment
from matmulbench.isolation.requests import Request
from matmulbench.isolation.system import Connection
from matmulbench.status import Status

DEFAULT_MEMORY_LIMIT = 16 * 2**30
_IMPORT_LIMIT = 120.0
IMPORT_S = 20.0  # that a user's import may take, if nothing else is asked for
_SLICE = 0.5
_CLOSED_PIPE = "the process closed its pipe to the suite, as os.closerange does: close what is your own alone"
_LONGEST_ANSWER = 2**28  # bytes

Progress = Callable[[Any], None]


@dataclass
class Outcome:
    """What became of one request: ``value`` where the status is ``ok``, else a ``reason`` in words."""

    status: Status
    value: Any = None
    reason: str | None = None


class LostError(Exception):
    """The suite's own processes ended: nobody's kernel is to blame."""


class Host:
    """What starts children with ``threads`` threads per pool: a process that forks them, where forking is safe.

    Elsewhere each child is a fresh interpreter; :func:`~matmulbench.isolation.system.start_method` says which.
    ``import_s`` is how many seconds the import of a user's kernel or model may take in each of them; ``spin`` says
    whether threads that wait do so busily, as befits timing; ``variables`` are more of its environment.
    Use as a context manager, or :meth:`close` it.
    """

    def __init__(
        self,
        threads: int = 1,
        import_s: float = IMPORT_S,
        spin: bool = True,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.threads, self.import_s, self.spin, self.variables = threads, import_s, spin, variables or {}
        self._forks = system.start_method() == "fork"
        self._process: subprocess.Popen[bytes] | None = None
        self.control: Connection | None = None  # becomes readable when a forked child ends, or the host
        self._ended: dict[int, int] = {}  # pid: exit code, negative for a signal
        self._forked: set[int] = set()
        self._reading = threading.Lock()  # children may be waited for at the same time
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        self._modules: dict[str, None] = {}  # what a child that is not forked imports first
        self._first: Request | None = None  # and carries out
        self.waited_s = 0.0  # for such children to start: no budget is to be charged with it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the host; children still running are killed with it."""
        self.end_children()
        if self._process and self._process.poll() is None:
            system.kill(self._process.pid)
            self._process.wait()
        if self.control:
            self.control.close()
        self._process, self.control, self._spawned = None, None, {}

    @property
    def pid(self) -> int | None:
        """The process that forks, where one runs."""
        return self._process.pid if self._process else None

    @property
    def used_s(self) -> float:
        """Seconds of processor time that host and children have used; NaN where nobody counts those that ended."""
        if not self._forks:
            return math.nan
        return system.processor_s(self.pid) + system.descendants_s(self.pid) if self.pid else 0.0

    def end_children(self) -> None:
        """Kill all children, and what they started; the host stays."""
        if self.pid:
            system.kill_children(self.pid, spare=set())
        for process in self._spawned.values():
            if process.poll() is None:
                system.kill(process.pid)
                process.wait()

    def _start_python(self, call: str) -> tuple[Connection, subprocess.Popen[bytes]]:
        environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
        ours, theirs = Pipe()
        with theirs:
            variables = environment | thread_environment(self.threads, self.spin) | self.variables
            return ours, system.start_python(call, theirs, variables)

    def _start(self) -> Connection:
        if not (self.control and self._process and self._process.poll() is None):
            self.close()
            self.control, self._process = self._start_python("serve({})")
            self._ended, self._forked = {}, set()
        return self.control

    def warm(self, *requests: type[Request], first: Request | None = None) -> None:
        """Start the host and let it import what ``requests`` need, without waiting for it.

        ``first`` is carried out in the host itself, so that all its children find it done: no kernel may be in it.
        Where children are not forked, each does both as it starts.
        """
        modules = [request.module() for request in (*requests, *([type(first)] if first else []))]
        if self._forks:
            self._start().send((modules, first, None))
        self._modules |= dict.fromkeys(modules)
        self._first = first or self._first

    def fork(self, *requests: type[Request], memory_limit: int = DEFAULT_MEMORY_LIMIT) -> Child:
        """Start a child that finds imported what ``requests`` need, and may take ``memory_limit`` bytes more.

        Raises
        ------
        LostError
            if the host ended instead, twice.
        """
        if not self._forks:
            self._modules |= dict.fromkeys(request.module() for request in requests)
            return self._spawn(memory_limit)
        for _ in range(2):
            ours, theirs = Pipe()
            try:
                control = self._start()
                control.send(([request.module() for request in requests], None, memory_limit))
                system.send_descriptor(control, theirs.fileno(), 0)
                while True:
                    if not is_readable([control], _IMPORT_LIMIT):
                        break
                    pid, code = control.recv()
                    if code is None:
                        self._forked.add(pid)
                        return Child(self, pid, ours)
                    self._ended[pid] = code
            except (EOFError, ConnectionError):
                pass
            finally:
                theirs.close()
            ours.close()
            self.close()
        raise LostError("the process that forks the children ended, or did not start")

    def _spawn(self, memory_limit: int) -> Child:
        began = time.perf_counter()
        ours, process = self._start_python(f"live({{}}, {memory_limit})")
        self._spawned[process.pid] = process
        try:
            ours.send((list(self._modules), self._first))
            started = is_readable([ours], _IMPORT_LIMIT) and ours.recv_bytes()
        except (EOFError, ConnectionError):
            started = b""
        child = Child(self, process.pid, ours)
        if not started:
            child.close()
            raise LostError("a process of the suite's own ended as it started, or did not start")
        self.waited_s += time.perf_counter() - began
        return child

    def call(
        self,
        request: Request,
        *,
        silence_limit: float,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        on_progress: Progress = lambda progress: None,
        descriptors: Sequence[int] = (),
    ) -> Outcome:
        """Carry out ``request`` in a fresh child, as :meth:`try_child` does; see :meth:`Child.call`."""

        def use(child: Child) -> Outcome:
            return child.call(request, silence_limit=silence_limit, on_progress=on_progress, descriptors=descriptors)

        return self.try_child(use, type(request), memory_limit=memory_limit)

    def try_child(
        self, use: Callable[[Child], Outcome], *requests: type[Request], memory_limit: int = DEFAULT_MEMORY_LIMIT
    ) -> Outcome:
        """Return what becomes of ``use`` with a fresh child, or with a second one where the first is lost or killed."""
        for _ in range(2):
            try:
                with closing(self.fork(*requests, memory_limit=memory_limit)) as child:
                    outcome = use(child)
            except LostError as error:
                return Outcome(Status.LOST, reason=str(error))
            if not (outcome.status == Status.LOST or child.killed):
                break
        return outcome

    def end_strangers(self) -> None:
        """Kill what a kernel started and handed to the host, as if it were none of its own."""
        if self.pid:
            system.kill_children(self.pid, spare=self._forked)

    def resume_children(self) -> None:
        """Let all children go on that a kernel may have stopped."""
        spawned = {pid for pid, process in self._spawned.items() if process.poll() is None}
        for pid in (self._forked - self._ended.keys()) | spawned:
            system.resume(pid)

    def take_notice(self, pid: int) -> int | None:
        """Return the exit code of the child ``pid`` if it has ended; for a signal, minus its number.

        Raises
        ------
        LostError
            if the host has.
        """
        if pid in self._spawned:
            return self._spawned[pid].poll()
        try:
            with self._reading:
                while self.control and self.control.poll():
                    ended, code = self.control.recv()
                    self._ended[ended] = code
        except (EOFError, ConnectionError):
            raise LostError("the process that forks the children ended") from None
        if not self.control:
            raise LostError("the process that forks the children was closed")
        return self._ended.get(pid)


class Child:
    """A process that carries out one request after another, and keeps what they leave, until it is closed.

    Attributes
    ----------
    pid
        of the process.
    killed
        whether it ended by SIGKILL that was not sent from here: for want of memory, or by someone else.
    """

    def __init__(self, host: Host, pid: int, pipe: Connection) -> None:
        self.host, self.pid, self._pipe = host, pid, pipe
        self._host_pid = host.pid
        self.killed = False

    @property
    def pids(self) -> list[int]:
        """The processes that it consists of."""
        return [self.pid]

    def call(
        self,
        request: Request,
        *,
        silence_limit: float,
        on_progress: Progress = lambda progress: None,
        on_ready: Callable[[], bytes] = lambda: b"go",
        descriptors: Sequence[int] = (),
    ) -> Outcome:
        """Carry out ``request`` in this child and wait for its answer.

        ``on_ready`` is called when the child waits for the word to go on, and returns it.

        ``silence_limit`` is how many seconds may pass without a sign of life from the child; then it is killed. The
        host's ``import_s`` comes before the first one, where ``request`` imports what a user wrote.
        ``descriptors`` are of files that travel with the request. ``on_progress`` is called with what is sent
        meanwhile. A status of ``lost`` means that the host died, which is no fault of the child's.
        """
        limit, seen, remedy = silence_limit, "no sign of life for", ""
        if request.imports:
            limit, remedy = self.host.import_s, "; --import-timeout gives it more"
            if request.reports_import:
                seen = "its import takes longer than"
            else:
                limit += silence_limit
        try:
            self._pipe.send((request, len(descriptors)))
            for descriptor in descriptors:
                system.send_descriptor(self._pipe, descriptor, self.pid)
            while True:
                ended = self._notice()
                if not self._pipe.poll():
                    if ended is not None:
                        return self._end(ended)
                    if not is_readable([self._pipe, *([self.host.control] if self.host.control else [])], limit):
                        self.close()
                        return Outcome(Status.TIMEOUT, reason=f"{seen} {limit:g} s{remedy}")
                    if not self._pipe.poll():
                        continue
                kind, content = self._read()
                if kind == "answer":
                    return Outcome(*content)
                if kind == "ready":
                    self._pipe.send_bytes(on_ready())
                else:
                    limit, seen, remedy = silence_limit, "no sign of life for", ""
                    on_progress(content)
        except LostError as error:
            return Outcome(Status.LOST, reason=str(error))
        except (EOFError, OSError):  # closed here already, or by the child's end
            return self._wait_for_end()
        except BaseException:
            self.close()
            raise

    def _read(self) -> tuple[str, Any]:
        """Return a message's kind and content; of an answer, the fields of an outcome."""
        try:
            kind, content = json.loads(self._pipe.recv_bytes(_LONGEST_ANSWER))
            if kind == "answer":
                status, value, reason = content
                content = Status(status), value, reason
        except (ValueError, TypeError):
            self.close()
            return "answer", (Status.ERROR, None, "the process sent something else than an answer")
        return kind, content

    def _notice(self) -> int | None:
        if self.host.pid != self._host_pid:
            raise LostError("the process that forked this child ended")
        return self.host.take_notice(self.pid)

    def close(self) -> None:
        """End the process and all that it started."""
        system.kill(self.pid)
        self._pipe.close()
        self.host.resume_children()

    def _wait_for_end(self) -> Outcome:
        """Return how a child ended whose pipe is closed."""
        try:
            for _ in range(500):
                if (ended := self._notice()) is not None:
                    return self._end(ended)
                time.sleep(0.02)
        except LostError as error:
            return Outcome(Status.LOST, reason=str(error))
        self.close()
        return Outcome(Status.CRASHED, reason=_CLOSED_PIPE)

    def _end(self, code: int) -> Outcome:
        self._pipe.close()
        if code == system.NO_PIPE:
            return Outcome(Status.CRASHED, reason=_CLOSED_PIPE)
        if code >= 0:
            hint = system.END_HINTS.get(code, ", as os._exit does, and exit() in C")
            return Outcome(Status.CRASHED, reason=f"the process ended itself with exit code {code}{hint}")
        self.killed = -code == 9
        name = signal.Signals(-code).name
        if name == "SIGXCPU":
            return Outcome(Status.LOST, reason=f"{name}: it reached the limit of processor time (ulimit -t)")
        return Outcome(Status.CRASHED, reason=f"{name}{system.END_HINTS.get(name, '')}")


def is_readable(pipes: list[Connection], limit: float) -> bool:
    """Wait ``limit`` seconds for a message, in slices that count for what was asked, not for what a clock says.

    A virtual machine may stand still for minutes: then all clocks jump, and the silence is not the child's.
    """
    slices = max(1, round(limit / _SLICE))
    return any(wait(pipes, limit / slices) for _ in range(slices))
