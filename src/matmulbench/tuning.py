"""Tuning of ``numba-tiled``: its plans timed against each other on this machine, and the fastest kept.

All candidates are one kernel in one process, which changes its plan between blocks: they meet the same operands, in the
same memory. Each is checked before it is timed, and the kernel with the plans that won is verified like any other
before they are kept. No run tunes by itself: a plan must not change between its verification and its timing.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product, starmap
from threading import Timer
from time import perf_counter
from typing import TYPE_CHECKING, Any

from matmulbench.arguments import check_seconds, thread_counts
from matmulbench.dtypes import as_array
from matmulbench.errors import InputWarning, UsageError, printable
from matmulbench.isolation import Host, send
from matmulbench.isolation.requests import TunePlans
from matmulbench.ladder.tiled import plan as plans_of
from matmulbench.ladder.tiled.plan import DTYPES, SHAPES, STAGES, VARIABLE, Plans
from matmulbench.measurement.rounds import MIN_ROUNDS, Candidate, Comparison, run_rounds
from matmulbench.measurement.stopwatch import Stopwatch
from matmulbench.status import Status
from matmulbench.verification.api import verify_kernel
from matmulbench.verification.result import check_result
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

KERNEL = "numba-tiled"
BUDGET_S = 60.0
_BLOCK_S = 0.002
_VERIFY_S = 15.0  # of the budget, at the least, to verify what won
_SILENCE_S = 120.0
_OF_THREADS = {"columns_each", "threading"}  # what of a plan concerns several threads alone
# What is timed for each class of shapes, each with the same weight, and what else a candidate must do right.
TIMED = {
    "small": "5x784x10 64x784x50 784x64x50:TN 64x64x64 128x128x128",
    "deep": "784x12000x50:TN 50x20000x10:TN 100x16384x100",
    "tall": "10000x784x50 20000x50x10 20000x10x50:NT",
    "large": "256x256x256 512x512x512 1024x1024x1024 512x512x512:NT",
}
CHECKED = {
    "small": "1x1x1 17x33x50:NT 65x130x257:TT 7x2x129:TN",
    "deep": "37x5001x53:TN 130x2003x70:NT 33x6000x65:TT",
    "tall": "1501x300x49:TN 803x1100x70:TT 3001x130x17:NT",
    "large": "261x317x189:TN 290x1101x100:NT 300x1100x217:TT",
}


@dataclass
class Tuned:
    """What became of one class of shapes: ``plan`` won, ``speedup`` times as fast as the heuristics.

    ``second`` is the fastest of the ``tried`` other options; ``refused`` says which multiply wrongly.
    """

    threads: int
    dtype: str
    shapes: str
    plan: str
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    second: str = ""
    second_speedup: float | None = None
    second_verdict: str | None = None
    tried: int = 0
    refused: str = ""
    kept: str = ""


class _Plan(Candidate):
    """The kernel with the plan of ``options`` for one class of shapes, on all ``work``: products, calls, seconds."""

    def __init__(self, use: Callable[[tuple[str, ...]], None], options: tuple[str, ...], work: list[Any]) -> None:
        super().__init__(_name(options))
        self.use, self.options, self.work = use, options, work
        self.turn_s = sum(calls * seconds for _, calls, seconds in work)

    def take_turn(self, number: int) -> None:
        """Time a block of each product; the sample is their mean, in units of the first time that was seen."""
        self.use(self.options)
        shares = []
        for call, calls, seconds in self.work:
            if calls > 1:
                call()  # another plan was at work here
            watch = Stopwatch()
            for _ in range(calls):
                call()
            shares.append(watch.stop()[2] / calls / seconds)
        self.samples[number] = sum(shares) / len(shares)

    def renew(self) -> None:
        """Go on: all plans share one process."""

    def close(self) -> None:
        """Nothing is held."""


def tune(
    threads: str | int | Iterable[int] = 1,
    budget_s: float = BUDGET_S,
    progress: Callable[[str, float], None] = lambda text, seconds: None,
) -> pd.DataFrame:
    """Tune ``numba-tiled`` for each thread count, within ``budget_s`` seconds in all, and keep what won.

    A class of shapes for which the time is too short is not tried: what was kept for it before stays.

    Returns
    -------
    pandas.DataFrame
        a row for each thread count, dtype and class of shapes: ``plan``, how much faster than the heuristics it is, and
        in which file it is ``kept``.

    Raises
    ------
    UsageError
        if the kernel is not available, an option cannot be used, or the budget ends before what won is verified.
    """
    import pandas as pd

    counts = thread_counts(threads)
    check_seconds("budget", budget_s)
    end = perf_counter() + budget_s
    rows: list[dict[str, Any]] = []
    for done, count in enumerate(counts):
        rows += _tune(count, (end - perf_counter()) / (len(counts) - done), progress)
    return pd.DataFrame(rows)


def _tune(threads: int, budget_s: float, progress: Callable[[str, float], None]) -> list[dict[str, Any]]:
    """Tune in a child, which is killed when the budget ends."""
    step_s, start = budget_s / len(DTYPES) / len(SHAPES), perf_counter()
    with Host(threads, variables={VARIABLE: "{}"}) as host:
        child = host.fork(TunePlans)
        start_s = perf_counter() - start
        left_s = max(0.0, budget_s - start_s)
        # To verify starts a process like this one, and on a busy machine everything takes longer.
        search_s = left_s - min(max(_VERIFY_S, 4 * start_s), left_s / 2)
        end = Timer(left_s, host.end_children)
        end.start()
        outcome = child.call(
            TunePlans(threads, search_s, plans_of.current(threads)),
            silence_limit=left_s + _SILENCE_S,
            on_progress=lambda text: progress(text, step_s),
        )
        end.cancel()
    if outcome.status != Status.OK and perf_counter() - start >= budget_s:
        raise UsageError(
            f"budget {budget_s:.3g}: it ended before what won was verified, and nothing is kept: expected more"
        )
    if outcome.status != Status.OK:
        raise UsageError(f"tune needs {KERNEL}: {outcome.reason}")
    rows, plans = outcome.value
    if plans is not None:
        try:
            kept = str(plans_of.keep(threads, plans))
            rows = [row | {"kept": kept} for row in rows]
        except OSError as error:
            warnings.warn(f"the plans are not kept: {printable(str(error), 300)}", InputWarning, stacklevel=3)
    return list(rows)


def tune_here(threads: int, seconds: float, kept: Plans) -> tuple[list[dict[str, Any]], Plans | None]:
    """Tune in this process, which has ``threads`` threads, for ``seconds``; then verify what won.

    Returns rows and, if they multiply rightly, the plans: those that won, and of ``kept`` those of classes not tried.
    """
    from matmulbench.ladder.tiled import kernel

    deadline = perf_counter() + seconds
    for dtype in DTYPES:
        kernel.matmul(*Workload(8, 8, 8, dtype=dtype).operands())  # compiles
    rows, plans = [], dict(kept)
    cells = list(product(SHAPES, DTYPES))
    for number, (shape, dtype) in enumerate(cells):
        send(f"tune {KERNEL} for {shape} products in {dtype}, threads {threads}")
        share_s = (deadline - perf_counter()) / (len(cells) - number)
        row, options = tune_shape(kernel, threads, dtype, shape, share_s)
        rows.append(asdict(row))
        if row.tried:
            plans.pop(f"{dtype} {shape}", None)
        if options:
            plans[f"{dtype} {shape}"] = options
    if not plans:
        return rows, plans
    send(f"verify {KERNEL} with what won, threads {threads}")
    with Host(threads, variables={VARIABLE: plans_of.as_text(plans)}) as host:
        verified = [verify_kernel(host, KERNEL, dtype, "quick") for dtype in DTYPES]
    if wrong := [f"{row.dtype}: {row.finding}" for row in verified if row.status != Status.OK]:
        return [row | {"refused": row["refused"] or wrong[0]} for row in rows], None
    return rows, plans


def tune_shape(kernel: Any, threads: int, dtype: str, shape: str, seconds: float) -> tuple[Tuned, tuple[str, ...]]:
    """Find the fastest plan for one dtype and class of shapes in ``seconds``; return the row, and its options.

    ``kernel`` is :mod:`matmulbench.ladder.tiled.kernel`. Plans that multiply wrongly take no part; one that is not
    clearly faster than the heuristics gives way to them. What would take longer than is left is not tried.
    """
    if seconds <= 0:
        return Tuned(threads, dtype, shape, "not tried"), ()
    start = perf_counter()
    use = partial(kernel.use, dtype, shape)
    timed, checked = ([Workload.parse(text, dtype).operands() for text in of[shape].split()] for of in (TIMED, CHECKED))
    use(())
    work = [_work(kernel.matmul, a, b) for a, b in timed]
    turn_s = sum(calls * each_s for _, calls, each_s in work)
    best: tuple[str, ...] = ()
    found: dict[tuple[str, ...], Comparison] = {}
    refused = []
    stages = STAGES[shape]
    for number, stage in enumerate(stages, 1):
        end = start + seconds * number / len(stages)
        if end - perf_counter() < 2 * MIN_ROUNDS * turn_s * (1 + len(stage)):
            break
        right = []
        for option in stage:
            idle = threads == 1 and _OF_THREADS & plans_of.OPTIONS[option].keys()  # it would change nothing
            if kernel.fits((option,)) and not idle:
                use(options := (*best, option))
                results = ((as_array(a), as_array(b), as_array(kernel.matmul(a, b))) for a, b in checked)
                wrong = filter(None, starmap(check_result, results))
                if finding := next(wrong, None):
                    refused.append(f"{option}: {finding}")
                else:
                    right.append(options)
        left_s = end - perf_counter()
        # A look at all of them first: those that are slower take no time from the others.
        screened = _compare(use, work, [best, *right], left_s / 3)
        rivals = [options for options, one in screened.items() if one.speedup.high >= 1]
        found |= screened | _compare(use, work, [best, *rivals], left_s * 2 / 3)
        faster = [options for options, one in found.items() if one.verdict == "faster"]
        best = max(faster, key=lambda options: found[options].speedup.median, default=())
    use(best)
    row = Tuned(threads, dtype, shape, _name(best) if found else "not tried", tried=len(found))
    row.refused = "; ".join(refused)
    if found:
        row.speedup, row.speedup_low, row.speedup_high = found[best].speedup.figures if best else (1.0, None, None)
    others = {options: one for options, one in found.items() if options != best}
    if others:
        second = max(others, key=lambda options: others[options].speedup.median)
        row.second = _name(second)
        row.second_speedup, row.second_verdict = others[second].speedup.median, others[second].verdict
    return row, best


def _compare(
    use: Callable[[tuple[str, ...]], None], work: list[Any], plans: list[tuple[str, ...]], seconds: float
) -> dict[tuple[str, ...], Comparison]:
    """Time plans in rounds; return the comparison of each with the heuristics."""
    field = {options: _Plan(use, options, work) for options in [(), *plans]}
    if len(field) == 1:
        return {}
    deadline = perf_counter() + seconds
    analyses = run_rounds([*field.values()], field[()], deadline, seed=random.randrange(2**32))
    heuristics = field.pop(())
    return {options: Comparison(one, heuristics, analyses, len(field)) for options, one in field.items()}


def _name(options: tuple[str, ...]) -> str:
    return ", ".join(options) or "heuristics"


def _work(matmul: Callable[..., Any], a: Any, b: Any) -> tuple[Callable[[], Any], int, float]:
    """Return a call, how many of them make a block, and the seconds of one."""

    def call() -> None:
        matmul(a, b)

    call()
    watch = Stopwatch()
    call()
    seconds = watch.stop()[2]
    return call, max(1, round(_BLOCK_S / seconds)), seconds
