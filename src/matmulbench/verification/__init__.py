"""Is a kernel right: cases, bounds and the judge.

torch is imported only where it is needed, so that the parent process and ``--help`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matmulbench.verification.api import agreement, repeat_case, verify_kernel
    from matmulbench.verification.case import Case
    from matmulbench.verification.result import check_result

_HOMES = {
    "Case": "case",
    "agreement": "api",
    "check_result": "result",
    "repeat_case": "api",
    "verify_kernel": "api",
}
__all__ = ["Case", "agreement", "check_result", "repeat_case", "verify_kernel"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
