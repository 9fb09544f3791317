"""The same run on many machines: a plan's units go to the workers of a Dask cluster, finished cells come back.

A *unit* is one workload, dtype and thread count with all its kernels, one task, or the verification of one kernel. The
client gives each *node* (a computer, whatever workers it has) one unit at a time, and journals what it finds; nodes of
one *kind* share a plan out. On a node, a unit is carried out by :func:`matmulbench.pipeline.carry_out` in a process
apart from Dask's, which ends when its client no longer asks for it.

Whoever can reach a Dask scheduler can run anything on its workers: it belongs on a trusted network or behind TLS.
"""

from matmulbench.fleet.client import Fleet
from matmulbench.fleet.dispatch import execute

__all__ = ["Fleet", "execute"]
