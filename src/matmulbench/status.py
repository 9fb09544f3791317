"""What became of a cell."""

from enum import StrEnum


class Status(StrEnum):
    """What became of a cell. A figure exists only where the status is ``ok``."""

    OK = "ok"
    FAILED_VERIFICATION = "failed-verification"
    ERROR = "error"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    UNAVAILABLE = "unavailable"
    LOST = "lost"  # not the kernel's doing: tried again once at once, and by --resume
