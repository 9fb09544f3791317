"""The parent's side of the process boundary: a host, its children, and what became of a request."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any, Self

from matmulbench.isolation.census import end_children, end_descendants
from matmulbench.isolation.environment import DROPPED, thread_environment
from matmulbench.isolation.requests import Request
from matmulbench.status import Status

DEFAULT_MEMORY_LIMIT = 16 * 2**30
_IMPORT_LIMIT = 120.0
IMPORT_S = 20.0  # that a user's import may take, if nothing else is asked for
_SLICE = 0.5
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
    """A process with ``threads`` threads per pool that forks children.

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
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._ended: dict[int, int] = {}  # pid: wait status
        self._forked: set[int] = set()
        self._reading = threading.Lock()  # children may be waited for at the same time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the host; children still running are killed with it."""
        if self._process:
            end_descendants(self._process.pid)
            self._process.kill()
            self._process.wait()
        if self._control:
            self._control.close()
        self._process = self._control = None

    @property
    def pid(self) -> int | None:
        """The host's process, where it runs."""
        return self._process.pid if self._process else None

    def _start(self) -> Connection:
        if self._control and self._process and self._process.poll() is None:
            return self._control
        self.close()
        ours, theirs = Pipe()
        environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
        self._process = subprocess.Popen(
            # -P: a random.py where the user stands must not be taken for Python's own.
            [sys.executable, "-P", "-c", f"from matmulbench.isolation.serve import serve; serve({theirs.fileno()})"],
            env=environment | thread_environment(self.threads, self.spin) | self.variables,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C goes to the parent alone, which then ends its children in order
        )
        theirs.close()
        self._control, self._ended, self._forked = ours, {}, set()
        return ours

    def warm(self, *requests: type[Request], first: Request | None = None) -> None:
        """Start the host and let it import what ``requests`` need, without waiting for it.

        ``first`` is carried out in the host itself, so that all its children find it done: no kernel may be in it.
        """
        modules = [request.module() for request in (*requests, *([type(first)] if first else []))]
        self._start().send((modules, first, None))

    def fork(self, *requests: type[Request], memory_limit: int = DEFAULT_MEMORY_LIMIT) -> Child:
        """Fork a child that finds imported what ``requests`` need, and may take ``memory_limit`` bytes more.

        Raises
        ------
        LostError
            if the host ended instead, twice.
        """
        for _ in range(2):
            ours, theirs = Pipe()
            try:
                control = self._start()
                control.send(([request.module() for request in requests], None, memory_limit))
                send_handle(control, theirs.fileno(), 0)
                while True:
                    if not hears([control], _IMPORT_LIMIT):
                        break
                    pid, status = control.recv()
                    if status is None:
                        self._forked.add(pid)
                        return Child(self, pid, ours)
                    self._ended[pid] = status
            except (EOFError, ConnectionError):
                pass
            finally:
                theirs.close()
            ours.close()
            self.close()
        raise LostError("the process that forks the children ended, or did not start")

    def call(
        self,
        request: Request,
        *,
        silence_limit: float,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        on_progress: Progress = lambda progress: None,
        descriptors: Sequence[int] = (),
    ) -> Outcome:
        """Carry out ``request`` in a fresh child; see :meth:`Child.call`. What is lost is tried once more."""
        for attempt in range(2):
            try:
                child = self.fork(type(request), memory_limit=memory_limit)
            except LostError as error:
                return Outcome(Status.LOST, reason=str(error))
            try:
                outcome = child.call(
                    request, silence_limit=silence_limit, on_progress=on_progress, descriptors=descriptors
                )
            finally:
                child.close()
            if not (outcome.status == Status.LOST or child.killed) or attempt:
                break
        return outcome

    def end_strangers(self) -> None:
        """Kill what a kernel started and handed to the host, as if it were none of its own."""
        if self.pid:
            end_children(self.pid, spare=self._forked)

    def resume_children(self) -> None:
        """Let all children go on that a kernel may have stopped."""
        for pid in self._forked - self._ended.keys():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGCONT)

    def take_notice(self, pid: int) -> int | None:
        """Read what the host reports; return the wait status of ``pid`` if it has ended.

        Raises
        ------
        LostError
            if the host has.
        """
        try:
            with self._reading:
                while self._control and self._control.poll():
                    ended, status = self._control.recv()
                    self._ended[ended] = status
        except (EOFError, ConnectionError):
            raise LostError("the process that forks the children ended") from None
        if not self._control:
            raise LostError("the process that forks the children was closed")
        return self._ended.get(pid)

    @property
    def control(self) -> Connection | None:
        """What becomes readable when a child ends, or the host."""
        return self._control


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
        limit, late = silence_limit, f"no sign of life for {silence_limit:g} s"
        if request.imports:
            limit = self.host.import_s + (0 if request.reports_import else silence_limit)
            seen = "its import takes longer than" if request.reports_import else "no sign of life for"
            late = f"{seen} {limit:g} s; --import-timeout gives it more"
        try:
            self._pipe.send((request, len(descriptors)))
            for descriptor in descriptors:
                send_handle(self._pipe, descriptor, self.pid)
        except OSError:  # closed here already, or by the child's end
            return self._wait_for_end()
        except BaseException:
            self.close()
            raise
        try:
            while True:
                try:
                    ended = self._notice()
                except LostError as error:
                    return Outcome(Status.LOST, reason=str(error))
                if not self._pipe.poll():
                    if ended is not None:
                        return self._end(ended)
                    control = self.host.control
                    if not hears([self._pipe, *([control] if control else [])], limit):
                        self.close()
                        return Outcome(Status.TIMEOUT, reason=late)
                    if not self._pipe.poll():
                        continue
                try:
                    kind, content = json.loads(self._pipe.recv_bytes(_LONGEST_ANSWER))
                except (EOFError, OSError):
                    return self._wait_for_end()
                if kind == "answer":
                    return Outcome(Status(content["status"]), content.get("value"), content.get("reason"))
                if kind == "ready":
                    self._pipe.send_bytes(on_ready())
                else:
                    limit, late = silence_limit, f"no sign of life for {silence_limit:g} s"
                    on_progress(content)
        except OSError:
            return self._wait_for_end()
        except (ValueError, TypeError, KeyError):
            self.close()
            return Outcome(Status.ERROR, reason="the process sent something else than an answer")
        except BaseException:
            self.close()
            raise

    def _notice(self) -> int | None:
        if self.host.pid != self._host_pid:
            raise LostError("the process that forked this child ended")
        return self.host.take_notice(self.pid)

    def close(self) -> None:
        """End the process and all that it started."""
        end_descendants(self.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)
        self._pipe.close()
        self.host.resume_children()

    def _wait_for_end(self) -> Outcome:
        """Return how a child ended whose pipe is closed."""
        try:
            for _ in range(20):
                if (ended := self._notice()) is not None:
                    return self._end(ended)
                hears([control] if (control := self.host.control) else [], 0.5)
        except LostError as error:
            return Outcome(Status.LOST, reason=str(error))
        self.close()
        return Outcome(Status.CRASHED, reason="the process closed its pipe to the suite")

    def _end(self, wait_status: int) -> Outcome:
        code = os.waitstatus_to_exitcode(wait_status)
        self._pipe.close()
        if code >= 0:
            return Outcome(Status.CRASHED, reason=f"the process ended itself with exit code {code}")
        self.killed = -code == signal.SIGKILL
        name = signal.Signals(-code).name
        hints = {"SIGKILL": " (killed, probably for lack of memory)", "SIGSEGV": " (memory it does not own)"}
        return Outcome(Status.CRASHED, reason=f"{name}{hints.get(name, '')}")


def hears(pipes: list[Connection], limit: float) -> bool:
    """Wait ``limit`` seconds for a message, in slices that count for what was asked, not for what a clock says.

    A virtual machine may stand still for minutes: then all clocks jump, and the silence is not the child's.
    """
    slices = max(1, round(limit / _SLICE))
    return any(wait(pipes, limit / slices) for _ in range(slices))
