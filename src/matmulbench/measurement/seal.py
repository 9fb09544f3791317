"""What is not taken from a kernel's word: its turns are timed from outside, too, and its processor time is counted.

A child reports the clock before and after its work. The parent has the same clock (it is the system's), and notes when
it sent the request and when the answer came. What lies between is the way there and back, which takes all children of a
measurement about as long. The processor time that a child uses in a turn beyond what it reports is seen as well, and
other load lengthens that seldom.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter
from typing import Any

from matmulbench.isolation import Child, LostError
from matmulbench.isolation.requests import Request
from matmulbench.isolation.system import cores, delay_s, descendants_s, pin, processor_s, wait_until_asleep
from matmulbench.status import Status

SILENCE_S = 60.0  # a call predicted to take this long is never made
_WAY_TIMES, _WAY_SHARE = 3.0, 0.02  # of the least among the children and of a turn, that a way may take
_TURNS = 5  # at least, before anything is held against a kernel
_WAYS = 20  # so many ways there and back, at least, before the shortest tells anything
_PROCESSOR_SHARE = 1.2  # of wall time x threads
_IDLE_SHARE = 0.1  # of the time of the others' turns
_CORES = cores()
_REST_S, _SPIN_S = 2e-4, 4e-3  # a turn, that a process needs to come to rest, and each further thread to fall asleep


def _delay_s(child: Child) -> float:
    return delay_s(child.pid) + delay_s()


def _cores(number: int) -> list[int]:
    """Return all cores; of as many rounds as there are, each is first in one, in random order."""
    group, place = divmod(number, len(_CORES))
    order = random.Random(group).sample(_CORES, len(_CORES))
    return order[place:] + order[:place]


class KernelFailure(Exception):  # noqa: N818  # what it is, not that it is an error of ours
    """A kernel failed: with what status, and why."""

    def __init__(self, status: Status, reason: str | None, killed: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.killed = status, reason or "", killed


def ask(
    child: Child,
    request: Request,
    silence_limit: float = SILENCE_S,
    descriptors: tuple[int, ...] = (),
    on_ready: Callable[[], bytes] = lambda: b"go",
) -> Any:
    """Carry out a request and return its answer; see :meth:`~matmulbench.isolation.Child.call`.

    Raises
    ------
    KernelFailure
        if the child did not come back with one.
    LostError
        if the host died.
    """
    outcome = child.call(request, silence_limit=silence_limit, descriptors=descriptors, on_ready=on_ready)
    if outcome.status == Status.LOST:
        raise LostError(outcome.reason)
    if outcome.status != Status.OK:
        raise KernelFailure(outcome.status, outcome.reason, child.killed)
    return outcome.value


@contextmanager
def no_kernel_to_blame() -> Iterator[None]:
    """Raise LostError for what fails in the process that no kernel enters."""
    try:
        yield
    except KernelFailure as failure:
        raise LostError(f"the suite's own process failed: {failure.reason}") from None


@dataclass
class Seal:
    """What was seen of a kernel's process from outside, over all its turns.

    ``peers`` are the seals of all children of the measurement, this one among them and those without a kernel.
    """

    threads: int
    peers: list[Seal]
    on_device: bool = False  # whether its turns are timed by a device's clock
    turns_s: list[float] = field(default_factory=list)  # as the child reports them
    ways_s: list[float] = field(default_factory=list)  # what the parent waited beyond that, and not for a core
    late_s: list[float] = field(default_factory=list)  # that a device worked and its clock does not own to
    excess_s: list[float] = field(default_factory=list)  # processor time beyond what the reported time explains
    last_turn_agrees: bool = True  # whether the reported times explain the processor time
    processor_s: float = 0.0
    wall_s: float = 0.0
    idle_processor_s: float = 0.0
    idle_s: float = 0.0
    _rest: tuple[int, float, float] | None = None  # pid, its processor time and the clock when its turn ended
    _has_descendants: bool = False
    _pid: int = 0  # of the child that had the last turn

    def __post_init__(self) -> None:
        self.peers.append(self)

    def turn(
        self, child: Child, request: Request, silence_limit: float = SILENCE_S, task: bytes | None = None
    ) -> tuple[float, Any]:
        """Let ``child`` carry out a request that it times itself; return its seconds and the rest of its answer.

        ``task`` is what it must not know before it has warmed up: it waits for that word first, then for the one to go.

        Raises
        ------
        KernelFailure
            if it fails, or its clock cannot be right.
        """
        before = used_before = delayed_before = math.nan

        def note() -> bytes:
            nonlocal before, used_before, delayed_before, task
            if task is not None:
                word, task = task, None
                return word
            if self._pid != child.pid:  # what its descendants have used so far, to compile, is not held against it
                self._pid, self._has_descendants = child.pid, sum(map(descendants_s, child.pids)) > 0
            used_before, delayed_before = self._used_s(child), _delay_s(child)
            before = perf_counter()
            return b"go"

        start, end, own_s, late_s, *rest = ask(child, request, silence_limit, on_ready=note)
        after = perf_counter()
        used_after, delayed_s = self._used_s(child), _delay_s(child) - delayed_before
        if not (before <= start <= end <= after and own_s <= end - start):
            raise KernelFailure(Status.FAILED_VERIFICATION, "two clocks disagree: its own is not the system's")
        if self.threads > 1 and not self.on_device:  # other threads may have worked while this one was kept from it
            own_s = end - start
        self.turns_s.append(own_s)
        self.late_s.append(late_s)
        self.ways_s.append((after - before) - own_s - delayed_s)
        self.wall_s += after - before
        if used_after == used_after:  # not NaN
            self.processor_s += used_after - used_before
            excess_s = used_after - used_before - self.threads * own_s
            # Below 0 its turn was interrupted, which says nothing; and what threads of a pool used may come late. A
            # device's clock knows nothing of the processor's work.
            if excess_s > 0 and self.threads == 1 and not self.on_device:
                self.excess_s.append(excess_s)
                self.last_turn_agrees &= excess_s <= self._allowed_s(own_s)
        return own_s, rest

    def _allowed_s(self, turn_s: float) -> float:
        """Return the seconds that a turn may take beyond what the child reports, by the child that takes the least."""
        known = [excess_s for seal in self.peers if (excess_s := seal.usual_excess_s) is not None]
        return _WAY_TIMES * min(known, default=math.inf) + _WAY_SHARE * turn_s

    @property
    def usual_excess_s(self) -> float | None:
        """The median of the excess; None where most turns had none."""
        enough = len(self.excess_s) >= max(_TURNS, len(self.turns_s) / 2)
        return statistics.median(self.excess_s) if enough else None

    @property
    def _settling_s(self) -> float:
        """Seconds of processor time that a process may use after a turn."""
        return _REST_S + _SPIN_S * (self.threads - 1)

    def wake(self, child: Child, number: int) -> None:
        """Begin the turn of round ``number``: count what the process used while it was not its turn.

        On one thread all turns of a round take place on the same core: on a busy machine cores differ by a tenth, and
        a process would keep to the one where it happened to begin. Several processes have a core each.
        """
        self.last_turn_agrees = True
        child.host.end_strangers()
        if self.threads == len(child.pids):
            for pid, core in zip(child.pids, cycle(_cores(number)), strict=False):
                pin(pid, core)
        self.count_idle(child)

    def count_idle(self, child: Child) -> None:
        """Count what the process used since :meth:`rest`; what it uses from now on, it is asked for."""
        if self._rest and self._rest[0] == child.pid:
            _, used, when = self._rest
            self.idle_s += perf_counter() - when
            self.idle_processor_s += max(0.0, self._used_s(child) - used - self._settling_s)
        self._rest = None

    def rest(self, child: Child) -> None:
        """Note that the turn, or what else it was asked for, is over."""
        self._rest = (child.pid, self._used_s(child), perf_counter())

    def count_descendants(self, child: Child) -> None:
        """Look whether the child has started processes; if so, they count from now on, which is dear."""
        if not self._has_descendants:
            self._has_descendants = (used := sum(map(descendants_s, child.pids))) > 0
            self.processor_s += used

    def _used_s(self, child: Child) -> float:
        for pid in child.pids:
            wait_until_asleep(pid)
        used_s = sum(map(processor_s, child.pids))
        return used_s + (sum(map(descendants_s, child.pids)) if self._has_descendants else 0.0)

    def finding(self) -> str | None:
        """Say what cannot be: a clock that disagrees, or more processor time than there was."""
        if len(self.turns_s) < _TURNS:
            return None
        turn_s = statistics.median(self.turns_s)
        late_s = statistics.median(self.late_s)
        if late_s > _WAY_SHARE * turn_s:
            return (
                f"late work: its device was busy for {late_s * 1e3:.3g} ms a turn beyond the {turn_s * 1e3:.3g} ms "
                "that its own clock shows; what is asked for in another stream has to be waited for in the current one"
            )
        allowed_s = self._allowed_s(turn_s)
        # Other load lengthens processor time seldom; and ways, but hardly every one.
        hidden_s = self.usual_excess_s or 0.0
        if len(self.ways_s) >= _WAYS:
            hidden_s = max(hidden_s, sorted(self.ways_s)[len(self.ways_s) // _WAYS] / 2)
        if hidden_s > allowed_s:
            return (
                f"two clocks disagree: it reports {turn_s * 1e3:.3g} ms a turn and took {hidden_s * 1e3:.3g} ms more, "
                f"or used more threads; the way to it and back explains {allowed_s * 1e3:.2g} ms"
            )
        allowed_s = _PROCESSOR_SHARE * self.threads * self.wall_s + self._settling_s * len(self.turns_s)
        if self.processor_s > allowed_s:
            return (
                f"processor time: it used {self.processor_s:.3g} s in {self.wall_s:.3g} s, more than "
                f"{self.threads} thread{'s' * (self.threads > 1)} can"
            )
        if self.idle_processor_s > _IDLE_SHARE * self.idle_s + self._settling_s:
            return (
                f"works while idle: it used {self.idle_processor_s:.3g} s of processor time in the "
                f"{self.idle_s:.3g} s in which it was not its turn"
            )
        return None
