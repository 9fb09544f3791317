"""What a kernel leaves changed for all that comes after it is named."""

import ctypes
import platform

import pytest
import torch

from matmulbench.verification.state import changed_settings, note_settings

_TO_NEAREST, _DOWN, _UP = 0, 0x400, 0x800  # of x86's fenv.h


@pytest.mark.posix
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the numbers of directions are x86's")
@pytest.mark.parametrize(("direction", "name"), [(_DOWN, "down"), (_UP, "up")])
def test_the_direction_of_rounding(direction: int, name: str) -> None:
    note_settings()
    library = ctypes.CDLL(None)
    library.fesetround(direction)
    try:
        found = changed_settings()
    finally:
        library.fesetround(_TO_NEAREST)
    assert found == f"changes the direction of rounding for all that comes after it: to nearest before, {name} now"
    assert changed_settings() is None


def test_the_default_dtype() -> None:
    note_settings()
    torch.set_default_dtype(torch.float64)
    try:
        assert "torch's default dtype" in str(changed_settings())
    finally:
        torch.set_default_dtype(torch.float32)
    assert changed_settings() is None
