"""Texts from kernels and files are made fit for every file and terminal."""

import pytest

from matmulbench.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\n\tlines", "two lines"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link\x1bc", "textlink"),
        ("half \ud800", "half ?"),
        ("bell\x07, right to left \u202e", "bell?, right to left ?"),
        ("5 × 7 ≤ µ", "5 × 7 ≤ µ"),
        ("", ""),
    ],
)
def test_a_text_becomes_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


def test_a_long_text_is_cut() -> None:
    assert printable("x" * 10**7, 100) == "x" * 99 + "…"
    assert printable("x" * 100, 100) == "x" * 100
