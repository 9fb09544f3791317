"""A run on many machines: units are given to nodes, and what they find is journalled."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matmulbench.fleet.client import LOOK_S, Fleet, Node, Work
from matmulbench.fleet.node import carry_out_unit
from matmulbench.fleet.parcel import Parcel, Source, sources
from matmulbench.fleet.units import Cell, Unit, add_lost, units
from matmulbench.isolation import LostError
from matmulbench.pipeline import Job, Progress
from matmulbench.report import write_report
from matmulbench.results.folder import RUN, FolderError, RunFolder, check_unchanged
from matmulbench.run import Run

_GRACE_S = 60.0  # in which a worker may come back before what is left for its kind is lost
_ATTEMPTS = 3


@dataclass(eq=False)
class Group:
    """A plan that the nodes of one kind share, or one node does: its folder, and the units that nobody does yet."""

    folder: RunFolder
    pending: list[Unit]
    last_alive: float = 0.0

    def left(self, unit: Unit) -> list[Cell]:
        """Return the cells of a unit that are not done."""
        return [(table, row) for table, row in unit.cells() if not self.folder.done(table, **vars(row))]


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
            if time.monotonic() - looked > LOOK_S:
                for finding in self.fleet.look():
                    self.progress(f"warning: {finding}: not used", 0.0)
                looked = time.monotonic()
                self._give_up()
            self._assign()
            busy = [node for node in self.fleet.nodes.values() if node.future]
            if busy:
                with suppress(TimeoutError, CancelledError), self.fleet.client.as_current():
                    wait([node.future for node in busy], timeout=LOOK_S, return_when="FIRST_COMPLETED")
            elif any(group.pending for group in self.groups.values()):
                time.sleep(LOOK_S)
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


def execute(
    fleet: Fleet,
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
        stack.callback(fleet.stop)
        _Dispatch(fleet, run.job, found, out, options, resume, progress, work, stack).carry_out()
    for folder in sorted(path.parent for path in out.glob(f"*/{RUN}")):
        progress(f"report {folder.name}", 0.0)
        write_report(folder)
    return write_report(out)
