"""The nodes of a cluster, as its client sees them."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from matmulbench.errors import UsageError, printable
from matmulbench.fleet.node import carry_out_unit
from matmulbench.fleet.parcel import Parcel, sources
from matmulbench.fleet.units import Entry, Unit, add_lost
from matmulbench.isolation import LostError
from matmulbench.pipeline import Job, Progress, Sink
from matmulbench.results.folder import cell_key
from matmulbench.results.machine import library_versions
from matmulbench.results.schema import TABLES

START = "dask worker SCHEDULER --nthreads 1 --resources machine=1"
_MUST_AGREE = ("matmulbench", "torch", "numpy", "numba")
_NOT_OF_A_KIND = ("memory", "system")  # machines of one kind may differ in them
_CONNECT_S = 5.0
_ANSWER_S = 60.0
LOOK_S = 1.0

Work = Callable[[Parcel, str], list[Entry]]


@dataclass(eq=False)
class Node:
    """A computer of the fleet, whatever workers it has, and the unit that one of them is at."""

    name: str
    machine: dict[str, Any]
    versions: dict[str, str]
    worker: str = ""
    unit: Unit | None = None
    future: Any = None

    def group(self, each: str) -> str:
        """Name the folder of its results: that of its kind, or with ``each`` host its own."""
        kind = hashlib.sha256(json.dumps([self.machine, self.versions], sort_keys=True).encode()).hexdigest()[:6]
        cpu = re.sub(r"[^a-z0-9]+", "-", str(self.machine["cpu"]).lower()).strip("-")[:40]
        own = f"-{self.name}" if each == "host" else ""
        return f"{cpu}-{self.machine['cores']}-cores-{kind}{own}"

    def result(self) -> list[Entry]:
        """Return what it found.

        Raises
        ------
        LostError
            if it failed, or what it found is gone.
        UsageError
            if something in its unit cannot be used there.
        """
        try:
            return self.future.result(timeout=_CONNECT_S)  # type: ignore[no-any-return]
        except UsageError as error:
            raise UsageError(f"host {self.name}: {error}") from None
        except Exception as error:  # cancelled, too, where the scheduler was out of reach
            raise LostError(f"host {self.name}: {printable(str(error), 200) or type(error).__name__}") from None


class Fleet:
    """The nodes of a Dask cluster; a context manager.

    Raises
    ------
    UsageError
        if there is no scheduler at ``address``, no worker, or one that cannot be used: without the resource
        ``machine``, or with other versions than here.
    """

    def __init__(self, address: str) -> None:
        self.address, self.client = address, _connect(address)
        self.run = f"matmulbench-{uuid.uuid4().hex}"
        self.nodes: dict[str, Node] = {}  # by host
        self.alive: dict[str, Node] = {}  # of each worker that is there and of use
        self._known: dict[str, Node | None] = {}  # of each worker that was ever there; None: of no use
        try:
            with suppress(TimeoutError):
                self.client.wait_for_workers(1, timeout=_CONNECT_S)
            if amiss := self.look():
                raise UsageError("\n".join([*amiss, f"start each worker as: {START}"]))
            if not self.nodes:
                raise UsageError(f"scheduler {address} has no workers; start one on each machine: {START}")
        except BaseException:
            self.client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @property
    def cores(self) -> int:
        """The cores that every node has."""
        return min(int(node.machine["cores"]) for node in self.nodes.values())

    def look(self) -> list[str]:
        """Notice workers that came or left; return what is amiss with those that came.

        Raises
        ------
        UsageError
            if the scheduler is gone.
        """
        client = self.client
        try:  # not client.scheduler_info, which now and then returns what Dask's own timer asked for: no workers at all
            workers = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_S)["workers"]
        except (OSError, RuntimeError):
            if client.status not in ("running", "connecting"):
                raise UsageError(
                    f"scheduler {self.address} is gone; what was finished is kept: go on with --resume"
                ) from None
            return []  # it may come back
        amiss = []
        new = workers.keys() - self._known.keys()
        for address, answer in self._ask(new).items() if new else ():
            self._known[address] = None
            if finding := _finding(workers[address]["resources"], answer):
                amiss.append(f"worker {address}: {finding}")
                continue
            name = hashlib.sha256(answer["host"].encode()).hexdigest()[:8]
            machine = {each: value for each, value in answer["machine"].items() if each not in _NOT_OF_A_KIND}
            self._known[address] = self.nodes.setdefault(name, Node(name, machine, answer["versions"]))
        self.alive = {address: node for address in workers if (node := self._known[address])}
        return amiss

    def _ask(self, addresses: Iterable[str]) -> dict[str, Any]:
        """Return how each of these workers describes itself, or why it does not."""

        def introduction() -> Any:  # a function in a function travels by value: a worker may not have this module
            try:
                from matmulbench.fleet.node import introduce

                return introduce()
            except Exception as error:
                return f"{error}; install the same matmulbench there" if isinstance(error, ImportError) else repr(error)

        try:
            answers = self.client.run(
                introduction, workers=list(addresses), on_error="return", callback_timeout=_ANSWER_S
            )
        except (OSError, TimeoutError) as error:
            answers = dict.fromkeys(addresses, error)
        return {one: f"no answer: {got!r}" if isinstance(got, Exception) else got for one, got in answers.items()}

    def begin(self, node: Node, worker: str, unit: Unit, parcel: Parcel, work: Work = carry_out_unit) -> None:
        """Have a worker of a node do a unit."""
        node.unit, node.worker = unit, worker
        node.future = self.client.submit(
            work,
            parcel,
            self.run,
            key=f"{self.run}-{uuid.uuid4().hex}",
            workers=[worker],
            allow_other_workers=False,
            resources={"machine": 1},
            retries=0,
            pure=False,
        )

    def stop(self) -> None:
        """Let go of whatever is still being done."""
        with suppress(Exception):  # the scheduler may be gone
            self.client.cancel([node.future for node in self.nodes.values() if node.future], force=True)
        for node in self.nodes.values():
            node.unit = node.future = None

    def carry_out(self, job: Job, sink: Sink, progress: Progress = lambda text, seconds: None) -> None:
        """Carry out a job with one training, of whose workers each has a host to itself.

        One host does all else, too; the others serve it ranks. Whatever ends a host costs what is left of the training.

        Raises
        ------
        UsageError
            if there are fewer hosts than workers, the scheduler is gone, or the data cannot be read.
        """
        [training], unit, found, key = job.trainings, Unit(job), sources(job), secrets.token_bytes(32)
        # In one order for everyone: two that train at once would wait for each other for ever.
        hosts = sorted({node.name: (node, address) for address, node in self.alive.items()}.items())
        if training.workers > len(hosts):
            raise UsageError(f"workers {training.workers}: expected {len(hosts)} at most, the hosts of the cluster")
        first, *others = [host for _, host in hosts[: training.workers]]
        elsewhere: list[tuple[str, int, bytes]] = []
        entries: list[Entry] = []
        reason = "its cells did not arrive"
        try:
            for node, worker in others:
                progress(f"host {node.name} takes part", 0.0)
                self.begin(node, worker, unit, Parcel(job, found, key=key))
                while not (events := self.client.get_events(node.future.key)):
                    self._wait(node)
                elsewhere.append((*events[0][1], key))
            node, worker = first
            progress(f"host {node.name} takes part: {unit.about}", 0.0)
            part = replace(job, trainings=(replace(training, elsewhere=tuple(elsewhere)),))
            self.begin(node, worker, unit, Parcel(part, found))
            while not node.future.done():
                self._wait(node)
            entries = node.result()
        except LostError as error:
            reason = str(error)
        finally:
            self.stop()
        for entry in entries:
            sink.add(**entry | {"row": TABLES[entry["table"]](**entry["row"])})
        arrived = {cell_key(entry) for entry in entries}
        missing = (cell for cell in unit.cells() if cell_key({"table": cell[0], "row": vars(cell[1])}) not in arrived)
        add_lost(sink, missing, reason)

    def _wait(self, node: Node) -> None:
        """Wait a moment; raise LostError if a node is lost meanwhile, UsageError if it cannot use its unit."""
        if node.future.done():
            node.result()
            raise LostError(f"host {node.name} does not serve ranks any more")
        time.sleep(LOOK_S / 4)
        self.look()
        if node.worker not in self.alive:
            raise LostError(f"worker of host {node.name} is gone")


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--scheduler needs Dask; install matmulbench[fleet]") from None
    try:
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = printable(str(error), 200)
    gc.collect()  # ends the client that failed: in the midst of another's start it would wait for ever
    raise UsageError(
        f"scheduler {printable(address, 100)!r} cannot be reached ({reason}); start one with `dask scheduler`, and on "
        f"each machine: {START}"
    )


def _finding(resources: dict[str, float], answer: dict[str, Any] | str) -> str | None:
    """Say why a worker cannot be used, by what it says of itself."""
    if isinstance(answer, str):
        return printable(answer, 300)
    here, there = library_versions(), answer["versions"]
    if differences := [name for name in _MUST_AGREE if here[name] != there[name]]:
        return ", ".join(f"{name} is {there[name]} there, {here[name]} here" for name in differences)
    return None if resources.get("machine") else "it has no resource `machine`"
