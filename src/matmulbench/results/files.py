"""JSON files that others may have written, cut short or put in another's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError, printable

_LIMIT = 2**27  # bytes; parsed, they take ten times as many


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises
    ------
    UsageError
        if it is absent, no regular file (a pipe would be waited for), above 128 MiB, or no JSON.
    """
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no regular file" if path.exists() else f"{path} does not exist")
        if (size := path.stat().st_size) > _LIMIT:
            raise UsageError(f"file {path} has {size >> 20} MiB, at most {_LIMIT >> 20} are read")
        if not (content := path.read_bytes()).strip():
            raise UsageError(f"file {path} is empty")
        return json.loads(content)
    except UsageError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"file {path} cannot be read as JSON: {printable(str(error), 200)}") from None
