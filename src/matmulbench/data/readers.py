"""Read the forms in which MNIST is kept, believing nothing that a file says of its size before it is checked.

IDX (LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist): two zero bytes, a byte for the type (8: unsigned byte), a byte
for the number of dimensions, each size as a big-endian 32-bit integer, then the elements.
"""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from matmulbench.data.errors import DataError

IDX, ZIP, GZIP = b"\0\0\x08", b"PK", b"\x1f\x8b"
_COLUMNS = 785
_LIMIT = 480_000_000  # bytes, unpacked, of a CSV or npz file; MNIST as float64 has 439 million


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open ``path``, unpacking it if it is gzipped; what goes wrong while it is read is a DataError."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP
            raw.seek(0)
            yield cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
    except EOFError:
        raise DataError(f"{path}: gzip stream: the file is cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: gzip stream: {error}: the file is damaged") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def read_idx(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the elements of the IDX file ``path``, gzipped or not, as an array of ``shape``.

    Raises
    ------
    DataError
        if the file cannot be read, is no IDX file, or is of another shape or size.
    """
    header_size = 4 + 4 * len(shape)
    size = header_size + math.prod(shape)
    with unpacked(path) as file:
        content = file.read(size + 1)
    if not (IDX.startswith(content[:3]) or content.startswith(IDX)):
        raise DataError(f"{path}: magic number: {content[:4].hex()}; an IDX file of bytes begins 0000080{len(shape)}")
    if len(content) < header_size:
        raise DataError(f"{path}: header: {len(content)} bytes of {header_size}: the file is cut short")
    if content[3] != len(shape):
        raise DataError(f"{path}: dimensions: {content[3]}, expected {len(shape)}: are images and labels swapped?")
    found = tuple(int(size) for size in np.frombuffer(content, ">u4", len(shape), 4))
    if found != shape:
        raise DataError(f"{path}: shape: {found}, expected {shape}: is it another file or another data set?")
    if len(content) < size:
        raise DataError(f"{path}: size: {len(content)} bytes of content of {size}: the file is cut short")
    if len(content) > size:
        raise DataError(f"{path}: size: expected {size} bytes of content, there are more")
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def read_npz(path: Path) -> list[npt.NDArray[Any]]:
    """Return x_train, y_train, x_test and y_test of a file as Keras keeps it, of whatever shape and dtype.

    Raises
    ------
    DataError
        if it is no whole npz file with these arrays, or unpacks to more than 480 million bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LIMIT:
                raise DataError(f"{path}: size: it unpacks to more than {_LIMIT} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return [np.asarray(arrays[name]) for name in ("x_train", "y_train", "x_test", "y_test")]
    except DataError:
        raise
    except zipfile.BadZipFile:
        raise DataError(f"{path}: zip: the file is cut short or damaged") from None
    except KeyError as error:
        raise DataError(f"{path}: npz: {error.args[0]!s:.100}; expected are x_train, y_train, x_test, y_test") from None
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise DataError(f"{path}: npz: {ascii(str(error))[1:101]}") from None


def read_csv(path: Path, rows: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return x (at most ``rows``, 784) and y of a file with a row for each image, with or without a header.

    The label is in the column of that name, or else in the first.

    Raises
    ------
    DataError
        if it is not a table of numbers with 785 columns and at most ``rows`` rows.
    """
    import pandas as pd  # here, for it takes a second

    with unpacked(path) as file:
        content = file.read(_LIMIT)
    first, *_ = content[:20_000].split(b"\n")
    header = None if first.strip()[:1].isdigit() else 0
    if (columns := 1 + first.count(b",")) != _COLUMNS:
        raise DataError(f"{path}: columns: {columns}, expected {_COLUMNS}: the label and 784 pixels")
    if content.rstrip()[-20_000:].split(b"\n")[-1].count(b",") < _COLUMNS - 1:
        raise DataError(f"{path}: the last row has fewer than {_COLUMNS} columns: the file is cut short")
    try:
        table = pd.read_csv(io.BytesIO(content), header=header, dtype=np.float32, nrows=rows + 1)
    except ValueError as error:
        raise DataError(f"{path}: {ascii(str(error))[1:101]}") from None
    if len(table) > rows:
        raise DataError(f"{path}: rows: more than {rows}, as many as MNIST has")
    label = table.pop("label" if "label" in table else table.columns[0])
    return table.to_numpy(), label.to_numpy()
