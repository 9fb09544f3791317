"""Read the file formats in which MNIST is kept; sizes that a file states are checked before memory is taken.

IDX (LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist): two zero bytes, a byte for the type (8: unsigned byte), a byte
for the number of dimensions, each size as a big-endian 32-bit integer, then the elements.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from matmulbench.errors import UsageError, printable

IDX, ZIP, BOM = b"\0\0\x08", b"PK", b"\xef\xbb\xbf"
_UNPACKERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7z": lzma.open}
_COLUMNS = 785
_LIMIT = 480_000_000  # bytes, unpacked, of a CSV or npz file; MNIST as float64 has 439 million


class DataError(UsageError):
    """Data that cannot be used; the message names the file, the field, what was found and what is right."""


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open ``path``, unpacking gzip, bzip2 or xz; what goes wrong while it is read is a DataError."""
    try:
        with path.open("rb") as raw:
            start = raw.read(3)
            raw.seek(0)
            unpack = next((unpack for magic, unpack in _UNPACKERS.items() if start.startswith(magic)), None)
            yield unpack(raw) if unpack else raw
    except EOFError:
        raise DataError(f"{path}: the file is cut short") from None
    except (OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or f'{error}: the file is damaged'}") from None


def read_idx(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the elements of the IDX file ``path``, gzipped or not, as an array of ``shape``.

    Raises
    ------
    DataError
        if the file cannot be read, is no IDX file, or is of another shape or size.
    """
    header = IDX + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
    size = len(header) + math.prod(shape)
    with unpacked(path) as file:
        content = file.read(size + 1)
    if header.startswith(content) or (content.startswith(header) and len(content) < size):
        raise DataError(f"{path}: size: {len(content)} bytes of content of {size}: the file is cut short")
    if not content.startswith(IDX):
        raise DataError(f"{path}: magic number: {content[:4].hex()}; an IDX file of bytes begins {header[:4].hex()}")
    if not content.startswith(header):
        found = tuple(np.frombuffer(content[4 : 4 + 4 * content[3]], ">u4").tolist())
        raise DataError(f"{path}: shape: {found}, expected {shape}: is it another file or another data set?")
    if len(content) > size:
        raise DataError(f"{path}: size: expected {size} bytes of content, there are more")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_npz(path: Path) -> list[npt.NDArray[Any]]:
    """Return x_train, y_train, x_test and y_test of a file as Keras keeps it, of whatever shape and dtype.

    Raises
    ------
    DataError
        if it is no whole npz file with these arrays, or unpacks to more than 480 million bytes.
    """
    names = ("x_train", "y_train", "x_test", "y_test")
    with unpacked(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > _LIMIT:
                    raise DataError(f"{path}: size: it unpacks to more than {_LIMIT} bytes")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                if absent := [name for name in names if name not in arrays]:
                    there = printable(", ".join(arrays), 100)
                    raise DataError(f"{path}: npz: absent: {', '.join(absent)}; it has {there}")
                return [np.asarray(arrays[name]) for name in names]
        except (DataError, EOFError, OSError):
            raise
        except zipfile.BadZipFile:
            raise DataError(f"{path}: zip: the file is cut short or damaged") from None
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise DataError(f"{path}: npz: {printable(str(error), 100)}") from None


def read_csv(path: Path, rows: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return x (at most ``rows``, 784) and y of a file with a row for each image, with or without a header.

    The label is in the column ``label`` or ``class``, or else in the first or the last, whichever is not all the same
    (a corner of all images is).

    Raises
    ------
    DataError
        if it is not a table of numbers with 785 columns and at most ``rows`` rows.
    """
    import pandas as pd  # here, for it takes a second

    with unpacked(path) as file:
        content = file.read(_LIMIT)
    first = content[:20_000].removeprefix(BOM).split(b"\n")[0]
    header = None if first.split(b",")[0].strip(b' "').replace(b".", b"").isdigit() else 0
    if (columns := 1 + first.count(b",")) != _COLUMNS:
        raise DataError(
            f"{path}: columns: {columns}, expected {_COLUMNS} with commas between: label and 784 pixels, no index"
        )
    if content.rstrip()[-20_000:].split(b"\n")[-1].count(b",") < _COLUMNS - 1:
        raise DataError(f"{path}: the last row has fewer than {_COLUMNS} columns: the file is cut short")
    try:
        table = pd.read_csv(io.BytesIO(content), header=header, dtype=np.float32, nrows=rows + 1)
    except ValueError as error:
        raise DataError(f"{path}: {printable(str(error), 100)}") from None
    if len(table) > rows:
        raise DataError(f"{path}: rows: more than {rows}, as many as MNIST has")
    values = table.to_numpy()
    named = next((i for i, name in enumerate(table) if str(name).lower() in ("label", "class")), None)
    label = named if named is not None else next((i for i in (0, -1) if np.ptp(values[:, i])), 0)
    return np.delete(values, label, axis=1), values[:, label]
