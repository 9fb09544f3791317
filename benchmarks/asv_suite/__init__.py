"""One thread per pool: fixed for what is still to be imported, limited in what asv has imported already."""

import os

from threadpoolctl import threadpool_limits

from matmulbench.isolation import thread_environment

os.environ.update(thread_environment(1))
LIMITS = threadpool_limits(1)
