"""A kernel as it was: its file, and what lies beside it, as of another commit."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matmulbench.errors import UsageError, printable
from matmulbench.ladder.plugins import find_function, find_kernel, import_root, source_of, split_spec, with_operands


@contextmanager
def kernel_at(spec: str, revision: str) -> Iterator[str]:
    """Take the kernel ``spec`` out of git as of ``revision``; yield the spec by which it can be loaded meanwhile.

    The folder from which its file is imported comes with it, all of it, so that the old version meets its old helpers;
    of submodules those that are checked out here.

    Raises
    ------
    UsageError
        if ``spec`` is no kernel of the user's, its file is in no git repository, git does not know ``revision``, or the
        file, or the function in it, did not exist there.
    """
    name, operands = split_spec(spec)
    place, _, function = find_kernel(name).rpartition(":")
    path = Path(place) if place.endswith(".py") else source_of(place) if place else None
    if path is None:
        yours = "path/to/file.py:function, or package.module:function of your project"
        raise UsageError(f"kernel {spec!r}: expected {yours}, which git has the history of")
    root = import_root(path)
    _git(root, "rev-parse", "--show-toplevel", otherwise=f"kernel {spec!r}: {str(root)!r} is in no git repository")
    unknown = f"revision {printable(revision, 200)!r}: git knows no such branch, tag or commit"
    if _git(root, "rev-parse", "--is-shallow-repository", otherwise=unknown).strip() == b"true":
        unknown += "; this clone lacks older commits: `git fetch --unshallow`, or `fetch-depth: 0` in CI"
    found = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", otherwise=unknown
    )
    commit = found.decode().strip()
    inside = path.relative_to(root).as_posix()
    absent = f"kernel {spec!r}: at {revision} there is no file {inside!r}"
    with tempfile.TemporaryDirectory(prefix="matmulbench-") as folder:
        old = Path(folder).resolve() / "old"
        _take_out(root, commit, old, absent)
        if not (old / inside).is_file():
            raise UsageError(absent)
        find_function(f"{old / inside}:{function}", f"{spec} at {revision}")
        yield with_operands(f"{old / inside}:{function}", operands)


def _take_out(folder: Path, commit: str, to: Path, otherwise: str) -> None:
    """Write what ``folder`` held at ``commit`` to ``to``, with its submodules; ``git archive`` may leave some out."""
    to.mkdir(parents=True, exist_ok=True)  # git may have made it, empty, in a submodule's place
    top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel", otherwise=otherwise)).rstrip("\n"))
    index = {"GIT_INDEX_FILE": f"{to}.index"}  # the user's own stays as it is
    _git(folder, "read-tree", f"{commit}:./", otherwise=otherwise, **index)
    _git(top, "checkout-index", "--all", f"--prefix={to}/", otherwise=otherwise, **index)
    for line in _git(top, "ls-files", "--stage", "-z", otherwise=otherwise, **index).split(b"\0"):
        about, _, name = os.fsdecode(line).partition("\t")
        if about.startswith("160000 ") and (folder / name / ".git").exists():
            _take_out(folder / name, about.split()[1], to / name, f"submodule {name}: {otherwise}")


_OF_A_HOOK = {f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR", "OBJECT_DIRECTORY")}
_EXPECTED = ("not a git repository", "Not a valid object name")  # of what git says


def _git(folder: Path, *arguments: str, otherwise: str, **environment: str) -> bytes:
    """Return what git prints about ``folder``; where it fails, raise a UsageError that says ``otherwise``, or why."""
    # What a hook of git has in its environment is of the repository that it was called for, from its top.
    outside = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=outside | {"LC_ALL": "C"} | environment, capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError("guard takes the old version from git: install git") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        if said and not any(words in said for words in _EXPECTED):
            otherwise = f"{otherwise.partition(': ')[0]}: git says: {printable(said, 500)}"
        raise UsageError(otherwise)
    return done.stdout
