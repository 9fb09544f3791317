"""What a node is sent: a unit's job, and the files that its kernels and models are in."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from matmulbench.fleet.units import Entry
from matmulbench.isolation.requests import CarryOut, PreloadTask, ServeRanks
from matmulbench.ladder.plugins import find_function, find_kernel, import_root
from matmulbench.pipeline import Job
from matmulbench.training.tasks import is_model


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
