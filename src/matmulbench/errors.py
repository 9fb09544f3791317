"""Errors that a user can mend: one line that names the field, the value and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")


class UsageError(ValueError):
    """Input that cannot be used. The command prints its message alone and exits with 2."""


def unknown(kind: str, value: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a ``value`` that is no ``kind``; it names near matches, or else all that are known."""
    names = list(known)
    near = difflib.get_close_matches(value, names, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}."
    return UsageError(f"{kind} {value!r} is unknown: {advice} {hint}".rstrip())


def printable(text: str, limit: int = 500) -> str:
    """Return ``text`` on one line, without terminal escapes, lone surrogates and control characters, and cut."""
    cut = text[: 4 * limit]
    plain = _ESCAPES.sub("", cut).encode("utf-8", "replace").decode()
    line = "".join(character for character in " ".join(plain.split()) if character.isprintable())
    return line if len(text) <= 4 * limit and len(line) <= limit else f"{line[:limit]}…"
