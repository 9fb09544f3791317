"""What a fleet costs, and how equal hosts share a plan out. For a quiet machine.

``python benchmarks/fleet_figures.py overhead --pairs 3 --preset standard`` carries out the same plan on this host with
and without a fleet of one, in turns. ``python benchmarks/fleet_figures.py sharing`` has units that sleep done by one
simulated host and by four.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import cloudpickle
from distributed import LocalCluster

from matmulbench.fleet import Fleet, dispatch, execute
from matmulbench.fleet.parcel import Parcel
from matmulbench.fleet.units import Unit
from matmulbench.pipeline import Job
from matmulbench.run import Run
from matmulbench.status import Status
from matmulbench.workload import Workload

# Each worker says that it is on a computer of its own.
SIMULATED = """
from matmulbench.fleet import node
def dask_setup(worker):
    node.host_id = lambda: str(worker.name)
"""


def cluster(hosts: int, folder: Path) -> LocalCluster:
    (folder / "simulated.py").write_text(SIMULATED)
    return LocalCluster(
        n_workers=hosts,
        threads_per_worker=1,
        resources={"machine": 1},
        preload=[str(folder / "simulated.py")],
        dashboard_address=":0",
        local_directory=str(folder),
    )


def overhead(folder: Path, pairs: int, preset: str) -> None:
    def seconds(out: str, *more: str) -> float:
        command = [sys.executable, "-m", "matmulbench", "run", "-q", "--preset", preset, "--out", str(folder / out)]
        start = time.perf_counter()
        subprocess.run([*command, *more], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    with cluster(1, folder) as one:
        for pair in range(pairs):
            took = {}
            for which in ("alone", "fleet") if pair % 2 else ("fleet", "alone"):
                more = ["--scheduler", one.scheduler_address] if which == "fleet" else []
                took[which] = seconds(f"{which}-{pair}", *more)
            ratio = took["fleet"] / took["alone"]
            print(f"alone {took['alone']:.1f} s, fleet {took['fleet']:.1f} s: {ratio - 1:+.1%}", flush=True)


def sleeps(parcel: Parcel, run: str) -> list[dict[str, object]]:
    time.sleep(0.5)
    cells = Unit(parcel.job).cells()
    return [{"table": table, "row": asdict(replace(row, status=Status.OK)), "samples": []} for table, row in cells]


def sharing(folder: Path, units: int = 60) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    dispatch.write_report = lambda path: path  # of what only slept
    job = Job(("numpy",), workloads=tuple((Workload(i, 8, 8), 0.2) for i in range(1, units + 1)))
    took = {}
    for hosts in (1, 4):
        with cluster(hosts, folder) as found, Fleet(found.scheduler_address) as several:
            start = time.perf_counter()
            execute(several, Run("quick", job), folder / f"out-{hosts}", work=sleeps)
            took[hosts] = time.perf_counter() - start
    print(f"one host {took[1]:.1f} s, four {took[4]:.1f} s: {took[4] / took[1]:.3f} of the time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "sharing"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--preset", default="standard")
    given = parser.parse_args()
    os.environ.setdefault("DASK_DISTRIBUTED__WORKER__DAEMON", "False")  # workers start processes
    with tempfile.TemporaryDirectory() as name:
        overhead(Path(name), given.pairs, given.preset) if given.what == "overhead" else sharing(Path(name))
