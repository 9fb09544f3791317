"""The parent's side of data-parallel training: one kernel's ranks, each a sealed child, driven as if they were one.

Ranks on other hosts are driven through a connection to :func:`serve_ranks` there. What all ranks do together, they do
in :mod:`~matmulbench.training.data_parallel`.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing import connection as connections
from multiprocessing.connection import Listener, answer_challenge, deliver_challenge
from operator import mul
from threading import Thread
from typing import Any

from matmulbench.isolation import Child, Host, LostError, Outcome, send
from matmulbench.isolation.host import Progress, is_readable
from matmulbench.isolation.requests import (
    CommitParameters,
    OpenTraining,
    PreloadTask,
    Request,
    TrainFewRows,
    TrainSteps,
)
from matmulbench.isolation.system import Connection, shared_file
from matmulbench.status import Status
from matmulbench.workload import fair_parts

Address = tuple[str, int, bytes]  # IP, port and key of a host that serves ranks
# In the message of a rank that has lost another, or waits for it in vain: not what failed first.
_PEER = ("gloo/transport", "gloo/rendezvous", "wait timeout after")
_REACH_S = 10.0  # within which a host answers, or is gone


class Ranks(Child):
    """The ranks of one kernel: this child is the first, whose clock counts; ``others`` do the same beside it.

    The ``rows`` of a batch are divided among them. If one rank fails, all are ended and its outcome is returned.
    """

    def __init__(self, first: Child, others: Sequence[Child], rows: int) -> None:
        super().__init__(first.host, first.pid, first._pipe)
        self.others = others
        self.shares = [part / rows for part in fair_parts(rows, 1 + len(others))]
        self._threads = ThreadPoolExecutor(len(others))
        self._folder = tempfile.TemporaryDirectory(prefix="matmulbench-", ignore_cleanup_errors=True)

    @classmethod
    def fork(cls, host: Host, workers: int, rows: int, elsewhere: Sequence[Address]) -> Child:
        """Fork the processes of so many workers, but the first ``elsewhere``, if given; one alone is a plain child."""
        others: list[Child] = []
        try:
            for rank, address in enumerate(elsewhere, 1):
                others.append(DistantRank(host, address, f"rank {rank} of {workers}"))
            first, *here = (host.fork(OpenTraining) for _ in range(workers - len(others)))
        except LostError:
            for other in others:
                other.close()
            raise
        others += here
        return cls(first, others, rows) if others else first

    @property
    def pids(self) -> list[int]:
        """The processes of all ranks on this host."""
        return [self.pid, *(pid for other in self.others for pid in other.pids)]

    def _meeting(self) -> str:
        """Return the URL at which the ranks find each other: a file, or a free port of this host."""
        distant = next((other for other in self.others if isinstance(other, DistantRank)), None)
        if not distant:
            return f"file://{self._folder.name}/meeting"
        with socket.create_server((distant.seen_from, 0)) as free:
            return f"tcp://{distant.seen_from}:{free.getsockname()[1]}"

    def call(
        self,
        request: Request,
        *,
        silence_limit: float,
        on_progress: Progress = lambda progress: None,
        on_ready: Callable[[], bytes] = lambda: b"go",
        descriptors: Sequence[int] = (),
    ) -> Outcome:
        """Have every rank carry out ``request``; return the first one's answer, with the losses of all in it."""
        here: dict[str, Any] = {"silence_limit": silence_limit, "on_progress": on_progress, "on_ready": on_ready}
        if isinstance(request, CommitParameters):  # all ranks should have the same: one is asked at random
            call = secrets.choice([super().call, *(other.call for other in self.others)])
            return call(request, silence_limit=silence_limit, descriptors=descriptors)
        if isinstance(request, TrainFewRows):
            return super().call(request, **here)
        ranks = 1 + len(self.others)
        requests = [request] * ranks
        if isinstance(request, OpenTraining):
            # Those that wait for a silent rank give up before it is ended: it alone is to blame.
            meeting, patience_s = self._meeting(), silence_limit / 2
            requests = [replace(request, place=(rank, ranks, meeting, patience_s)) for rank in range(ranks)]
        failed: list[tuple[int, Child, Outcome]] = []

        def note(rank: int, child: Child, outcome: Outcome) -> Outcome:
            waited = outcome.status == Status.ERROR and any(text in (outcome.reason or "") for text in _PEER)
            if outcome.status != Status.OK and not waited:
                failed.append((rank, child, outcome))
                self.close()  # the others would wait for it for ever
            return outcome

        def follow(rank: int, child: Child) -> Outcome:
            return note(rank, child, child.call(requests[rank], silence_limit=silence_limit))

        try:
            following = [self._threads.submit(follow, *each) for each in enumerate(self.others, 1)]
            found = [note(0, self, super().call(requests[0], **here)), *(each.result() for each in following)]
        except BaseException:
            self.close()
            raise
        if failed:
            rank, child, outcome = failed[0]
            self.killed = child.killed
            return replace(outcome, reason=f"rank {rank} of {ranks}: {outcome.reason}")
        if lost := next((outcome for outcome in found if outcome.status != Status.OK), None):
            return lost
        values = [outcome.value for outcome in found]
        if isinstance(request, TrainSteps):
            *clock, _, products, communication_s = values[0]
            steps = zip(*(losses for *_, losses, _, _ in values), strict=True)
            losses = [sum(map(mul, self.shares, of_ranks)) for of_ranks in steps]
            return Outcome(Status.OK, [*clock, losses, products, communication_s])
        return Outcome(Status.OK, next(filter(None, values), None))

    def close(self) -> None:
        """End all ranks and all that they started."""
        super().close()
        for other in self.others:
            other.close()
        self._threads.shutdown(wait=False)
        self._folder.cleanup()


# --- on other hosts ------------------------------------------------------------------------------------


class DistantRank(Child):
    """A rank that :func:`serve_ranks` starts on the host at ``address``; ``host`` is that of the first rank.

    Raises
    ------
    LostError
        if it cannot be reached; the message begins with ``name``.
    """

    def __init__(self, host: Host, address: Address, name: str) -> None:
        ip, port, key = address
        self.where = f"host {ip}"
        try:
            with socket.create_connection((ip, port), timeout=_REACH_S) as line:
                self.seen_from = line.getsockname()[0]  # the first rank's host, by the name that this one knows
                line.settimeout(None)
                connection = connections.Connection(line.detach())
            _keep_alive(connection)
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            connection.send(host.threads)
        except (OSError, EOFError, AuthenticationError) as error:
            raise LostError(f"{name}: {self.where} cannot be reached: {error}") from None
        super().__init__(host, 0, connection)

    @property
    def pids(self) -> list[int]:
        """None on this host."""
        return []

    def call(self, request: Request, *, silence_limit: float, descriptors: Sequence[int] = (), **_: Any) -> Outcome:
        """Have it carry out ``request`` there; a host that is gone is no fault of the kernel's."""
        try:
            self._pipe.send((request, silence_limit))
            if not is_readable([self._pipe], silence_limit + self.host.import_s + _REACH_S):
                self.close()
                return Outcome(Status.LOST, reason=f"{self.where} does not answer")
            outcome, self.killed, content = self._pipe.recv()
        except (OSError, EOFError) as error:
            return Outcome(Status.LOST, reason=f"{self.where} is gone: {error or 'it ended the connection'}")
        for descriptor in descriptors:
            with open(descriptor, "r+b", closefd=False) as file:
                file.truncate(0)
                file.seek(0)
                file.write(content)
        return outcome  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the connection: its process ends with it."""
        self._pipe.close()


def serve_ranks(ip: str, key: bytes, import_s: float, preload: PreloadTask, files: dict[str, str]) -> None:
    """Start a rank for each connection to this host, and do what is asked of it, until this process is ended.

    ``files`` says where a kernel's file lies here, by the end of its name there.
    """
    hosts: dict[int, Host] = {}
    with Listener((ip, 0), authkey=key) as listener:
        send(listener.address)
        while True:
            with suppress(OSError, EOFError, AuthenticationError):
                connection = listener.accept()
                _keep_alive(connection)
                threads = connection.recv()
                if threads not in hosts:
                    hosts[threads] = Host(threads, import_s)
                    hosts[threads].warm(OpenTraining, first=preload)
                child = hosts[threads].fork(OpenTraining)
                Thread(target=_follow, args=(connection, child, files), daemon=True).start()


def _follow(connection: Connection, child: Child, files: dict[str, str]) -> None:
    """Have a rank do what the other end of ``connection`` asks, until that is closed."""
    file = shared_file(0)
    try:
        while True:
            request, silence_limit = connection.recv()
            if isinstance(request, OpenTraining):
                spec = next((here for end, here in files.items() if (request.spec or "").endswith(end)), request.spec)
                request = replace(request, spec=spec)
            commits = isinstance(request, CommitParameters)
            outcome = child.call(request, silence_limit=silence_limit, descriptors=(file,) * commits)
            content = b""
            if commits:
                with open(file, "rb", closefd=False) as parameters:
                    parameters.seek(0)
                    content = parameters.read()
            connection.send((outcome, child.killed, content))
    except (OSError, EOFError):
        pass
    finally:
        child.close()
        connection.close()
        os.close(file)


def _keep_alive(connection: Connection) -> None:
    """Let a connection break when the other end has been silent for about ten seconds, where the system can."""
    with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 4),
            ("TCP_KEEPINTVL", 2),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", int(_REACH_S * 1e3)),
        ):
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
