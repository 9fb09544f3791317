"""Shapes and layouts: awkward sizes against each other, then a randomised search for the smallest that fails."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from random import Random

import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import HypothesisException

from matmulbench.verification.case import LAYOUT_LETTERS, VALUES, Case
from matmulbench.verification.subject import Subject, WrongError, attempt

set_hypothesis_home_dir(os.devnull)  # it would keep what it knows of the source in a folder where the user stands
TINY = (0, 1, 2, 3)
AWKWARD = (0, 1, 2, 3, 5, 7, 8, 9, 11, 13, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 100, 127, 128, 129)
# Shapes of a and b that have no product: less than a tile apart, by a tile, and with an operand turned over.
MISMATCHES = (
    ((3, 4), (5, 6)), ((3, 5), (4, 6)), ((3, 4), (6, 4)), ((4, 3), (4, 6)), ((7, 8), (9, 10)),
    ((8, 128), (256, 8)), ((8, 256), (128, 8)), ((64, 784), (783, 50)),
)  # fmt: skip
_QUICK = 0.25  # seconds, by a prediction that is too long on a busy machine, where threads wait for each other
LAYOUTS = ("NN", "TN", "NT", "TT", "RN", "NR", "CN", "NC", "ON", "NO", "XN", "NX", "YN", "NY", "RC", "CT", "OO")


def grid(dtype: str, every_combination: bool = False) -> Iterator[Case]:
    """Yield small products of every layout, then every pair of awkward sizes in each pair of dimensions.

    With ``every_combination``, each size is set against all pairs of the others.
    """
    small = sorted(itertools.product(TINY, repeat=3), key=lambda sizes: sizes[0] * sizes[1] * sizes[2])
    for m, k, n in small:
        yield Case(m, k, n, dtype=dtype, values="integers")
    for layout in LAYOUTS:
        for sizes in ((1, 1, 1), (2, 3, 4), (4, 1, 3), (5, 7, 3)):
            yield Case(*sizes, layout, dtype, "integers")
    for size in AWKWARD:
        for sizes in ((1, size, 1), (size, 1, 1), (1, 1, size)):
            yield Case(*sizes, dtype=dtype, values="integers", seed=1)
        yield Case(2, size, 3, dtype=dtype, values="small-integers", seed=1)
    layouts = itertools.cycle(LAYOUTS)
    values = itertools.cycle(("integers", "small-integers", "normal", "sparse", "integers"))
    pairs = {sizes for pair in itertools.product(AWKWARD[1:], repeat=2) for sizes in _with_third(*pair)}
    if every_combination:
        pairs |= {(m, k, n) for m in AWKWARD for k in AWKWARD for n in AWKWARD}
    for m, k, n in sorted(pairs, key=lambda sizes: (sizes[0] * sizes[1] * sizes[2], sizes)):
        yield Case(m, k, n, next(layouts), dtype, next(values), seed=1)


def _with_third(x: int, y: int) -> Iterator[tuple[int, int, int]]:
    third = AWKWARD[(x * 7 + y) % len(AWKWARD)] or 1
    for z in {1, 4, third}:
        yield from ((x, y, z), (x, z, y), (z, x, y))


def judge_all(subject: Subject, cases: Iterable[Case], seconds: float, at_least: int = 0) -> None:
    """Judge ``cases`` in order for about ``seconds``, leaving out those that would take too long.

    The first ``at_least`` are judged even on a machine that is busy, if the kernel is quick enough.

    Raises
    ------
    WrongError
        for the smallest failing case that a short search finds below the first.
    """
    end = subject.clock() + seconds
    for number, case in enumerate(cases):
        now = subject.clock()
        expected = subject.predict(case.m, case.k, case.n)
        owed = number < at_least and expected < _QUICK
        if now > end and number >= at_least:
            return
        if now + expected > end and not owed:
            continue
        try:
            subject.judge(case)
        except WrongError as error:
            raise smallest(subject, error) from None


def check_mismatches(subject: Subject) -> None:
    """Multiply operands whose inner sizes differ: any exception is right, a result is named in a note."""
    for a, b in MISMATCHES:
        where = f"a {a}, b {b} {subject.dtype}"
        subject.say(where)
        left, right = (torch.ones(shape, dtype=getattr(torch, subject.dtype)) for shape in (a, b))
        try:
            subject.kernel(left, right)
        except Exception:
            continue
        subject.notes.add(
            f"shape mismatch: {where}: returns a result, though the inner sizes {a[1]} and {b[0]} differ: "
            "begin with `assert a.shape[1] == b.shape[0]`"
        )
        return


def search(subject: Subject, examples: int, seconds: float, largest: int = 140) -> None:
    """Judge random cases, drawn by Hypothesis; of those that fail, the smallest is reported.

    Raises
    ------
    WrongError
        for the smallest failing case; or whatever the kernel itself raises there.
    """
    end = subject.clock() + seconds
    limit = Case(largest, largest, largest, dtype=subject.dtype)
    if found := _find(subject, limit, examples, end, like=False):
        case, error = found
        subject.judge(case)  # says so anew, in this case's words
        raise error  # right this time: it comes and goes


def randomised(subject: Subject, count: int, seconds: float, largest: int = 140) -> Iterator[Case]:
    """Yield ``count`` random cases, those of a slow kernel no larger than ``seconds`` allow."""
    random = Random(1)
    volume, per_case = 64, seconds / count
    for number in range(count):
        side = round((2 * volume) ** (1 / 3))
        if number % 50 == 49 and subject.predict(side, side, side) < per_case:
            volume = min(2 * volume, largest**3)
        while True:
            m, k, n = (int((largest + 1) ** random.random()) - (random.random() < 0.05) for _ in range(3))
            if m * k * n <= volume:
                break
        layout = "".join(random.choices(list(LAYOUT_LETTERS), k=2))
        yield Case(m, k, n, layout, subject.dtype, random.choice(list(VALUES)), seed=number)


def smallest(subject: Subject, error: WrongError, seconds: float = 1.0) -> WrongError:
    """Return the finding for a case not larger than that of ``error`` that fails in the same way."""
    case = error.case
    if case is None or subject.predict(case.m, case.k, case.n) > seconds / 4:
        return error
    found = _find(subject, case, 200, subject.clock() + seconds, like=True)
    if found and found[0].volume <= case.volume:
        again = attempt(lambda: subject.judge(found[0]))
        if isinstance(again, WrongError) and again.prop == error.prop:
            return again
    return error


def _find(subject: Subject, limit: Case, examples: int, end: float, like: bool) -> tuple[Case, Exception] | None:
    """Return the smallest failing case within ``limit``, of its layout and values if ``like``, and how it failed."""
    letters = st.sampled_from(list(LAYOUT_LETTERS))
    layouts = st.sampled_from(list(dict.fromkeys(["NN", limit.layout]))) if like else st.tuples(letters, letters)
    strategy = st.builds(
        Case,
        m=st.integers(0, limit.m),
        k=st.integers(0, limit.k),
        n=st.integers(0, limit.n),
        layout=layouts.map("".join),
        dtype=st.just(limit.dtype),
        values=st.just(limit.values) if like else st.sampled_from(list(VALUES)),
        seed=st.just(limit.seed) if like else st.integers(0, 9),
    )
    failing: list[tuple[Case, Exception]] = []

    def fails(case: Case) -> bool:
        now = subject.clock()
        if now + subject.predict(case.m, case.k, case.n) > end:
            return False
        error = attempt(lambda: subject.judge(case))
        if error:
            failing.append((case, error))
        return error is not None

    options = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    with suppress(HypothesisException):  # none found, or one that comes and goes
        find(strategy, fails, settings=options, random=Random(0))
    return min(failing, key=lambda found: (found[0].volume, found[0].m + found[0].k + found[0].n), default=None)
