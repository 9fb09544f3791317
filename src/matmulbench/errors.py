"""Errors that a user can mend: one line that names the field, the value and what would be right."""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Collection, Iterable

# A terminal's commands: to the cursor and the colours, to the window (its title, a link), and those of one letter.
_ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?", re.DOTALL)


class UsageError(ValueError):
    """Input that cannot be used. The command prints its message alone and exits with 2."""


class InputWarning(UserWarning):
    """Input of which a part was passed over, for it cannot be used. The command prints it in one line."""


def warn(text: str) -> None:
    """Issue an InputWarning that shows the user's line: the nearest one outside this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").partition(".")[0] == __package__:
        level += 1
    warnings.warn(text, InputWarning, stacklevel=level + 1)


def unknown(kind: str, value: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a ``value`` that is no ``kind``; it names near matches, or else all that are known."""
    names = list(known)
    near = difflib.get_close_matches(value, names, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}."
    return UsageError(f"{kind} {printable(value, 200)!r} is unknown: {advice} {hint}".rstrip())


def check_known(kind: str, value: object, known: Collection[str]) -> None:
    """Raise the error for a ``value`` that is not among those ``known``."""
    if value not in known:
        raise unknown(kind, str(value), known)


def printable(text: str, limit: int = 500, spaces: bool = False) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, fit for every file and terminal.

    Terminal escapes are removed; what cannot be printed (a control character, half of a surrogate pair) becomes ``?``.
    Several spaces become one, unless ``spaces`` are to be kept.
    """
    line = _ESCAPE.sub("", text[: 4 * limit])
    line = line if spaces else " ".join(line.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[: limit - 1]}…"
