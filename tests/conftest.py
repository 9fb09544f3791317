import os
import signal
from pathlib import Path

import pytest

from matmulbench.data import DataError, mnist

# Where tests run in the background, SIGINT is ignored, and children would inherit that: they are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

BESIDE = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.fixture(scope="session")
def mnist_dir():
    """Find MNIST's files, or skip."""
    folder = os.environ.get("MATMULBENCH_DATA") or (str(BESIDE) if BESIDE.is_dir() else None)
    try:
        mnist(folder)
    except DataError as error:
        pytest.skip(f"MNIST is needed: {error}")
    return folder
