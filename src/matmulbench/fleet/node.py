"""What runs on a node: a unit, in a process apart from Dask's that ends when its client no longer asks for it."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError
from matmulbench.fleet.parcel import Parcel
from matmulbench.fleet.units import Entry
from matmulbench.isolation import Child, Host, LostError
from matmulbench.pipeline import Bench, Job, carry_out
from matmulbench.results.folder import cell_key
from matmulbench.results.machine import describe_machine, library_versions
from matmulbench.status import Status

_IDLE_S = 10.0  # after which a node's process ends that waits for a unit
_UNLIMITED = 2**62


def host_id() -> str:
    """Return what tells this computer from others; containers on it have the same."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{uuid.getnode():x}"


def introduce() -> dict[str, Any]:
    """Describe the computer that a worker is on."""
    return {"host": host_id(), "machine": describe_machine(), "versions": library_versions()}


class _Found:
    """The entries that a unit's pipeline finds, under the names that the client has for kernels and models."""

    def __init__(self, done: list[Entry], names: dict[str, str]) -> None:
        self._done, self._names = {cell_key(entry): entry["row"] for entry in done}, names
        self.entries: list[Entry] = []

    def rename(self, text: str) -> str:
        for here, name in self._names.items():
            text = text.replace(here, name).replace(here.rpartition(":")[0], name.rpartition(":")[0])
        return text

    def _renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: self.rename(value) if isinstance(value, str) else value for name, value in row.items()}

    def done(self, table: str, **key: Any) -> dict[str, Any] | None:
        return self._done.get(cell_key({"table": table, "row": self._renamed(key)}))

    def add(self, table: str, row: Any, samples: list[float] | None = None, **extra: Any) -> None:
        self.entries.append({"table": table, "row": self._renamed(asdict(row)), "samples": samples, **extra})


_bench = Bench()  # in the process that carries out units


def carry_out_here(job: Job, done: list[Entry], names: dict[str, str]) -> tuple[list[Entry], str | None]:
    """Carry out a job in this process; return what it found, and what cannot be used of it, if something cannot."""
    found = _Found(done, names)
    try:
        carry_out(job, found, bench=_bench)
    except UsageError as error:
        return [], found.rename(str(error))
    return found.entries, None


_kept: list[tuple[str, Child, threading.Timer]] = []  # the process that waits for the next unit of a run


def _take_kept(run: str = "") -> Child | None:
    """Return the process that waits for a unit of ``run``; one that waits for another's is ended."""
    with suppress(IndexError):  # none waits
        name, child, timer = _kept.pop()
        timer.cancel()
        if name == run:
            return child
        child.host.close()
    return None


def carry_out_unit(parcel: Parcel, run: str) -> list[Entry]:
    """Carry out a unit, as a Dask task, and return what it found: no other is timed on this computer meanwhile.

    It ends as soon as the client is gone, or wants it no more; so does every process that it started.
    """
    from distributed import Lock, get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status.name in ("running", "paused") and task is not None and task.state == "executing"

    def watch() -> None:
        while not finished.wait(0.5):
            if not wanted():
                child.host.end_children()

    request, finished = parcel.unpack(Path(worker.local_directory), worker.ip), threading.Event()
    lock = Lock(f"matmulbench-{host_id()}")
    while not lock.acquire(timeout=1):
        if not wanted():
            return []
    try:
        child = _take_kept(run) or Host().fork(type(request), memory_limit=_UNLIMITED)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        outcome = child.call(
            request,
            silence_limit=300 + 10 * parcel.job.seconds(),
            on_progress=lambda address: worker.log_event(key, address),  # where it serves ranks
        )
        finished.set()
        watcher.join()
        if outcome.status != Status.OK:
            child.host.close()
            raise LostError(outcome.reason)
        timer = threading.Timer(_IDLE_S, _take_kept)
        timer.daemon = True
        _kept.append((run, child, timer))
        timer.start()
        entries, unusable = outcome.value
        if unusable:
            raise UsageError(unusable)
        return entries  # type: ignore[no-any-return]
    finally:
        finished.set()
        lock.release()
