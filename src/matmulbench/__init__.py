"""matmulbench: is a matmul right, how fast is it against the machine's roof, and what does it buy in training.

Names are imported when first used, so that ``import matmulbench`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matmulbench.api import measure, train, verify
    from matmulbench.ladder.plugins import kernels, load_kernel
    from matmulbench.results.folder import load_results
    from matmulbench.training.plug import plug, unplug
    from matmulbench.training.replacement import replaced
    from matmulbench.training.trace import trace
    from matmulbench.workload import Workload, workloads

__all__ = [
    "Workload",
    "kernels",
    "load_kernel",
    "load_results",
    "measure",
    "plug",
    "replaced",
    "trace",
    "train",
    "unplug",
    "verify",
    "workloads",
]

_WHERE = {
    "kernels": "ladder.plugins",
    "load_kernel": "ladder.plugins",
    "measure": "api",
    "load_results": "results.folder",
    "plug": "training.plug",
    "unplug": "training.plug",
    "replaced": "training.replacement",
    "trace": "training.trace",
    "train": "api",
    "verify": "api",
    "Workload": "workload",
    "workloads": "workload",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
