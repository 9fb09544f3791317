"""Read an IDX file of bytes, gzipped or not, believing nothing that it says before it is checked.

The format (LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist): two zero bytes, a byte for the type (8: unsigned
byte), a byte for the number of dimensions, each size as a big-endian 32-bit integer, then the elements.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from matmulbench.data.errors import DataError

_UNSIGNED_BYTE = 8
_GZIP = b"\x1f\x8b"


def read_idx(path: Path, shape: tuple[int, ...], sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """Return the elements of the IDX file ``path`` as an array of ``shape``.

    ``shape`` is what the file must hold, and so bounds what is read of it: neither a header that lies nor a gzip
    file that unpacks without end takes more memory. ``sha256`` is that of the whole content, unpacked.

    Raises
    ------
    DataError
        if the file cannot be read, is no IDX file, is of another shape, too short or long, or has another checksum.
    """
    header_size = 4 + 4 * len(shape)
    size = header_size + math.prod(shape)
    content = read_bounded(path, size + 1)
    if len(content) < header_size:
        raise DataError(f"{path}: header: {len(content)} bytes; an IDX header has {header_size}: is it truncated?")
    header = np.frombuffer(content, np.uint8, 4)
    if header[:2].any() or header[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: magic number: {content[:4].hex()}; an IDX file of bytes begins 0000080{len(shape)}")
    if header[3] != len(shape):
        raise DataError(f"{path}: dimensions: {header[3]}, expected {len(shape)}: are images and labels swapped?")
    found = tuple(int(size) for size in np.frombuffer(content, ">u4", len(shape), 4))
    if found != shape:
        raise DataError(f"{path}: shape: {found}, expected {shape}: is it another file of the set?")
    if len(content) != size:
        what = "more" if len(content) > size else f"{len(content)}: is it truncated?"
        raise DataError(f"{path}: size: expected {size} bytes of content, there are {what}")
    if sha256 and (checksum := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"{path}: sha256 of the unpacked content: {checksum}, expected {sha256}: is it corrupted?")
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the first ``limit`` bytes of ``path``, unpacked if it is gzipped; fewer if there are fewer.

    Raises
    ------
    DataError
        if it cannot be read, or its gzip stream is truncated or corrupted.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            source = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
            return source.read(limit)
    except EOFError:
        raise DataError(f"{path}: gzip stream: it ends too soon: is the file truncated?") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: gzip stream: {error}: is the file corrupted?") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
