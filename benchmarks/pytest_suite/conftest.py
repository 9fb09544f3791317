"""One thread per pool, fixed before anything that has a pool is imported; histograms on a log scale."""

import os
from contextlib import suppress
from functools import partial

from matmulbench.isolation import thread_environment

os.environ.update(thread_environment(1))


def pytest_configure():
    with suppress(ImportError):  # of pygal, which draws them
        from pytest_benchmark import histogram

        # From one kernel to the next are up to five decades; there is no option for this.
        histogram.CustomBox = partial(histogram.CustomBox, logarithmic=True)
