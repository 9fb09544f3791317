"""The same run on many machines: a plan's units go to the workers of a Dask cluster, finished cells come back.

A *unit* is one workload, dtype and thread count with all its kernels, one task, or the verification of one kernel. The
client gives each *node* (a computer, whatever workers it has) one unit at a time, and journals what it finds; nodes of
one *kind* share a plan out. On a node, a unit is carried out by :func:`matmulbench.pipeline.carry_out` in a process
apart from Dask's, which ends when its client no longer asks for it.

Whoever can reach a Dask scheduler can run anything on its workers: it belongs on a trusted network or behind TLS.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

from matmulbench.errors import UsageError, printable
from matmulbench.isolation import Child, Host, LostError
from matmulbench.isolation.requests import CarryOut, PreloadTask, ServeRanks
from matmulbench.ladder.plugins import find_function, find_kernel, import_root
from matmulbench.measurement.cells import failed_cell
from matmulbench.pipeline import Bench, Job, Progress, Sink, carry_out
from matmulbench.report import write_report
from matmulbench.results.folder import RUN, FolderError, RunFolder, cell_key, check_unchanged
from matmulbench.results.machine import describe_machine, library_versions
from matmulbench.results.schema import TABLES, Row, TrainingRow, VerificationRow
from matmulbench.run import Run
from matmulbench.status import Status
from matmulbench.training.tasks import is_model

START = "dask worker SCHEDULER --nthreads 1 --resources machine=1"
_MUST_AGREE = ("matmulbench", "torch", "numpy", "numba")
_NOT_OF_A_KIND = ("memory", "system")  # machines of one kind may differ in them
_CONNECT_S = 5.0
_ANSWER_S = 60.0
_LOOK_S = 1.0
_GRACE_S = 60.0  # in which a worker may come back before what is left for its kind is lost
_IDLE_S = 10.0  # after which a node's process ends that waits for a unit
_ATTEMPTS = 3
_UNLIMITED = 2**62


def host_id() -> str:
    """Return what tells this computer from others; containers on it have the same."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{uuid.getnode():x}"


def introduce() -> dict[str, Any]:
    """Describe the computer that a worker is on."""
    return {"host": host_id(), "machine": describe_machine(), "versions": library_versions()}


# --- units ---------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Source:
    """A user's file and those beside it that it imports, by their paths in the folder that is searched for them."""

    path: str
    function: str
    files: dict[str, bytes]

    @classmethod
    def of(cls, spec: str, kind: str = "kernel") -> Source | None:
        """Read what ``spec`` names, if that is a file."""
        place = (find_kernel(spec) if kind == "kernel" else find_function(spec, kind=kind)).rpartition(":")[0]
        if not place.endswith(".py"):
            return None
        path = Path(place)
        root = import_root(path)
        files: dict[str, bytes] = {}
        todo = [path]
        while todo:
            file = todo.pop()
            name = file.relative_to(root).as_posix()
            if name in files or not file.is_file():
                continue
            files[name] = file.read_bytes()
            if "/" in name:  # of a package everything
                todo += (root / name.partition("/")[0]).rglob("*.py")
            for imported in _imports(files[name]):
                todo += [root / f"{imported}.py", root / imported / "__init__.py"]
        return cls(path.relative_to(root).as_posix(), spec.rpartition(":")[2], files)

    @property
    def checksum(self) -> str:
        """SHA-256 of all files with their names."""
        return hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()

    def write(self, folder: Path) -> str:
        """Write the files into a folder of their own; return the spec that names the function there."""
        folder /= self.checksum[:16]
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return f"{folder / self.path}:{self.function}"


def _imports(source: bytes) -> Iterator[str]:
    """Yield the modules that Python code imports from without its package, by their first names."""
    with suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def sources(job: Job) -> dict[str, Source]:
    """Return, by its spec, each file that a job's kernels and models are in."""
    named = [(spec, "kernel") for spec in job.specs]
    named += [(one.task, "model") for one in job.trainings if is_model(one.task)]
    return {spec: source for spec, kind in named if (source := Source.of(spec, kind))}


@dataclass(frozen=True)
class Parcel:
    """What a node is sent: a unit's job, the files that it needs, and the entries of its cells that are done."""

    job: Job
    sources: dict[str, Source]
    done: list[Entry] = field(default_factory=list)
    key: bytes = b""  # by which the host that trains is known to those that serve it ranks

    def unpack(self, folder: Path, ip: str) -> CarryOut | ServeRanks:
        """Write the files below ``folder``; return the request to carry out the job there, or to serve it ranks."""
        there = {spec: source.write(folder) for spec, source in self.sources.items()}
        if self.key:
            [one] = self.job.trainings
            preload = PreloadTask(one.task, self.job.seed, one.data_dir, one.options)
            ends = {spec.removeprefix(str(folder)): spec for spec in there.values()}
            return ServeRanks(ip, self.key, self.job.import_s, preload, ends)
        job = replace(
            self.job,
            kernels=tuple(there.get(spec, spec) for spec in self.job.kernels),
            baseline=there.get(self.job.baseline or "", self.job.baseline),
            trainings=tuple(replace(one, task=there.get(one.task, one.task)) for one in self.job.trainings),
        )
        return CarryOut(job, self.done, {where: spec for spec, where in there.items()})


# --- on a node -----------------------------------------------------------------------------------------


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


# --- the client ----------------------------------------------------------------------------------------


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


@dataclass(eq=False)
class Group:
    """A plan that the nodes of one kind share, or one node does: its folder, and the units that nobody does yet."""

    folder: RunFolder
    pending: list[Unit]
    last_alive: float = 0.0

    def left(self, unit: Unit) -> list[Cell]:
        """Return the cells of a unit that are not done."""
        return [(table, row) for table, row in unit.cells() if not self.folder.done(table, **vars(row))]


Work = Callable[[Parcel, str], list[Entry]]


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
                from matmulbench.fleet import introduce

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
        time.sleep(_LOOK_S / 4)
        self.look()
        if node.worker not in self.alive:
            raise LostError(f"worker of host {node.name} is gone")

    def execute(
        self,
        run: Run,
        out: Path,
        each: str = "machine",
        resume: bool = False,
        progress: Progress = lambda text, seconds: None,
        work: Work = carry_out_unit,
    ) -> Path:
        """Carry out a plan on every kind of machine, or with ``each`` host on every host; return the report's path.

        Every finished cell is journalled at once, in a folder for each kind or host below ``out``. ``work`` is what a
        worker does with a unit.

        Raises
        ------
        FolderError
            if ``out`` cannot be used; see :class:`RunFolder`.
        UsageError
            if the scheduler is gone, or a training's data cannot be read on a node.
        """
        found = sources(run.job)
        checksums = {spec: source.checksum for spec, source in found.items()}
        options = run.options() | {"each": each, "sources": checksums}
        if (out / RUN).exists():
            raise FolderError(f"folder {out} holds a run of one machine; name another --out")
        for earlier in sorted(out.glob(f"*/{RUN}")):
            if not resume:
                raise FolderError(f"folder {out} holds a run already; continue it with --resume, or name another --out")
            check_unchanged(earlier.parent, {"options": options}, ["options"])
        with ExitStack() as stack:
            stack.callback(self.stop)
            _Dispatch(self, run.job, found, out, options, resume, progress, work, stack).carry_out()
        for folder in sorted(path.parent for path in out.glob(f"*/{RUN}")):
            progress(f"report {folder.name}", 0.0)
            write_report(folder)
        return write_report(out)


@dataclass
class _Dispatch:
    """One run on a fleet: gives units to nodes, and journals what they find."""

    fleet: Fleet
    job: Job
    sources: dict[str, Source]
    out: Path
    options: dict[str, Any]
    resume: bool
    progress: Progress
    work: Work
    stack: ExitStack
    groups: dict[str, Group] = field(default_factory=dict)

    def carry_out(self) -> None:
        """Have every unit of every group done, or lost."""
        from distributed import wait

        looked = time.monotonic()
        while True:
            if time.monotonic() - looked > _LOOK_S:
                for finding in self.fleet.look():
                    self.progress(f"warning: {finding}: not used", 0.0)
                looked = time.monotonic()
                self._give_up()
            self._assign()
            busy = [node for node in self.fleet.nodes.values() if node.future]
            if busy:
                with suppress(TimeoutError, CancelledError), self.fleet.client.as_current():
                    wait([node.future for node in busy], timeout=_LOOK_S, return_when="FIRST_COMPLETED")
            elif any(group.pending for group in self.groups.values()):
                time.sleep(_LOOK_S)
            else:
                return
            for node in busy:
                if node.future.done():
                    self._take(node)

    def _group(self, node: Node) -> Group:
        """Return the group that a node belongs to; the first of a kind opens its folder."""
        name = node.group(self.options["each"])
        if name not in self.groups:
            folder = RunFolder(self.out / name, self.options, self.resume, node.machine, node.versions)
            self.stack.enter_context(folder)
            group = self.groups[name] = Group(folder, [])
            group.pending = [unit for unit in units(self.job) if group.left(unit)]
            self.progress(f"{name}: {len(group.pending)} units", 0.0)
        return self.groups[name]

    def _assign(self) -> None:
        """Give each node that waits a unit: not one that it was lost with, if another of its kind can do that."""
        alive = {node: worker for worker, node in self.fleet.alive.items()}
        of = {node: self._group(node) for node in alive}
        verifying = {of[node] for node in alive if node.unit and node.unit.verifies}
        for node, worker in alive.items():
            group = of[node]
            group.last_alive = time.monotonic()
            if node.unit:
                continue
            for unit in group.pending:
                if not unit.verifies and (group in verifying or group.pending[0].verifies):
                    break
                others = (one for one in alive if of[one] is group and one.name not in unit.lost_on)
                if node.name not in unit.lost_on or not any(others):
                    self._begin(node, worker, unit, group)
                    if unit.verifies:
                        verifying.add(group)
                    break

    def _begin(self, node: Node, worker: str, unit: Unit, group: Group) -> None:
        group.pending.remove(unit)
        cells = ((table, group.folder.done(table, **vars(row))) for table, row in unit.cells())
        done = [{"table": table, "row": row} for table, row in cells if row]
        self.progress(f"{node.name}: {unit.about}", 0.0)
        self.fleet.begin(node, worker, unit, Parcel(unit.job, self.sources, done), self.work)

    def _take(self, node: Node) -> None:
        reason = "its cells did not arrive"
        try:
            for entry in node.result():
                self._group(node).folder.add(**entry, host=node.name)
        except LostError as error:
            reason = str(error)
        self._release(node, reason)

    def _give_up(self) -> None:
        """Take units from nodes whose worker is gone; what has no node left that could do it is lost."""
        for node in self.fleet.nodes.values():
            if node.future and node.worker not in self.fleet.alive:
                node.future.cancel(force=True)
                self._release(node, f"worker of host {node.name} is gone")
        for group in self.groups.values():
            if group.pending and time.monotonic() - group.last_alive > _GRACE_S:
                for unit in group.pending:
                    add_lost(group.folder, group.left(unit), "no worker of its kind is left")
                group.pending = []

    def _release(self, node: Node, reason: str) -> None:
        """Let a node go; what it left of its unit is done again, on another if there is one."""
        unit, group = node.unit, self._group(node)
        node.unit = node.future = None
        if not unit or not group.left(unit):
            return
        unit.lost_on.append(node.name)
        if len(unit.lost_on) < _ATTEMPTS:
            self.progress(f"warning: {node.name}: {reason}; its unit is done again", 0.0)
            group.pending.insert(0, unit)
        else:
            add_lost(group.folder, group.left(unit), f"tried {_ATTEMPTS} times; {reason}")


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
