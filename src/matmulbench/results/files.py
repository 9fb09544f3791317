"""JSON files that others may have written, cut short or put in another's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError

_LIMIT = 2**27  # bytes; parsed, they take ten times as many


def read_json(path: Path) -> Any:
    """Read a JSON file, with or without a byte order mark.

    Raises
    ------
    UsageError
        if it is absent, no regular file (a pipe would be waited for), above 128 MiB, or no JSON.
    """
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no regular file" if path.exists() else f"{path} does not exist")
        if path.stat().st_size > _LIMIT:
            raise UsageError(f"file {path} has {path.stat().st_size >> 20} MiB, at most {_LIMIT >> 20} are read")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UsageError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"file {path} cannot be read as JSON: {error}") from None
