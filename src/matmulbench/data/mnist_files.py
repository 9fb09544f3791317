"""MNIST, found and read in whichever form it is kept."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from matmulbench.data.array_pickle import load_pairs
from matmulbench.data.embedded import Pair
from matmulbench.data.readers import BOM, IDX, ZIP, DataError, read_csv, read_idx, read_npz, unpacked
from matmulbench.errors import printable

VARIABLE = "MATMULBENCH_DATA"
_PIXELS, _ROWS, _TEST, _FEWEST = 784, 60_000, 10_000, 1_000

# name: shape, sha256 of the elements as bytes
FILES = {
    "train-images": ((_ROWS, 28, 28), "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"),
    "train-labels": ((_ROWS,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
    "t10k-images": ((_TEST, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
    "t10k-labels": ((_TEST,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
}
# Other sets of the same names and shapes: md5 of their gzipped train-images, as torchvision lists it
_OTHERS = {"8d4fb7e6c68d591d4c3dfef9ec88bf0d": "Fashion-MNIST", "bdb82020997e1d708af4cf47b453dcf7": "KMNIST"}
_PACKED = r"(\.(gz|bz2|xz))?"
_ONE_FILE = rf"(.*mnist.*\.(npz|pkl|pickle)|(mnist_784|(.*mnist_)?train)\.csv){_PACKED}"
_ACCEPTED = (
    "Accepted are the four IDX files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
    "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz, or unpacked), Keras' mnist.npz, Kaggle's train.csv (its "
    "last sixth is held out), mnist_train.csv with mnist_test.csv, OpenML's mnist_784.csv, and mnist.pkl.gz. "
    f"`matmulbench fetch mnist` gets the first; --data-dir or {VARIABLE} names another folder"
)


class Mnist(NamedTuple):
    """Pairs of x (rows, 784) float32, a pixel/256 from 0 to 0.99609375, and y (rows,) int64, 0 to 9.

    ``train`` has 50,000 rows, ``valid`` and ``test`` 10,000 each, in the order of the files. Of Kaggle's 42,000 rows,
    ``train`` has the first five sixths and ``valid`` the last; ``test`` is empty where the file has no labelled test.
    """

    train: Pair
    valid: Pair
    test: Pair


def cache_folder() -> Path:
    """Return the folder that :func:`~matmulbench.data.fetch_mnist` downloads into."""
    import pooch

    return Path(pooch.os_cache("matmulbench")) / "mnist"


def mnist(data_dir: str | Path | None = None) -> Mnist:
    """Read MNIST.

    Parameters
    ----------
    data_dir
        a folder that has, itself or in ``MNIST/raw`` below it, as torchvision lays it out: the four IDX files, Keras'
        ``mnist.npz``, Kaggle's ``train.csv``, ``mnist_train.csv`` with ``mnist_test.csv``, OpenML's ``mnist_784.csv``,
        or ``mnist.pkl.gz``, gzipped or not; or such a file itself. By default, the folder that the variable
        ``MATMULBENCH_DATA`` names, or else the cache of ``fetch mnist``.

    Raises
    ------
    DataError
        if files are absent or not what they should be; the message names file and field.
    """
    given = Path(data_dir or os.environ.get(VARIABLE) or cache_folder())
    try:
        found = _find(given.expanduser())
    except (OSError, RuntimeError) as error:  # a RuntimeError: ~name of nobody
        raise DataError(f"{given}: {getattr(error, 'strerror', None) or error}") from None
    if isinstance(found, Path):
        return _split(dict.fromkeys(FILES, found), *_read_one(found))
    x, y, test_x, test_y = (read_idx(path, FILES[name][0]) for name, path in found.items())
    train = _pair(found["train-images"], "train", x, y, _ROWS)
    return _split(found, train, _pair(found["t10k-images"], "test", test_x, test_y, _TEST))


def _find(given: Path) -> Path | dict[str, Path]:
    """Return the file that has all of MNIST, or the IDX files by what they have."""
    if given.is_file():
        with unpacked(given) as file:
            if file.read(3) != IDX:
                return given
        given = given.parent
    partial: dict[str, Path] = {}
    for place in (given, given / "raw", given / "MNIST", given / "MNIST" / "raw"):
        files = [path for path in place.iterdir() if path.is_file()] if place.is_dir() else []
        files.sort(key=lambda path: (len(path.name), path.name))
        # Copies are called train-images.idx3-ubyte and the like.
        names = {name: rf"{name}([-._]idx\d)?([-._]ubyte)?{_PACKED}" for name in FILES}
        idx = {name: path for name in FILES for path in files if re.fullmatch(names[name], path.name)}
        if len(idx) == len(FILES):
            return idx
        for path in files:
            if re.fullmatch(_ONE_FILE, path.name, re.IGNORECASE):
                return path
        partial = partial or idx
    absent = f", absent: {', '.join(sorted(FILES.keys() - partial.keys()))}" if partial else ""
    others = sorted(path.name for path in given.iterdir())[:6] if given.is_dir() and not partial else []
    there = f" (there are {printable(', '.join(others), 200)})" if others else ""
    raise DataError(f"{given}: MNIST is not there{absent}{there}. {_ACCEPTED}")


def _read_one(path: Path) -> tuple[Pair, Pair]:
    """Read a file that has all of MNIST; its format shows in its first bytes."""
    with unpacked(path) as file:
        start = file.read(512)
    if not start:
        raise DataError(f"{path}: the file is empty")
    if start.startswith(ZIP):
        x, y, test_x, test_y = read_npz(path)
        return _pair(path, "train", x, y, _ROWS), _pair(path, "test", test_x, test_y, _TEST)
    if (start.startswith(BOM) or start[:1].isalnum() or start[:1] in b'",') and b"\0" not in start:
        return _read_csv(path)
    if start[:1] in b"\x80(]":
        return _read_pickle(path)
    raise DataError(f"{path}: it begins with {start[:3]!r}, as no form of MNIST does. {_ACCEPTED}")


def _read_csv(path: Path) -> tuple[Pair, Pair]:
    x, y = read_csv(path, _ROWS + _TEST)
    if len(x) == _ROWS + _TEST:  # OpenML's, and scikit-learn's: one table
        return _pair(path, "train", x[:_ROWS], y[:_ROWS], _ROWS), _pair(path, "test", x[_ROWS:], y[_ROWS:], _TEST)
    if not _FEWEST <= len(x) <= _ROWS:
        raise DataError(f"{path}: rows: {len(x)}, expected {_FEWEST} to {_ROWS}, or {_ROWS + _TEST} with the test")
    test = path.with_name(path.name.replace("train", "test"))
    beside = "mnist" in test.name and test != path and test.is_file()
    test_x, test_y = read_csv(test, _TEST) if beside else (x[:0], y[:0])
    return _pair(path, "train", x, y, len(x)), _pair(test, "test", test_x, test_y, len(test_x))


def _read_pickle(path: Path) -> tuple[Pair, Pair]:
    rows = (_ROWS - _TEST, _TEST, _TEST)
    try:
        with unpacked(path) as file:
            sets = zip(Mnist._fields, load_pairs(file), rows, strict=True)
    except UnpicklingError as error:
        raise DataError(f"{path}: pickle: {error}") from None
    (x, y), (x_valid, y_valid), test = (_pair(path, part, *pair, n) for part, pair, n in sets)
    return (np.concatenate((x, x_valid)), np.concatenate((y, y_valid))), test


def _pair(path: Path, part: str, x: npt.NDArray[Any], y: npt.NDArray[Any], rows: int) -> Pair:
    """Check ``rows`` images of pixels from 0 to 255, or as floats from 0 to 1, and their labels; bring them to Pair."""
    if x.shape[:1] != (rows,) or x.size != rows * _PIXELS:
        raise DataError(f"{path}: {part} x: shape {x.shape}, expected ({rows}, {_PIXELS}) or ({rows}, 28, 28)")
    if y.shape != (rows,):
        raise DataError(f"{path}: {part} y: shape {y.shape}, expected ({rows},)")
    for field, array, high in (("x", x, 255), ("y", y, 9)):
        if array.dtype.kind not in "iuf":
            raise DataError(f"{path}: {part} {field}: dtype {array.dtype!s:.20}, expected numbers")
        if not (array.min(initial=0) >= 0 and array.max(initial=0) <= high):
            raise DataError(f"{path}: {part} {field}: values from {array.min()} to {array.max()}, expected 0 to {high}")
    if (broken := y[y % 1 != 0]).size:
        raise DataError(f"{path}: {part} y: {broken[0]}, expected whole numbers")
    if len(y) >= _FEWEST and not np.ptp(y):
        raise DataError(f"{path}: {part} y: all labels are {y[0]:g}, expected several digits: are they labels?")
    scale = 1 if x.dtype.kind == "f" and x.max(initial=0) <= 1 else 256
    return np.divide(x.reshape(rows, _PIXELS), scale, dtype=np.float32, order="C"), y.astype(np.int64)


def _split(paths: dict[str, Path], train: Pair, test: Pair) -> Mnist:
    """Hold out the last sixth of ``train``, once what has as many rows as MNIST is seen to be MNIST."""
    arrays: list[npt.NDArray[Any]] = [*train, *test]
    for name, array in zip(FILES, arrays, strict=True):
        (rows, *_), expected = FILES[name]
        if len(array) != rows:
            continue
        scale = 1 if array.ndim == 1 else 255 if array.max() == 1 else 256  # the pixels are divided by either
        checksum = hashlib.sha256(np.rint(array * scale).astype(np.uint8)).hexdigest()
        if checksum != expected:
            packed = hashlib.md5(paths[name].read_bytes(), usedforsecurity=False).hexdigest()
            found = _OTHERS.get(packed, "another data set of that shape (Fashion-MNIST? KMNIST?), or MNIST reordered")
            differs = f"the content's sha256 is {checksum}, MNIST's {expected}"
            raise DataError(f"{paths[name]}: {name}: not MNIST but {found}: {differs}")
    (x, y), cut = train, len(train[0]) * 5 // 6
    return Mnist((x[:cut], y[:cut]), (x[cut:], y[cut:]), test)
