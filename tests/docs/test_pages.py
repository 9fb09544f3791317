"""Every command and every line of Python in README and documentation does what it says, and prints what it shows.

Each page is followed from top to bottom in a folder of its own: files named by a caption are written, ``python``
blocks are run, and so are the ``$`` lines of ``console`` blocks. What a block shows below them must be printed, word by
word and in that order, figures aside. Comments before a block say what a reader cannot see:

- ``<!-- prints: … -->``: text that must appear in what the block prints; ``…`` in it stands for anything.
- ``<!-- exit status 1 -->``: the block's last command ends so.
- ``<!-- tested as: … -->``: the same with less to do, and so with less to print than is shown; ``$REFERENCE`` is the
  folder of the committed run, which stands in for a run of minutes.
- ``<!-- at the root of the repository -->``.
- ``<!-- file: my.py -->``: the name of a file, where a caption would not be understood.

What is measured has its budget cut down, trainings end with their schedules, and verification is quick, and not done
again of what no block has changed since, or no page can change. What needs no shell is run in this process, where all
commands share the processes in which kernels run.
"""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from matmulbench.isolation import Host
from matmulbench.results.schema import VerificationRow
from matmulbench.verification.api import verify_kernel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = ROOT / "results" / "reference"
GENERATED = DOCS / "reference" / "commands.md"
BUDGET_S = "0.2"
LADDER = "benchmarks/asv_suite/ladder.py"
Command = Callable[..., Any]

# What differs from one machine and one day to another, names of machines among it, and the rules of tables.
_FIGURE = re.compile(
    r"[\w-]+-cores-[0-9a-f]{6}\S*|[0-9a-f]{8}:|[≈<-]?[\d.,]+(e[+-]?\d+)?([–-][\d.,]+)?[×%]?|[nµm]?s|[%≈×–]|─+|(faster|slower|unclear|same),?|as|fast|…"
)
_BLOCK = re.compile(
    r"(?P<notes>(?:<!--(?:(?!-->).)*-->\n)*)"
    r"```(?P<kind>console|python|\{code-block\} python\n:caption: (?P<file>\S+)\n)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def brief(line: str) -> str:
    """Return a line of commands with less time in it for measurements, and less to learn."""
    if verb := re.match(r"matmulbench (measure|guard) ", line):
        return f"{verb[0]}--budget {BUDGET_S}" + re.sub(r" --budget \S+", "", " " + line[verb.end() :])
    if re.match(r"matmulbench train .*--task digits", line) and "--epochs" not in line:
        return f"{line} --epochs 1"
    return line


@dataclass
class Block:
    """One block of a page: a file to write, Python to run, or commands with what they should print."""

    file: str | None
    kind: str
    text: str
    notes: str

    @property
    def commands(self) -> str:
        """What is run."""
        if match := re.search(r"<!-- tested as:\s(.*?)\s*-->", self.notes, re.DOTALL):
            script = match[1]
        else:
            script = "\n".join(line[2:] for line in self.text.splitlines() if line.startswith("$ "))
        return "\n".join(map(brief, script.splitlines()))

    @property
    def shown(self) -> list[list[str]]:
        """The words of each line, but for commands and figures."""
        if "<!-- tested as:" in self.notes:
            return []
        return [without_figures(line) for line in self.text.splitlines() if not line.startswith("$ ")]

    @property
    def expected(self) -> list[str]:
        return re.findall(r"<!-- prints: (.*?) -->", self.notes)

    @property
    def status(self) -> int:
        match = re.search(r"<!-- exit status (\d+) -->", self.notes)
        return int(match[1]) if match else 0


def without_figures(text: str) -> list[str]:
    return [word for word in text.split() if not _FIGURE.fullmatch(word)]


def file_of(notes: str) -> str | None:
    match = re.search(r"<!-- file: (.*?) -->", notes)
    return match[1] if match else None


def blocks(page: Path) -> list[Block]:
    return [
        Block(match["file"] or file_of(match["notes"]), match["kind"].strip(), match["text"], match["notes"])
        for match in _BLOCK.finditer(page.read_text("utf-8"))
    ]


PAGES = {page.relative_to(DOCS).as_posix(): page for page in sorted(DOCS.rglob("*.md")) if page != GENERATED}
PAGES["README"] = ROOT / "README.md"
RUNNABLE = [name for name, page in PAGES.items() if blocks(page)]


def environment(folder: Path, reference: Path, brief: Path) -> dict[str, str]:
    """A home of one's own, for asv writes there, and first the command with little time, then those of this Python."""
    caches = {"MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib"))}
    path = os.pathsep.join([str(brief), str(Path(sys.executable).parent), os.environ["PATH"]])
    # A page's own pytest is nobody's worker.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return outside | caches | {"HOME": str(folder), "PATH": path, "REFERENCE": str(reference)}


def in_shell(script: str, home: Path, reference: Path, brief: Path) -> tuple[int, str]:
    """Run ``script``; return the exit status and what was printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=environment(home, reference, brief),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def needs_no_shell(line: str) -> bool:
    return line.startswith("matmulbench ") and not set(line) & set("$;|<>&")


def words_of(line: str) -> list[str]:
    """Return the words after the command's name, with patterns of file names replaced by what they match."""
    words = [sorted(glob.glob(word)) or [word] for word in shlex.split(line)[1:]]
    return [one for some in words for one in some]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed run, less most of its workloads: charts take their time."""
    folder = tmp_path_factory.mktemp("some") / "reference"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("*.csv", "*.html", "charts"))
    kept = {"5x784x10", "64x64x64", "256x256x256"}
    lines = (folder / "journal.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "journal.jsonl").write_text(
        "".join(line for line in lines if json.loads(line)["row"].get("workload") in {*kept, None}), "utf-8"
    )
    return folder


class Verified(dict[tuple[str, str], VerificationRow]):
    """What was found of kernels, by name and dtype."""

    def forget(self) -> None:
        """Forget kernels that are in files, for one may have changed."""
        for spec, dtype in [*self]:
            if ":" in spec:
                del self[spec, dtype]


@dataclass
class Place:
    """A folder in which pages are followed, one after the other, and what they share there."""

    folder: Path
    bench: Any  # the processes for kernels
    verified: Verified


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, lasting_bench: Any) -> Iterator[Place]:
    with lasting_bench() as bench:
        yield Place(tmp_path_factory.mktemp("pages"), bench, Verified())


@pytest.fixture
def follow(
    place: Place,
    reference: Path,
    brief_bin: Path,
    monkeypatch: pytest.MonkeyPatch,
    matmulbench: Command,
    known_roof: None,
    brief_runs: None,
    to_the_end: None,
) -> Iterator[Callable[[Path, Path], None]]:
    """Return a function that does what a page says, in a folder."""
    empty, verified = place.folder, place.verified
    place.bench.use(monkeypatch)

    def verify_once(host: Host, spec: str, dtype: str, effort: str) -> VerificationRow:
        if (spec, dtype) not in verified:
            verified[spec, dtype] = verify_kernel(host, spec, dtype, "quick")
        return replace(verified[spec, dtype])

    monkeypatch.setattr("matmulbench.pipeline.verify_kernel", verify_once)

    def run(block: Block, folder: Path) -> None:
        at_root = "at the root of the repository" in block.notes
        monkeypatch.chdir(ROOT if at_root else folder)
        printed = ""
        for plain, lines in groupby(block.commands.splitlines(), lambda line: needs_no_shell(line) and not at_root):
            if not plain:
                verified.forget()
                status, text = in_shell("\n".join(lines), folder, reference, brief_bin)
                printed += text
                continue
            for line in lines:
                done = matmulbench(*words_of(line))
                status, printed = done.returncode, printed + done.stdout + done.stderr
        monkeypatch.chdir(folder)
        assert status == block.status, f"{block.commands}\n{printed}"
        words = without_figures(printed)
        for line in block.shown:  # in any order: tables are sorted by times
            rest = iter(words)  # perhaps with more columns between
            assert all(word in rest for word in line), f"{block.commands}: no line {line} in\n{printed}"
        for text in block.expected:
            pattern = ".*".join(map(re.escape, text.split("…")))
            assert re.search(pattern, printed, re.DOTALL), f"{block.commands}: no {text!r} in\n{printed}"

    def through(page: Path, folder: Path = empty) -> None:
        monkeypatch.chdir(folder)
        names: dict[str, object] = {"__name__": "__main__"}
        for block in blocks(page):
            if block.file:
                if Path(block.file).exists():
                    verified.forget()
                Path(block.file).write_text(block.text, "utf-8")
            elif block.kind == "console":
                run(block, folder)
            else:
                code = re.sub(r"budget_s=\S+?\)", f"budget_s={BUDGET_S})", block.text)
                exec(compile(code, page.name, "exec"), names)

    yield through
    verified.forget()
    for left in empty.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository as it stands, as a clone with two commits, but for fewer kernels and less time."""
    script = f"""
    git clone --quiet --shared {ROOT} .
    cp -r {ROOT}/benchmarks {ROOT}/asv.conf.json .
    sed -i 's/^BUDGET_S = .*/BUDGET_S = 0.1/; s/^KERNELS = .*/KERNELS = ["einsum", "numpy"]/' {LADDER}
    grep -q '^BUDGET_S = 0.1$' {LADDER} && grep -q '^KERNELS = ."einsum"' {LADDER}
    git config user.name test; git config user.email test@localhost
    git commit --quiet --all --allow-empty --message 'as it stands'
    """
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.posix
@pytest.mark.timeout(600)  # a busy machine takes its time, most of it to import torch
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "howto/fleet.md" else name
        for name in RUNNABLE
        if name != "howto/asv.md"
    ],
)
def test_a_page_does_what_it_says(name: str, follow: Callable[[Path], None]) -> None:
    follow(PAGES[name])


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.timeout(600)
def test_the_page_about_asv_does_what_it_says(clone: Path, follow: Callable[[Path, Path], None]) -> None:
    follow(PAGES["howto/asv.md"], clone)


def test_no_command_escapes_the_collector() -> None:
    for name, page in PAGES.items():
        written = page.read_text("utf-8").count("\n$ ")
        found = sum(block.text.count("\n$ ") + block.text.startswith("$ ") for block in blocks(page))
        assert written == found, name
