"""What `matmulbench compare` finds and misses between real runs of one machine: changes planted in their samples.

    python benchmarks/planted_changes.py runs/1 runs/2 runs/3

Each run is compared with each later one: as they are, where `faster` and `slower` are false alarms; and with samples of
the later one made longer: by turns in one kernel of each product, so that all rows have had their turn after as many
comparisons as there are kernels, and in one kernel on all its products. Runs made while other programs worked say so;
of such, little is to be had.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from itertools import combinations

import numpy as np

from matmulbench.comparison import compare
from matmulbench.report.headline import warnings
from matmulbench.results.folder import Results, load_results
from matmulbench.results.schema import EVERY

SIZES = (1.03, 1.05, 1.10, 1.20)


def planted(run: Results, factor: float, chosen: Callable[[str, str], bool]) -> Results:
    """Return a copy of ``run`` with the samples of the cells that are ``chosen`` longer by ``factor``."""
    found = copy.copy(run)
    found.journal = [copy.copy(entry) for entry in run.journal]
    for entry in found.journal:
        if entry["table"] == "measurements" and chosen(entry["row"]["workload"], entry["row"]["kernel"]):
            entry["samples"] = [factor * sample for sample in entry["samples"]]
    return found


def main() -> None:
    """Print the shares."""
    runs = [load_results(folder) for folder in sys.argv[1:]]
    for run in runs:
        print(f"{run.path}: {'; '.join(warnings(run)) or 'undisturbed'}")
    for a, b in combinations(runs, 2):
        quiet = compare(a, b)
        rows = quiet[quiet["workload"] != EVERY]
        workloads, kernels = list(dict.fromkeys(rows["workload"])), list(dict.fromkeys(rows["kernel"]))
        rounds = np.median([len(cell["samples"]) for run in (a, b) for cell in run.cells("measurements").values()])
        width = np.nanmedian(np.sqrt(rows["speedup_ci_high"] / rows["speedup_ci_low"]).astype(float) - 1)
        claims = rows["verdict"].isin(["faster", "slower"])
        print(f"\n{a.path} and {b.path}: {rounds:.0f} rounds and a 90 % interval of ±{width:.1%} in the middle")
        print(f"  unchanged: {(rows['verdict'] == 'same').mean():.0%} of {len(rows)} rows same, {claims.sum()} false")
        whole = quiet[quiet["workload"] == EVERY].set_index("kernel")["verdict"]
        print(f"  kernels unchanged: {', '.join(f'{kernel} {verdict}' for kernel, verdict in whole.items())}")
        for size in SIZES:
            in_rows, in_kernels = [], []
            for turn in range(len(kernels)):
                place = {w: kernels[(i + turn) % len(kernels)] for i, w in enumerate(workloads)}
                frame = compare(a, planted(b, size, lambda w, k, place=place: place.get(w) == k))
                hit = [place.get(w) == k for w, k in zip(frame["workload"], frame["kernel"], strict=True)]
                in_rows += list(frame["verdict"][hit] == "slower")
                one = kernels[turn]
                frame = compare(a, planted(b, size, lambda w, k, one=one: k == one))
                in_kernels += list(
                    frame["verdict"][(frame["workload"] == EVERY) & (frame["kernel"] == one)] == "slower"
                )
            print(
                f"  {size - 1:.0%} planted: slower in {np.mean(in_rows):.0%} of the rows where it was, "
                f"in {sum(in_kernels)} of {len(in_kernels)} kernels where all rows had it"
            )


main()
