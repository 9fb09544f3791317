"""Does the instrument mean what it says: the same kernel twice, planted delays, known durations, extrapolation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import permutations, product
from math import inf
from pathlib import Path
from statistics import median, quantiles

from matmulbench.audit import DURATIONS, Check
from matmulbench.audit.mutants import Mutant, mutants
from matmulbench.isolation import Host, thread_environment
from matmulbench.ladder import BASELINE, LADDER
from matmulbench.measurement.cells import Settings, measure_cells
from matmulbench.results.schema import MeasurementRow
from matmulbench.status import Status
from matmulbench.training.accounting import train_kernels
from matmulbench.workload import FIRST, Workload

Progress = Callable[[str], None]

WORKLOADS = ("5x784x10", "64x784x50", "1000x784x50")
BUDGET_S = 10.0
QUICK_BUDGET_S, QUICK_RESTART_S = 1.5, 5.0  # what intervals and verdicts promise, they promise for every budget
PLANTED = (0.05, 2.0), (0.03, 10.0)  # a delay, and the seconds for each kernel in which it must be seen
CHEATED = ("256x256x256", "64x784x50")
CHEATS_BUDGET_S = 3.0
NO_GAIN = 1.1  # what a ratio of equals may show in so short a time
# Of the reasons that may be expected, those that a finding puts in other words.
_SEEN_AS = {"wrong result": ", expected ", "settings": " changes ", "error": "error: ", "crashed": "crashed: "}
_TURN_S, _TURNS, _QUICK_TURNS = 2.0, 5, 3  # of extrapolating
EXTRAPOLATED = [
    *(("triple-loop", text) for text in ("5x100x10", "8x784x4", "5x784x10", "16x16x16")),
    *(("row-slice", text) for text in ("64x784x50", "128x128x128", "200x784x10")),
    *(("broadcasting", text) for text in ("1000x784x50", "455x30x14", "512x512x512")),
]


def _workloads(quick: bool) -> tuple[str, ...]:
    return WORKLOADS[: 1 if quick else None]


def audit_measurement(part: str, quick: bool, progress: Progress) -> Iterator[Check]:
    """Carry out one part of :data:`~matmulbench.audit.MEASUREMENT`: the function of its name."""
    with Host(1) as host:
        yield from globals()[part.replace("-", "_")](host, quick, progress)


def _measured(
    host: Host, text: str, kernel: str, baseline: str, budget_s: float, settings: Settings | None = None
) -> MeasurementRow:
    """Return the row of ``kernel``, timed against ``baseline``."""
    cells = measure_cells(host, Workload.parse(text), [kernel], baseline, budget_s, settings=settings or Settings())
    return next(cell.row for cell in cells if cell.row.kernel == kernel)


def _planted(host: Host, text: str, kernel: str, baseline: str, budget_s: float) -> MeasurementRow:
    """Return the row of a kernel of :mod:`~matmulbench.audit.planted`, timed against another."""
    module = "matmulbench.audit.planted"
    return _measured(host, text, f"{module}:{kernel}", f"{module}:{baseline}", budget_s)


def _mostly(check: str, setting: str, held: list[bool], least: float) -> Check:
    """Return the line of what must have ``held`` in a share of at ``least`` so many trials."""
    share = sum(held) / len(held)
    return Check(check, setting, f"≥ {100 * least:.0f} %", f"{100 * share:.1f} %", share >= least)


def _near(check: str, setting: str, error: float, most: float) -> Check:
    """Return the line of what must be at ``most`` so far off."""
    return Check(check, setting, f"± {100 * most:.0f} %", f"{100 * error:+.2f} %", abs(error) <= most)


def same_twice(host: Host, quick: bool, progress: Progress) -> Iterator[Check]:
    """A/A: one kernel under two names must not differ, and the interval must contain 1."""
    trials, budget_s = (10, QUICK_BUDGET_S) if quick else (300, BUDGET_S)
    for busy, text in product((0, 1, 3), _workloads(quick)):
        progress(f"A/A {text}, {busy} busy processes")
        with _load(busy):
            rows = [_planted(host, text, "twin", "plain", budget_s) for _ in range(trials)]
        covered = [(row.speedup_ci_low or inf) <= 1 <= (row.speedup_ci_high or 0) for row in rows]
        setting = f"{text}, {trials} trials{f', {busy} busy' if busy else ''}"
        yield _mostly("A/A: interval contains 1", setting, covered, 0.93)
        yield _mostly("A/A: no false verdict", setting, [row.verdict in ("same", "unclear") for row in rows], 0.99)


@contextmanager
def _load(processes: int) -> Iterator[None]:
    """Keep so many other processes busy."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def restarts(_: Host, quick: bool, progress: Progress) -> Iterator[Check]:
    """Measure anew, everything started again: the medians must lie within each other's intervals."""
    rows: list[MeasurementRow] = []
    runs, budget_s = (4, QUICK_RESTART_S) if quick else (10, BUDGET_S)
    while len(rows) < runs:
        progress(f"restart {len(rows) + 1}")
        with Host(1) as host:
            rows.append(_measured(host, str(FIRST), "numba-tiled", BASELINE, budget_s))
    inside = [_contains(one, other.median_s) for one, other in permutations(rows, 2)]
    yield _mostly("restarts: medians within intervals", f"{FIRST}, {runs} runs", inside, 0.95)


def _contains(row: MeasurementRow, seconds: float | None) -> bool:
    """Tell whether the row's interval has ``seconds`` in it; nothing is in that of a kernel that failed."""
    return (row.ci_low_s or inf) <= (seconds or 0.0) <= (row.ci_high_s or 0.0)


def clocks(host: Host, quick: bool, progress: Progress) -> Iterator[Check]:
    """Time kernels that cheat in time: each is refused for a reason of its own, or no faster than torch is."""
    for text in CHEATED[: 1 if quick else 2]:
        for mutant in mutants("clocks")[:: 3 if quick else 1]:
            progress(f"{mutant.name} {text}")
            row = _measured(host, text, mutant.spec, BASELINE, CHEATS_BUDGET_S)
            yield _judge_cheat("in time", mutant, text, row.status, row.reason, row.speedup)
    for mutant in mutants("clocks")[:: 6 if quick else 1]:
        progress(f"{mutant.name} in training")
        for trained, _ in train_kernels(host, "digits", [mutant.spec], BASELINE, CHEATS_BUDGET_S):
            if trained.kernel == mutant.spec:
                gain = trained.measured_speedup
                yield _judge_cheat("in training", mutant, "digits", trained.status, trained.reason, gain)


def _judge_cheat(
    where: str, mutant: Mutant, setting: str, status: str, reason: str | None, gain: float | None
) -> Check:
    required = f"{' or '.join(one for one in mutant.expected if one != 'no gain')}; or no gain"
    got = f"{status}: {reason}"
    passed = any(_SEEN_AS.get(one, one) in got for one in mutant.expected)
    if status == Status.OK:
        passed, got = gain is not None and gain <= NO_GAIN, f"{gain or 0:.3g}x"
    return Check(f"{mutant.name} {where}", f"{setting}: {mutant.does}", required, got, passed)


def delays(host: Host, quick: bool, progress: Progress) -> Iterator[Check]:
    """Power: a kernel that is slower by a known share must be called so, and by how much."""
    trials = 8 if quick else 60
    for (delay, seconds), text in product(PLANTED[: 1 if quick else 2], _workloads(quick)):
        progress(f"planted delay of {100 * delay:.0f} % in {text}")
        name = f"delayed_{delay * 100:.0f}"
        rows = [_planted(host, text, name, "plain", 2 * seconds) for _ in range(trials)]
        size = median(1 / (row.speedup or inf) - 1 for row in rows)
        setting = f"{100 * delay:.0f} % in {text}, {seconds:g} s per kernel, {trials} trials"
        yield _mostly("delay called slower", setting, [row.verdict == "slower" for row in rows], 0.95)
        required, got = f"{100 * delay:.0f} % ± 1 point", f"{100 * size:.2f} %"
        yield Check("delay's size", setting, required, got, abs(size - delay) <= 0.01)


def durations(host: Host, _: bool, progress: Progress) -> Iterator[Check]:
    """Spin for a known time: it must be measured as such."""
    for name, seconds in DURATIONS.items():
        progress(f"a known duration, {name}")
        row = _planted(host, "1x1x1", name, name, 2.0)
        yield _near("known duration", name, (row.median_s or inf) / seconds - 1, 0.01)


def extrapolation(host: Host, quick: bool, progress: Progress) -> Iterator[Check]:
    """Time few rows and the whole, in the same rounds: what the few predict must be what the whole takes."""
    inside = []
    for kernel, text in EXTRAPOLATED[-3:] if quick else EXTRAPOLATED:
        progress(f"extrapolation of {kernel}, {text}")
        errors = []
        for _ in range(_QUICK_TURNS if quick else _TURNS):
            whole, predicted = _whole_and_predicted(host, text, kernel)
            fair = predicted.extrapolated and not whole.extrapolated
            errors.append(1 / (predicted.speedup or inf) - 1 if fair else inf)
            inside.append(_contains(predicted, whole.median_s))
        yield _near("extrapolation", f"{kernel}, {text}", median(errors), 0.1)
    yield _mostly("extrapolation: inside its interval", f"{len(inside)} times", inside, 0.9)


def _whole_and_predicted(host: Host, text: str, kernel: str) -> tuple[MeasurementRow, MeasurementRow]:
    """Return the row of ``kernel`` in full, and one predicted from calls of an eighth of its time at most."""
    whole = next(rung.target for rung in LADDER if rung.name == kernel)  # another name of the same
    alone = _measured(host, text, whole, whole, _TURN_S / 4, Settings(never_extrapolate=(whole,)))
    settings = Settings(limit_s=(alone.median_s or 0.0) / 8, never_extrapolate=(whole,))
    cells = measure_cells(host, Workload.parse(text), [kernel], whole, _TURN_S, settings=settings)
    rows = {cell.row.kernel: cell.row for cell in cells}
    return rows[whole], rows[kernel]


# What asv and pytest-benchmark need to time torch's product of TEXT.
_SCRIPT = """
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.workload import Workload
a, b = Workload.parse(TEXT).operands()
"""
_ASV = """
import json
from asv_runner.benchmarks.time import TimeBenchmark
def time_product(): matmul(a, b)
print(json.dumps(TimeBenchmark("time_product", time_product, [time_product]).run()["samples"]))
"""
_PYTEST = """
def test_product(benchmark): benchmark(matmul, a, b)
"""


def front_ends(host: Host, quick: bool, progress: Progress) -> Iterator[Check]:
    """Time one call with each front end that is installed: where the spreads of the times meet, they agree."""
    for text in _workloads(quick):
        progress(f"other front ends on {text}")
        # Beside another, so that it takes part in as many rounds as it does for a user; and at about the same time.
        ours = measure_cells(host, Workload.parse(text), ["numpy"], BASELINE, 3.0)[0]
        our_low, our_median, our_high = _spread(ours.samples)
        for name, samples in _front_end_samples(host, text).items():
            low, middle, high = _spread(samples)
            agree = our_low <= middle <= our_high or low <= our_median <= high
            drift = f"{100 * (middle / our_median - 1):+.1f} %"
            yield Check(f"{name} agrees", f"torch, {text}", "a median inside the other's spread", drift, agree)


def _spread(samples: list[float]) -> tuple[float, float, float]:
    """Return the median, between one and a half interquartile ranges (Tukey's fences) below and above the quartiles."""
    low, middle, high = quantiles(samples, method="inclusive")
    return low - 1.5 * (high - low), middle, high + 1.5 * (high - low)


def _front_end_samples(host: Host, text: str) -> dict[str, list[float]]:
    """Return the seconds of calls that each front end reports of a workload, with ``host``'s number of threads."""
    environment, samples = os.environ | thread_environment(host.threads), {}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "test_product.py"), Path(folder, "out.json")

        def run(script: str, *arguments: str) -> str:
            path.write_text(_SCRIPT.replace("TEXT", repr(text)) + script)
            command = [sys.executable, *arguments, str(path)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

        if find_spec("asv_runner"):
            samples["asv"] = json.loads(run(_ASV))
        if find_spec("pytest_benchmark"):
            quiet = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}")
            run(_PYTEST, *quiet, "--benchmark-save-data", f"--benchmark-json={out}")
            samples["pytest-benchmark"] = json.loads(out.read_text())["benchmarks"][0]["stats"]["data"]
    return samples
