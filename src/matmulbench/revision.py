"""A kernel as it was: its file, and what lies beside it, as of another commit."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from matmulbench.errors import UsageError, printable
from matmulbench.ladder.plugins import find_function, find_kernel, import_root, split_spec, with_operands


@contextmanager
def kernel_at(spec: str, revision: str) -> Iterator[str]:
    """Take the kernel ``spec`` out of git as of ``revision``; yield the spec by which it can be loaded meanwhile.

    The folder from which its file is imported comes with it, all of it, so that the old version meets its old helpers.

    Raises
    ------
    UsageError
        if ``spec`` is no kernel of a file, the file is in no git repository, git does not know ``revision``, or the
        file, or the function in it, did not exist there.
    """
    name, operands = split_spec(spec)
    place, _, function = find_kernel(name).rpartition(":")
    path = Path(place)
    if path.suffix != ".py":
        raise UsageError(f"kernel {spec!r}: expected path/to/file.py:function, which git has the history of")
    root = import_root(path)
    _git(root, "rev-parse", "--show-toplevel", otherwise=f"kernel {spec!r}: {str(root)!r} is in no git repository")
    commit = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}",
        otherwise=f"revision {printable(revision, 200)!r}: git knows no such branch, tag or commit",
    ).decode().strip()  # fmt: skip
    inside = path.relative_to(root).as_posix()
    absent = f"kernel {spec!r}: at {revision} there is no file {inside!r}"
    _git(root, "cat-file", "-e", f"{commit}:./{inside}", otherwise=absent)
    archive = _git(root, "archive", "--format=tar", commit, ".", otherwise=absent)
    with tempfile.TemporaryDirectory(prefix="matmulbench-") as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        old = f"{Path(folder).resolve() / inside}:{function}"
        find_function(old, f"{spec} at {revision}")
        yield with_operands(old, operands)


def _git(folder: Path, *arguments: str, otherwise: str) -> bytes:
    """Return what git prints about ``folder``; where it fails, raise a UsageError that says ``otherwise``."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError("guard takes the old version from git: install git") from None
    if done.returncode:
        raise UsageError(otherwise)
    return done.stdout
