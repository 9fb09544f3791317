"""What a node does at a time, and a plan parted into that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from matmulbench.measurement.cells import failed_cell
from matmulbench.pipeline import Job, Sink
from matmulbench.results.schema import Row, TrainingRow, VerificationRow
from matmulbench.status import Status

Cell = tuple[str, Row]  # a table, and the row there is as long as no node has done it
Entry = dict[str, Any]  # of a journal


@dataclass(eq=False)
class Unit:
    """What a node does at a time, and the nodes that were lost while they did it."""

    job: Job
    lost_on: list[str] = field(default_factory=list)

    @property
    def verifies(self) -> bool:
        """Whether it is a verification, which others wait for."""
        return not (self.job.workloads or self.job.trainings)

    def cells(self) -> Iterator[Cell]:
        """Yield each cell, verifications first."""
        job = self.job
        for spec, dtype in product(job.specs, job.all_dtypes):
            yield "verification", VerificationRow(spec, dtype, status=Status.LOST)
        for spec, threads in product(job.specs, job.threads):
            for workload, _ in job.workloads:
                yield "measurements", failed_cell(workload, threads, spec, Status.LOST, None, job.device).row
            for one in job.trainings:
                yield "training", TrainingRow(one.task, spec, threads, one.workers, job.device, Status.LOST)

    @property
    def about(self) -> str:
        """What is done, for a user who waits."""
        job = self.job
        what = [f"measure {workload} {workload.dtype}" for workload, _ in job.workloads]
        what += [f"train {training.task}" for training in job.trainings]
        return what[0] if what else f"verify {job.kernels[0]} {job.dtypes[0]}"


def add_lost(sink: Sink, cells: Iterable[Cell], reason: str) -> None:
    """Note that no node could do these cells."""
    for table, row in cells:
        why: dict[str, Any] = {"finding" if table == "verification" else "reason": reason}
        sink.add(table, replace(row, **why))


def units(job: Job) -> Iterator[Unit]:
    """Part a job into what one node does at a time: verifications first, then what takes longest."""
    nothing: dict[str, Any] = {"dtypes": (), "workloads": (), "trainings": ()}
    for spec, dtype in product(job.specs, job.all_dtypes):
        yield Unit(replace(job, **nothing | {"kernels": (spec,), "baseline": None, "dtypes": (dtype,)}))
    parts = [{"workloads": (one,), "threads": (threads,)} for threads, one in product(job.threads, job.workloads)]
    parts += [{"trainings": (one,), "threads": (threads,)} for threads, one in product(job.threads, job.trainings)]
    yield from sorted((Unit(replace(job, **nothing | part)) for part in parts), key=lambda unit: -unit.job.seconds())
