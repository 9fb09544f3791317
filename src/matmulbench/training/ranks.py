"""The parent's side of data-parallel training: one kernel's ranks, each a sealed child, driven as if they were one.

What the ranks do together, they do in :mod:`~matmulbench.training.data_parallel`.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import mul
from pathlib import Path
from typing import Any

from matmulbench.isolation import Child, Host, Outcome
from matmulbench.isolation.host import Progress
from matmulbench.isolation.requests import CommitParameters, OpenTraining, Request, TrainFewRows, TrainSteps
from matmulbench.status import Status
from matmulbench.workload import fair_parts

_PEER = "gloo/transport"  # in the message of a rank that has lost another: not what failed first


class Ranks(Child):
    """The ranks of one kernel: this child is the first, whose clock counts; ``others`` do the same beside it.

    The ``rows`` of a batch are divided among them. If one rank fails, all are ended and its outcome is returned.
    """

    def __init__(self, first: Child, others: Sequence[Child], rows: int) -> None:
        super().__init__(first.host, first.pid, first._pipe)
        self.others = others
        self.shares = [part / rows for part in fair_parts(rows, 1 + len(others))]
        self._threads = ThreadPoolExecutor(len(others))
        self._meeting = tempfile.TemporaryDirectory(prefix="matmulbench-", ignore_cleanup_errors=True)

    @classmethod
    def fork(cls, host: Host, workers: int, rows: int) -> Child:
        """Fork the processes of so many workers; one alone is a plain child."""
        first, *others = (host.fork(OpenTraining) for _ in range(workers))
        return cls(first, others, rows) if others else first

    @property
    def pids(self) -> list[int]:
        """The processes of all ranks."""
        return [self.pid, *(other.pid for other in self.others)]

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
        requests = [request] * len(self.pids)
        if isinstance(request, OpenTraining):
            file = str(Path(self._meeting.name) / "meeting")
            requests = [replace(request, place=(rank, len(self.pids), file)) for rank in range(len(self.pids))]
        failed: list[tuple[Child, Outcome]] = []

        def note(rank: Child, outcome: Outcome) -> Outcome:
            if outcome.status != Status.OK and _PEER not in (outcome.reason or ""):
                failed.append((rank, outcome))
                self.close()  # the others would wait for it for ever
            return outcome

        def follow(rank: Child, request: Request) -> Outcome:
            return note(rank, rank.call(request, silence_limit=silence_limit))

        try:
            following = [self._threads.submit(follow, *pair) for pair in zip(self.others, requests[1:], strict=True)]
            found = [note(self, super().call(requests[0], **here)), *(each.result() for each in following)]
        except BaseException:
            self.close()
            raise
        if failed:
            rank, outcome = failed[0]
            self.killed = rank.killed
            # Of those that are silent, some only wait for another.
            which = "a rank" if outcome.status == Status.TIMEOUT else f"rank {self.pids.index(rank.pid)}"
            return replace(outcome, reason=f"{which} of {len(self.pids)}: {outcome.reason}")
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
        self._meeting.cleanup()
