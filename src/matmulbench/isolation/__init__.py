"""The process boundary: kernels run in children whose threads are fixed before torch, numpy or numba load.

A :class:`Host` is one Python process with a fixed thread count. It imports what its children need, then *forks* them,
so that a fresh process costs milliseconds instead of the seconds that importing torch takes. A :class:`Child` does what
it is asked (:mod:`~matmulbench.isolation.requests` lists all that there is to ask) until it is closed. One that raises,
crashes, hangs or eats memory gives an :class:`Outcome` with a status and a reason.

A child runs the kernel's code and is not trusted: what it sends is JSON, never a pickle.
"""

from matmulbench.isolation.environment import thread_environment
from matmulbench.isolation.host import IMPORT_S, Child, Host, LostError, Outcome
from matmulbench.isolation.serve import describe, send, wait_for_go

__all__ = ["IMPORT_S", "Child", "Host", "LostError", "Outcome", "describe", "send", "thread_environment", "wait_for_go"]
