"""Standard output and standard error as they are: closed, full, left by their reader, or not UTF-8."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import textwrap
from typing import TextIO

# What stands in tables and messages, each as one character, so that columns stay in line.
_ASCII = str.maketrans("×µ–−—·≈≤≥±→…✓✗ᵀ‖²³\xa0", "xu---.~<>~>.+xT|23 ")


class OutputError(OSError):
    """Standard output takes no more; the message says why."""


def prepare() -> None:
    """Make every character printable, and give what was closed (``2>&-``) to the null device.

    Else the next file that is opened would take its number, and whatever a kernel prints would go there.
    """
    codecs.register_error("ascii-art", _replace)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _discard(number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
        if number and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="ascii-art")


def write(text: str) -> None:
    """Write to standard output at once; a reader that has left is no error.

    Raises
    ------
    OutputError
        if there is no room for it.
    """
    error = _write(sys.stdout, text)
    if error and not isinstance(error, BrokenPipeError):
        raise OutputError(f"standard output: {error.strerror}")


def log(text: str, seconds: float = 0.0, /) -> None:
    """Write plain text to standard error, if it can be written to; a terminal gets lines that end between words."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")
        )
        text = "\n".join("\n".join(line) for line in lines)
    _write(sys.stderr, f"{text}\n")


def _write(stream: TextIO, text: str) -> OSError | None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        _discard(stream.fileno())  # what is left in the buffer would fail again as Python ends
        return error
    return None


def _discard(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)
        return
    os.dup2(null, number)
    os.close(null)


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "replace").decode(), error.end
