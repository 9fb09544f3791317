"""A run's folder: ``run.json``, the append-only journal and the tables made from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from matmulbench.errors import UsageError, printable, warn
from matmulbench.ladder import BASELINE
from matmulbench.results.files import read_json
from matmulbench.results.machine import describe_machine, library_versions
from matmulbench.results.schema import (
    ENTRIES,
    KEYS,
    READABLE,
    RUN_FIELDS,
    SCHEMA_VERSION,
    TABLES,
    Status,
    columns,
    frame,
    misfit,
)

if TYPE_CHECKING:
    import pandas as pd
    from _typeshed import DataclassInstance

RUN, JOURNAL, AUDIT = "run.json", "journal.jsonl", "audit.csv"


class FolderError(UsageError):
    """A run's folder that cannot be used; the message names the folder and what would be right."""


class RunFolder:
    """The folder of one run, open for writing; a context manager that holds the folder's lock.

    Every row is appended to the journal and flushed to disk at once, so that a run killed at any moment keeps
    what it had. Leaving the context writes the CSV tables and the end time.

    Parameters
    ----------
    path
        the folder; made if need be.
    options
        what was asked for; kept in ``run.json``.
    resume
        continue the run that the folder holds.
    machine, versions
        on what the run takes place and with which libraries, if not on this machine and with those here.

    Raises
    ------
    FolderError
        if the folder holds another run, is in use, cannot be written, or (with ``resume``) was made with
        other options, another machine or another schema.
    """

    def __init__(
        self,
        path: Path,
        options: dict[str, Any],
        resume: bool = False,
        machine: dict[str, Any] | None = None,
        versions: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self._where = {"machine": machine or describe_machine(), "versions": versions or library_versions()}
        self._done: dict[tuple[str, ...], dict[str, Any]] = {}
        with ExitStack() as stack:
            try:
                path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path / ".lock", timeout=0))
                self._open(options, resume)
            except Timeout:
                raise FolderError(f"folder {path}: another run is writing there; wait, or name another --out") from None
            except OSError as error:
                raise FolderError(f"folder {path}: {error.strerror}; name another with --out") from None
            self._lock = stack.pop_all()

    def _open(self, options: dict[str, Any], resume: bool) -> None:
        present = (self.path / RUN).exists() or (self.path / JOURNAL).exists()
        if present and not resume:
            raise FolderError(
                f"folder {self.path} holds a run already; continue it with --resume, or name another --out"
            )
        self.run: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "options": options,
            **self._where,
            "start": _now(),
            "end": None,
        }
        if present:
            self.run["start"] = check_unchanged(self.path, self.run, ("options", "machine", "versions"))["start"]
            self._done = {cell_key(entry): entry["row"] for entry in read_journal(self.path)}
        self._write_run()
        self._journal = (self.path / JOURNAL).open("a+b")
        if self._journal.tell():
            self._journal.seek(-1, os.SEEK_END)
            if self._journal.read() != b"\n":  # a kill cut the last line short: set it apart from those to come
                self._append(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        self.run["end"] = _now()
        try:
            self._write_run()
            results = load_results(self.path)
            for table in TABLES:
                results.tables[table].to_csv(self.path / f"{table}.csv", index=False, lineterminator="\n")
        except OSError as error:
            raise FolderError(f"folder {self.path}: {error.strerror}; {JOURNAL} has all that was finished") from None
        finally:
            self._lock.close()

    def add(
        self, table: str, row: DataclassInstance | dict[str, Any], samples: list[float] | None = None, **extra: Any
    ) -> None:
        """Journal a finished cell, or the roof: its row, the raw samples behind it and whatever else describes it."""
        entry = {
            "table": table,
            "row": _printable(table, row if isinstance(row, dict) else asdict(row)),
            "samples": samples or [],
            **extra,
        }
        self._done[cell_key(entry)] = entry["row"]
        self._append(json.dumps(entry).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            self._journal.write(line)
            self._journal.flush()
            os.fsync(self._journal.fileno())
        except OSError as error:
            raise FolderError(
                f"folder {self.path}: {error.strerror} while writing {JOURNAL}; "
                "what was finished before is there, --resume goes on from it"
            ) from None

    def done(self, table: str, **key: Any) -> dict[str, Any] | None:
        """Return the row of a cell that an earlier, interrupted run finished, or None; one that was lost is not."""
        row = self._done.get(cell_key({"table": table, "row": key}))
        return row if row and row["status"] != Status.LOST else None

    def _write_run(self) -> None:
        # Written beside and then moved: a kill in between leaves the old one whole.
        beside = self.path / f"{RUN}.new"
        beside.write_text(json.dumps(self.run, indent=2) + "\n")
        beside.replace(self.path / RUN)


@dataclass(repr=False)
class Results:
    """A run read back; in a notebook it shows its ``report.html``."""

    path: Path  #: the run's folder
    run: dict[str, Any]  #: what ``run.json`` holds: options, machine, versions, notes on what these mean, start, end
    tables: dict[str, pd.DataFrame]  #: ``verification``, ``measurements`` and ``training``
    journal: list[dict[str, Any]]  #: every entry as it was written, with the raw samples in seconds

    @property
    def verification(self) -> pd.DataFrame:
        """Is each kernel right: a row per kernel and dtype, as :func:`matmulbench.verify` returns it."""
        return self.tables["verification"]

    @property
    def measurements(self) -> pd.DataFrame:
        """How long each product takes: a row per workload, dtype, thread count and kernel.

        The columns are those that :func:`matmulbench.measure` returns.
        """
        return self.tables["measurements"]

    @property
    def training(self) -> pd.DataFrame:
        """What each kernel buys: a row per task, kernel and thread count; columns as :func:`matmulbench.train`'s."""
        return self.tables["training"]

    @property
    def baseline(self) -> str:
        """The kernel that the speedups are quoted against."""
        return str(self.run["options"].get("baseline") or BASELINE)

    def cells(self, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Return what was journalled last of each cell of ``table``, by the columns that name it (``KEYS``)."""
        entries = (entry for entry in self.journal if entry["table"] == table)
        return {tuple(entry["row"][column] for column in KEYS[table]): entry for entry in entries}

    @property
    def audit(self) -> pd.DataFrame | None:
        """What ``matmulbench audit --format csv > DIR/audit.csv`` put beside the run, if it did.

        Raises
        ------
        FolderError
            if the file holds something else.
        """
        import pandas as pd

        path = self.path / AUDIT
        if not path.is_file():
            return None
        try:
            checks = pd.read_csv(path, keep_default_na=False, dtype={"passed": bool})
            return checks[["check", "setting", "required", "got", "passed"]]
        except (ValueError, KeyError) as error:
            raise FolderError(f"{path} is not what `matmulbench audit --format csv` writes: {error}") from None

    def __repr__(self) -> str:
        rows = ", ".join(f"{len(found)} rows of {table}" for table, found in self.tables.items())
        return f"<Results of {self.path}: {rows}>"

    def _repr_html_(self) -> str:
        page = self.path / "report.html"
        if not page.is_file():
            return escape(repr(self))
        frame = '<iframe srcdoc="{}" sandbox="allow-scripts" style="width:100%;height:40rem;border:0"></iframe>'
        return frame.format(escape(page.read_text(encoding="utf-8")))


@dataclass(repr=False)
class FleetResults(Results):
    """Runs on several machines, read back together: each table has a first column ``machine``, the run's name.

    ``run`` has the options of the first, and ``run.json`` of each as ``machines``.
    """

    machines: dict[str, Results]  #: the runs by name

    @classmethod
    def of(cls, folders: Iterable[Path | str]) -> FleetResults:
        """Read runs together, each named by its path below the folder that holds them all, where their report stands.

        Raises
        ------
        FolderError
            if one holds no run.
        """
        import pandas as pd

        found = [_named(folder).resolve() for folder in folders]
        path = Path(os.path.commonpath([folder.parent for folder in found]))
        machines: dict[str, Results] = {}
        for run in map(load_results, found):
            for one in run.machines.values() if isinstance(run, FleetResults) else [run]:
                machines[one.path.relative_to(path).as_posix()] = one
        tables = {
            table: pd.concat([run.tables[table].assign(machine=name) for name, run in machines.items()])
            .reset_index(drop=True)
            .pipe(lambda found: found[["machine", *found.columns.drop("machine")]])
            for table in TABLES
        }
        journal = [{**entry, "machine": name} for name, run in machines.items() for entry in run.journal]
        runs = {name: run.run for name, run in machines.items()}
        return cls(path, {"options": next(iter(runs.values()))["options"], "machines": runs}, tables, journal, machines)


def load_results(path: Path | str) -> Results:
    """Read a run's folder, or one that holds those of several machines; a cell measured twice counts as measured last.

    Returns
    -------
    Results
        a :class:`FleetResults` where the folder holds several runs:
        its tables as the DataFrames ``verification``, ``measurements`` and ``training``, with the columns of
        ``verification.csv``, ``measurements.csv`` and ``training.csv``; :mod:`matmulbench.results.schema` says what
        each column means, and its unit.

    Raises
    ------
    FolderError
        if the folder holds no run, or one of another schema version.
    """
    path = _named(path)
    if not (path / RUN).exists() and (several := sorted(each.parent for each in path.glob(f"*/{RUN}"))):
        return FleetResults.of(several)
    run = read_run(path)
    if not (path / JOURNAL).exists():
        raise FolderError(f"folder {path} holds no results: there is no {JOURNAL}")
    journal = read_journal(path)
    if not journal and (path / JOURNAL).stat().st_size:
        raise FolderError(f"folder {path}: no line of {JOURNAL} can be read")
    latest = {cell_key(entry): entry for entry in journal}
    tables = {
        table: frame(table, [entry["row"] for entry in latest.values() if entry["table"] == table]) for table in TABLES
    }
    return Results(path, run, tables, journal)


def _named(path: Path | str) -> Path:
    """Return the path of a folder that has a name: one without is a shell's variable that was not set."""
    if not str(path):
        raise FolderError("folder '': expected the folder of a run")
    return Path(path)


def read_run(path: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises
    ------
    FolderError
        if it is absent, unreadable, of another schema version, or without what a run has.
    """
    file = path / RUN
    if not file.exists():
        if path.is_file():
            such_as = f", such as {path.parent}" if (path.parent / RUN).exists() else ""
            raise FolderError(f"{path} is a file: name the folder of a run{such_as}")
        raise FolderError(f"folder {path} holds no run: there is no {RUN if path.is_dir() else 'such folder'}")
    try:
        run = read_json(file)
    except UsageError as error:
        raise FolderError(f"folder {path} holds no run: {error}") from None
    if not isinstance(run, dict):
        raise FolderError(f"file {file}: expected an object, found {type(run).__name__}")
    if (version := run.get("schema_version")) not in READABLE:
        readable = " and ".join(map(str, READABLE))
        made = f"schema_version is {printable(repr(version), 60)}, this matmulbench reads {readable}"
        raise FolderError(f"folder {path}: {made}: read it with the matmulbench that made it, or run again")
    if wrong := misfit(run, RUN_FIELDS):
        raise FolderError(f"file {file}: {wrong}")
    return run


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the journal's entries; an InputWarning says what is passed over, such as a line that is cut short.

    Raises
    ------
    FolderError
        if the journal is no file, or may not be read.
    """
    journal = path / JOURNAL
    if not journal.exists():
        return []
    if not journal.is_file():
        raise FolderError(f"{journal} is no regular file")
    entries, wrong = [], list[str]()
    try:
        with journal.open("rb") as lines:
            for number, line in ((number, line) for number, line in enumerate(lines, start=1) if line.strip()):
                try:
                    entries.append(_entry(journal, line))
                except UsageError as error:
                    wrong.append(f"line {number}: {error}")
    except OSError as error:
        raise FolderError(f"{journal}: {error.strerror}") from None
    if wrong:
        passed = f"passed over {len(wrong)} of {len(wrong) + len(entries)} lines, which no run wrote whole"
        warn(f"{journal}: {passed}; {wrong[0]}")
    return entries


def check_unchanged(path: Path, run: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return what the folder's ``run.json`` has; FolderError if one of ``fields`` is not as in ``run``.

    In lists, such as that of the kernels, the order is of no account.
    """
    earlier = read_run(path)

    def unordered(value: Any) -> Any:
        return sorted(value, key=str) if isinstance(value, list) else value

    for name in fields:
        was, now = earlier[name], run[name]
        if changed := [key for key in was | now if unordered(was.get(key)) != unordered(now.get(key))]:
            raise FolderError(
                f"folder {path}: cannot resume, {name} differ: "
                + ", ".join(f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in changed)
            )
    return earlier


def _entry(journal: Path, line: bytes) -> dict[str, Any]:
    """Return the entry that a line of the journal holds; a UsageError says why it is none that a table can show."""
    try:
        entry: dict[str, Any] = json.loads(line)
        table, row = entry["table"], entry["row"]
        if table in ("measurements", "training"):
            row.setdefault("device", "cpu")  # before schema 6, all ran there
        if table in TABLES:
            if odd := row.keys() ^ set(columns(table)):
                warn(f"{journal}: columns of {table} that are absent or unknown: {printable(', '.join(sorted(odd)))}")
            entry["row"] = {name: row.get(name) for name in columns(table)}
        if wrong := misfit(entry, ENTRIES[table], table):
            raise UsageError(wrong)
        for field, other in (("calibration_samples", "samples"), ("loss_steps", "losses")):
            if entry.get(field) and len(entry[field]) != len(entry[other]):
                raise UsageError(f"{table}: {field} and {other} differ in length")
        return entry | {"row": _printable(table, entry["row"])}
    except UsageError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UsageError("it is cut short, or of no table") from None


def _printable(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return ``row`` with its texts printable; those that name the cell, such as a path, are not cut."""
    return {
        name: printable(value, 4096 if name in KEYS[table] else 500) if isinstance(value, str) else value
        for name, value in row.items()
    }


def cell_key(entry: dict[str, Any]) -> tuple[str, ...]:
    """Name the cell that an entry of the journal is about."""
    table, row = entry["table"], entry["row"]
    return (table, *(str(row[column]) for column in KEYS[table]))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
