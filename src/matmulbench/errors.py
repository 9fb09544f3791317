"""Errors that a user can mend: one line that names the field, the value and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Input that cannot be used. The command prints its message alone and exits with 2."""


def unknown(kind: str, value: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a ``value`` that is no ``kind``; it names near matches, or else all that are known."""
    names = list(known)
    near = difflib.get_close_matches(value, names, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}."
    return UsageError(f"{kind} {value!r} is unknown: {advice} {hint}".rstrip())
