"""One thread per pool, fixed before anything that has a pool is imported."""

import os

from matmulbench.isolation import thread_environment

os.environ.update(thread_environment(1))
