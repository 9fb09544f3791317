"""The one error of this room."""

from matmulbench.errors import UsageError


class DataError(UsageError):
    """Data that cannot be used; the message names the file, the field, what was found and what is right."""
