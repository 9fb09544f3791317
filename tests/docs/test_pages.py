"""Every command and every line of Python in README and documentation does what it says, and prints what it shows.

Each page is followed from top to bottom in a folder of its own: files named by a caption are written, ``python``
blocks are run, and so are the ``$`` lines of ``console`` blocks. What a block shows below them must be printed, word by
word and in that order, figures aside. Comments before a block say what a reader cannot see:

- ``<!-- prints: … -->``: text that must appear in what the block prints; ``…`` in it stands for anything.
- ``<!-- exit status 1 -->``: the block's last command ends so (``0 or 1``: as the machine's noise will have it).
- ``<!-- tested as: … -->``: the same with less to do, and so with less to print than is shown; ``$REFERENCE`` is the
  folder of the committed run, which stands in for a run of minutes.
- ``<!-- at the root of the repository -->``.
- ``<!-- file: my.py -->``: the name of a file, where a caption would not be understood.

What is measured has its budget cut down, and so has a training, as far as its accuracy is known all the same. What
needs no shell is run in this process, where all commands of a page share the processes in which kernels run.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = ROOT / "results" / "reference"
GENERATED = DOCS / "reference" / "commands.md"
BUDGET_S, TRAINING_S = "0.3", "5"
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
    """Return a line of commands with less time in it for measurements and trainings."""
    if verb := re.match(r"matmulbench (measure|guard) ", line):
        return f"{verb[0]}--budget {BUDGET_S}" + re.sub(r" --budget \S+", "", " " + line[verb.end() :])
    return re.sub(r"^(matmulbench train .*--budget) \S+", rf"\1 {TRAINING_S}", line)


@dataclass
class Block:
    """One block of a page: a file to write, Python to run, or commands with what they should print."""

    file: str | None
    kind: str
    text: str
    notes: str

    @property
    def commands(self) -> str:
        """What is run, with less time for measurements and trainings."""
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
    def statuses(self) -> set[int]:
        match = re.search(r"<!-- exit status (.*?) -->", self.notes)
        return set(map(int, match[1].split(" or "))) if match else {0}


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


def environment(folder: Path) -> dict[str, str]:
    """A home of one's own, for asv writes there, and the commands of this Python first."""
    caches = {"MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # A page's own pytest is nobody's worker.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return outside | caches | {"HOME": str(folder), "PATH": path, "REFERENCE": str(REFERENCE)}


def in_shell(script: str, where: Path, home: Path) -> tuple[int, str]:
    """Run ``script``; return the exit status and what was printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=where, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def run(block: Block, folder: Path, matmulbench: Command) -> None:
    lines = block.commands.splitlines()
    at_root = "at the root of the repository" in block.notes
    if not at_root and all(line.startswith("matmulbench ") and not set(line) & set("$;|<>&") for line in lines):
        done = [matmulbench(*shlex.split(line)[1:]) for line in lines]
        status, printed = done[-1].returncode, "".join(one.stdout + one.stderr for one in done)
    else:
        status, printed = in_shell(block.commands, ROOT if at_root else folder, folder)
    assert status in block.statuses, f"{block.commands}\n{printed}"
    words = without_figures(printed)
    for line in block.shown:  # in any order: tables are sorted by times
        rest = iter(words)  # perhaps with more columns between
        assert all(word in rest for word in line), f"{block.commands}: no line {line} in\n{printed}"
    for text in block.expected:
        pattern = ".*".join(map(re.escape, text.split("…")))
        assert re.search(pattern, printed, re.DOTALL), f"{block.commands}: no {text!r} in\n{printed}"


@pytest.fixture
def follow(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    matmulbench: Command,
    new_bench: Callable[[], object],
    brief_runs: None,
    to_the_end: None,
) -> Callable[[Path], None]:
    """Return a function that does in a folder of its own what a page says."""
    monkeypatch.chdir(tmp_path)
    new_bench()
    names: dict[str, object] = {"__name__": "__main__"}

    def through(page: Path) -> None:
        for block in blocks(page):
            if block.file:
                Path(block.file).write_text(block.text, "utf-8")
            elif block.kind == "console":
                run(block, tmp_path, matmulbench)
            else:
                code = re.sub(r"budget_s=\S+?\)", f"budget_s={BUDGET_S})", block.text)
                exec(compile(code, page.name, "exec"), names)

    return through


@pytest.fixture
def _clone(tmp_path: Path) -> None:
    """The repository as it stands, as a clone with two commits: what a page about asv starts from."""
    script = f"""
    git clone --quiet --shared {ROOT} .
    cp -r {ROOT}/benchmarks {ROOT}/asv.conf.json .
    git config user.name test; git config user.email test@localhost
    git commit --quiet --all --allow-empty --message 'as it stands'
    """
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)


@pytest.mark.timeout(600)  # a busy machine takes its time, most of it to import torch
@pytest.mark.parametrize("name", [name for name in RUNNABLE if name != "howto/asv.md"])
def test_a_page_does_what_it_says(name: str, follow: Callable[[Path], None]) -> None:
    follow(PAGES[name])


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_clone")
def test_the_page_about_asv_does_what_it_says(follow: Callable[[Path], None]) -> None:
    follow(PAGES["howto/asv.md"])


def test_no_command_escapes_the_collector() -> None:
    for name, page in PAGES.items():
        written = page.read_text("utf-8").count("\n$ ")
        found = sum(block.text.count("\n$ ") + block.text.startswith("$ ") for block in blocks(page))
        assert written == found, name
