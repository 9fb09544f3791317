"""What was found of the built-in kernels before, kept in the user's cache: that they are right, how long they compile.

An entry holds for one state of things: source of the package, versions of the libraries, processor and what chooses a
library's kernels. A user's own kernel is never remembered, and only the parent reads and writes the file, so that no
kernel gains by writing there.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.ladder.tiled.plan import as_text, current, write_cache
from matmulbench.results.files import read_json
from matmulbench.results.machine import describe_machine, library_versions
from matmulbench.results.schema import VerificationRow, conforms
from matmulbench.status import Status
from matmulbench.verification import EFFORTS

_KEPT = 500  # entries; the oldest, most likely of another source, go
_BUILT_IN = frozenset(rung.name for rung in LADDER)
_EFFORTS = list(EFFORTS)  # from the smallest to the largest
_CHOOSES_KERNELS = ("ATEN_", "BLIS_", "DNNL_", "MKL_", "NUMBA_", "ONEDNN_", "OPENBLAS_")  # how variables begin


class Remembered:
    """What is known of the built-in kernels at a thread count; a file that cannot be used is passed over in silence."""

    def __init__(self, threads: int) -> None:
        import pooch

        self._path = Path(pooch.os_cache("matmulbench")) / "remembered.json"
        self._state = f"{threads} {_state(threads)}"
        self._entries = self._read()

    def recall(self, kernel: str, dtype: str, effort: str) -> VerificationRow | None:
        """Return the row of an earlier verification, of this effort or a larger one."""
        entry = self._get(kernel, dtype, "right")
        if not conforms(entry, {"effort": str, "row": VerificationRow}):
            return None
        row = VerificationRow(**entry["row"])
        enough = entry["effort"] in _EFFORTS[_EFFORTS.index(effort) :]
        return row if enough and (row.kernel, row.dtype, row.status) == (kernel, dtype, Status.OK) else None

    def note(self, row: VerificationRow, effort: str) -> None:
        """Keep the row of a built-in kernel that is right; forget what was kept of one that is not."""
        right = row.status == Status.OK
        if not (right and self.recall(row.kernel, row.dtype, effort)):
            self._put(row.kernel, row.dtype, "right", {"effort": effort, "row": asdict(row)} if right else None)

    def recall_compile_s(self, kernel: str, dtype: str) -> float | None:
        """Return the seconds that were measured earlier."""
        seconds = self._get(kernel, dtype, "compile_s")
        return seconds if isinstance(seconds, float) and seconds >= 0 else None

    def note_compile_s(self, kernel: str, dtype: str, seconds: float | None) -> None:
        """Keep how long a built-in kernel compiles."""
        self._put(kernel, dtype, "compile_s", seconds)

    def _get(self, kernel: str, dtype: str, what: str) -> Any:
        return self._entries.get(f"{kernel} {dtype} {what} {self._state}") if kernel in _BUILT_IN else None

    def _put(self, kernel: str, dtype: str, what: str, entry: Any) -> None:
        if kernel not in _BUILT_IN:
            return
        self._entries = self._read()  # with what others have written meanwhile
        self._entries.pop(key := f"{kernel} {dtype} {what} {self._state}", None)
        if entry is not None:
            self._entries[key] = entry
        with suppress(OSError):
            write_cache(self._path, dict(list(self._entries.items())[-_KEPT:]))

    def _read(self) -> dict[str, Any]:
        try:
            content = read_json(self._path)
        except UsageError:
            return {}
        return content if isinstance(content, dict) else {}


def _state(threads: int) -> str:
    """Return a checksum of all that a verdict may depend on."""
    package = Path(__file__).parents[1]
    rooms = (package / room for room in ("isolation", "ladder", "verification"))
    chosen = sorted(item for item in os.environ.items() if item[0].startswith(_CHOOSES_KERNELS))
    plans = as_text(current(threads))
    checksum = hashlib.sha256(repr((library_versions(), describe_machine(), chosen, plans)).encode())
    for path in sorted([*package.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]):
        checksum.update(path.read_bytes())
    return checksum.hexdigest()
