"""Randomised rounds: every candidate of a round takes one turn, in random order, paired with the baseline's.

A candidate is a kernel on a workload, or in a training: something with a turn that takes about so long. How many rounds
are needed is looked up in interim analyses, fixed beforehand (after an eighth, a quarter, … of the rounds that the time
allows); each has its share of the 5 % that an interval may err, so stopping early cannot spoil the coverage
(Bonferroni). Processes are renewed again and again, so that what one happens to be like is part of the interval.
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter

from matmulbench.isolation import Child
from matmulbench.isolation.requests import CheckSettings
from matmulbench.isolation.system import shared_file
from matmulbench.measurement.seal import KernelFailure, Seal, ask
from matmulbench.measurement.statistics import (
    CONFIDENCE,
    FALSE_ALARM,
    PROCESS_ROUNDS,
    PROCESSES,
    Interval,
    median_interval,
    ratio_interval,
    time_interval,
    verdict,
)
from matmulbench.status import Status

TARGET = 0.01  # half-width of a ratio's interval at which a kernel needs no more rounds
ANALYSES = 4
MIN_ROUNDS = 3
_FIRST_ANALYSIS = 12  # rounds, at least
_TURN_S = 0.02  # a candidate that takes longer a turn sits out rounds, so that it takes no more time than the others
_RENEWAL_SHARE = 0.15  # of the time, that goes to renewing all processes
_MOST_PROCESSES = 16  # of a kernel: more of them would tell little more


class Candidate(ABC):
    """One kernel in the rounds.

    Attributes
    ----------
    name
        the kernel's.
    turn_s
        seconds that a turn takes, with all that belongs to it.
    renewal_s
        seconds that a fresh process takes until its first turn.
    samples
        for each round that it took part in, the seconds of one call or step.
    renewed_at
        the last round of each process but the one that runs.
    failure
        why it takes no more part.
    model_error
        how far the samples may be off, as a share, where they are predictions.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn_s = self.renewal_s = 0.0
        self.samples: dict[int, float] = {}
        self.renewed_at: list[int] = []
        self.failure: KernelFailure | None = None
        self.model_error = 0.0

    @abstractmethod
    def take_turn(self, number: int) -> None:
        """Take the turn of round ``number`` and note its sample, if it yields one."""

    @abstractmethod
    def renew(self) -> None:
        """Go on in a fresh process."""

    @abstractmethod
    def close(self) -> None:
        """End its process."""

    def audit(self) -> None:
        """Look at what was seen so far; raise :class:`KernelFailure` where it cannot be."""
        return

    @property
    def unfinished(self) -> bool:
        """Whether it has to go on for another reason than its interval."""
        return False

    def attempt(self, action: Callable[[], None]) -> bool:
        """Do something with it; if the kernel fails, so does the candidate, and only that.

        A process that was killed from outside, nobody knows by whom, gets a second one.
        """
        try:
            try:
                action()
            except KernelFailure as failure:
                if not failure.killed:
                    raise
                self.renew()
                action()
        except KernelFailure as failure:
            self.failure = failure
            self.close()
            return False
        return True


class SealedCandidate(Candidate):
    """A kernel in a process of its own, which writes into a file that the parent made.

    Attributes
    ----------
    seal
        what was seen of its processes from outside.
    output
        the file's descriptor.
    child
        the process that it has now, if any.
    place
        what it works in, as a refusal calls it.
    """

    place: str

    def __init__(
        self, name: str, threads: int, peers: list[Seal], output_bytes: int = 0, on_device: bool = False
    ) -> None:
        super().__init__(name)
        self.seal = Seal(threads, peers, on_device)
        self.output = shared_file(output_bytes)
        self.child: Child | None = None

    @property
    def _child(self) -> Child:
        assert self.child
        return self.child

    def audit(self) -> None:
        """Refuse a kernel whose clock, processor time or settings are not what they must be."""
        self.seal.count_idle(self._child)
        self.seal.count_descendants(self._child)
        if finding := self.seal.finding() or ask(self._child, CheckSettings()):
            raise self.refused(finding)
        self.seal.rest(self._child)

    def refused(self, finding: str) -> KernelFailure:
        """Return the failure that says what was found."""
        return KernelFailure(Status.FAILED_VERIFICATION, f"inside {self.place}: {finding}")

    def close(self) -> None:
        """End the process."""
        if self.child:
            self.child.close()

    def release(self) -> None:
        """End the process for good, and let its file go."""
        self.close()
        os.close(self.output)


class Comparison:
    """A candidate's samples beside the baseline's of the same rounds, when ``analyses`` interim analyses are made."""

    def __init__(self, one: Candidate, baseline: Candidate | None, analyses: int, comparisons: int) -> None:
        self.rounds = _paired(one, baseline)
        self.samples = [one.samples[number] for number in self.rounds]
        self.baseline_samples = [baseline.samples[number] for number in self.rounds] if baseline else []
        self.processes = [bisect_left(one.renewed_at, number) for number in self.rounds]
        self.one, self.analyses, self.comparisons = one, max(1, analyses), max(1, comparisons)

    @property
    def time(self) -> Interval:
        """Seconds of a call or step, and where those of another run are to be expected."""
        return time_interval(self.samples, processes=self.processes).widened(self.one.model_error)

    @property
    def speedup(self) -> Interval:
        """The baseline's time over this one's."""
        return self._ratio(1 - (1 - CONFIDENCE) / self.analyses)

    @property
    def verdict(self) -> str:
        """``faster``, ``slower``, ``same`` or ``unclear``; a difference is claimed if every process shows it."""
        found = verdict(self.speedup, self._ratio(1 - FALSE_ALARM / self.analyses / self.comparisons))
        return "unclear" if found in ("faster", "slower") and not self._every_process_agrees else found

    @property
    def _every_process_agrees(self) -> bool:
        """Whether the ratio is on the same side of 1 in each process that took part in enough rounds."""
        ratios: dict[int, list[float]] = {}
        for process, ours, theirs in zip(self.processes, self.samples, self.baseline_samples, strict=True):
            ratios.setdefault(process, []).append(theirs / ours)
        sides = {median(found) > 1 for found in ratios.values() if len(found) >= PROCESS_ROUNDS}
        return len(sides) <= 1

    @property
    def settled(self) -> bool:
        """Whether more rounds would change nothing: the interval is narrow and the verdict decided."""
        if len(self.samples) < MIN_ROUNDS:
            return False
        if not self.baseline_samples:
            return median_interval(self.samples, processes=self.processes).relative_half_width <= TARGET
        return self.speedup.relative_half_width <= TARGET and self.verdict != "unclear"

    def _ratio(self, confidence: float) -> Interval:
        found = ratio_interval(self.baseline_samples, self.samples, confidence, self.processes)
        return found.widened(self.one.model_error)


def run_rounds(
    candidates: Sequence[Candidate],
    baseline: Candidate | None,
    deadline: float,
    before_round: Callable[[int], None] = lambda number: None,
    seed: int = 0,
) -> int:
    """Let the candidates take turns until all are settled or ``deadline`` (of ``time.perf_counter``) has come.

    ``baseline`` is one of the candidates, or None where it has failed: then there is nothing to pair with.
    ``before_round`` is called with each round's number.

    Returns
    -------
    int
        among how many interim analyses the confidence was shared.
    """
    order = random.Random(seed)
    number = analyses = 0
    while playing := [one for one in candidates if not one.failure and (not analyses or one.unfinished)]:
        left_s = deadline - perf_counter()
        if analyses and left_s <= 0:
            break
        playing = _with_baseline(playing, baseline)
        longest = max([_TURN_S, *(one.turn_s for one in playing if one is baseline)])
        rounds = max(MIN_ROUNDS, int(left_s / sum(min(one.turn_s, longest) for one in playing)))
        every = {one.name: max(1, min(round(one.turn_s / longest), rounds // MIN_ROUNDS)) for one in playing}
        planned = sorted({r for shift in range(ANALYSES) if (r := rounds >> shift) >= _FIRST_ANALYSIS} | {rounds})
        first_pass, analyses = not analyses, analyses or len(planned)
        costs_s = sum(one.renewal_s for one in playing)
        roomy = rounds >= PROCESSES * PROCESS_ROUNDS and costs_s * (PROCESSES - 1) <= _RENEWAL_SHARE * left_s
        enough = PROCESSES if roomy else 1
        apart = max(PROCESS_ROUNDS, rounds // _MOST_PROCESSES)
        renewed, renewed_s = 0, perf_counter()
        for count in range(1, rounds + MIN_ROUNDS + 1):  # the last few for those whose turns gave too few samples
            late = count > rounds or perf_counter() > deadline
            playing = [one for one in playing if not one.failure]
            due = [one for one in playing if _is_due(one, baseline, count, every[one.name], late)]
            if not due:
                break
            due = _with_baseline(due, baseline)
            order.shuffle(due)
            number += 1
            before_round(number)
            for one in due:
                one.attempt(partial(one.take_turn, number))
            if count in planned and not late:
                for one in playing:
                    if not one.failure:
                        one.attempt(one.audit)
                playing = _unsettled(playing, baseline, analyses if first_pass else 0, enough)
                if not playing:
                    break
            active = [one for one in playing if not one.failure]
            affordable = sum(one.renewal_s for one in active) <= _RENEWAL_SHARE * (perf_counter() - renewed_s)
            if affordable and apart <= count - renewed < rounds - renewed and not late:
                for one in active:
                    one.attempt(one.renew)
                    one.renewed_at.append(number)
                renewed, renewed_s = count, perf_counter()
    for one in candidates:
        if not one.failure:
            one.attempt(one.audit)
    return analyses


def _with_baseline(some: list[Candidate], baseline: Candidate | None) -> list[Candidate]:
    base = _unfailed(baseline)
    return some if base is None or base in some else [*some, base]


def _unfailed(baseline: Candidate | None) -> Candidate | None:
    return None if baseline is None or baseline.failure else baseline


def _paired(one: Candidate, baseline: Candidate | None) -> list[int]:
    """Return the rounds in which both yielded a sample."""
    return sorted(one.samples.keys() & baseline.samples.keys() if baseline else one.samples)


def _is_due(one: Candidate, baseline: Candidate | None, count: int, every: int, late: bool) -> bool:
    """Tell whether to take part in a round; when it is ``late``, only to reach the least number of samples."""
    if not late:
        return (count - 1) % every == 0
    return len(_paired(one, _unfailed(baseline))) < MIN_ROUNDS


def _unsettled(playing: list[Candidate], baseline: Candidate | None, analyses: int, processes: int) -> list[Candidate]:
    """Return those that need more rounds, or had fewer than so many processes, with the baseline if there are any."""
    base = _unfailed(baseline)

    def goes_on(one: Candidate) -> bool:
        if one.failure or one.unfinished:
            return not one.failure
        if not analyses or (one is base and len(playing) > 1):
            return False
        return len(one.renewed_at) + 1 < processes or not Comparison(one, base, analyses, len(playing) - 1).settled

    left = list(filter(goes_on, playing))
    return _with_baseline(left, baseline) if left else []
