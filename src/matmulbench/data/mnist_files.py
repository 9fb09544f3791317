"""MNIST from its four IDX files or from ``mnist.pkl.gz``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from matmulbench.data.embedded import Pair
from matmulbench.data.errors import DataError
from matmulbench.data.idx import read_bounded, read_idx
from matmulbench.data.restricted_pickle import load_arrays

if TYPE_CHECKING:
    import torch

VARIABLE = "MATMULBENCH_DATA"
PICKLES = ("mnist.pkl.gz", "mnist.pkl", "mnist-rebuilt.pkl.gz")
_TRAIN, _VALID, _TEST, _PIXELS = 50_000, 10_000, 10_000, 784
_PICKLE_LIMIT = 256 * 2**20  # the right one has 220,080,342 bytes

# name: shape, sha256 of the content unpacked (the gzip around it differs from mirror to mirror)
FILES = {
    "train-images-idx3-ubyte": (
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        (60_000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        (10_000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


class Mnist(NamedTuple):
    """Pairs of x (rows, 784) float32, a pixel/256 from 0 to 0.99609375, and y (rows,) int64, 0 to 9.

    ``train`` has 50,000 rows, ``valid`` and ``test`` 10,000 each, in the order of the files.
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
        a folder with the four IDX files, each gzipped or not, or with ``mnist.pkl.gz``; or such a pickle itself.
        By default, the folder that the variable ``MATMULBENCH_DATA`` names, or else the cache of ``fetch mnist``.

    Raises
    ------
    DataError
        if files are absent or not what they should be; the message names file and field.
    """
    folder = Path(os.path.expanduser(data_dir or os.environ.get(VARIABLE) or cache_folder()))
    if folder.is_file():
        return _read_pickle(folder)
    paths = {name: _find(folder, name) for name in FILES}
    absent = [name for name, path in paths.items() if path is None]
    if len(absent) == len(FILES):
        for name in PICKLES:
            if (folder / name).is_file():
                return _read_pickle(folder / name)
    if absent:
        raise DataError(
            f"{folder}: MNIST is not there, absent: {', '.join(f'{name}.gz' for name in absent)}. Get it with "
            f"`matmulbench fetch mnist`, or name a folder that has these files or {PICKLES[0]} "
            f"with --data-dir or {VARIABLE}"
        )
    arrays = [read_idx(path, *FILES[name]) for name, path in paths.items() if path]
    train_x, train_y, test_x, test_y = (_scale(a) if a.ndim > 1 else a.astype(np.int64) for a in arrays)
    return Mnist(
        (train_x[:_TRAIN], train_y[:_TRAIN]),  # type: ignore[arg-type]  # images and labels alternate
        (train_x[_TRAIN:], train_y[_TRAIN:]),  # type: ignore[arg-type]
        (test_x, test_y),  # type: ignore[arg-type]
    )


def first_product(data_dir: str | Path | None = None, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first product of the article: the first five images of the valid set, and random weights.

    Returns
    -------
    ``m1`` (5, 784), that is ``x_valid[:5]``, and ``m2`` (784, 10), that is ``torch.randn(784, 10)``, float32.

    Examples
    --------
    >>> from matmulbench.ladder.broadcasting import matmul
    >>> m1, m2 = first_product()  # doctest: +SKIP
    >>> matmul(m1, m2).shape  # doctest: +SKIP
    torch.Size([5, 10])
    """
    import torch

    (_, _), (x_valid, _), _ = mnist(data_dir)
    m1 = torch.from_numpy(x_valid[:5])
    m2 = torch.randn(784, 10, generator=torch.Generator().manual_seed(seed))
    return m1, m2


def _find(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")  # as some archives unpack
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _scale(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(256)


def _read_pickle(path: Path) -> Mnist:
    content = read_bounded(path, _PICKLE_LIMIT + 1)
    if len(content) > _PICKLE_LIMIT:
        raise DataError(f"{path}: size: it unpacks to more than {_PICKLE_LIMIT} bytes, mnist.pkl has 220 million")
    sets = load_arrays(content, str(path))
    if not isinstance(sets, tuple | list) or len(sets) != 3:
        raise DataError(f"{path}: pickle: expected three (x, y) pairs: train, valid and test")
    rows = (_TRAIN, _VALID, _TEST)
    return Mnist(*(_pair(path, part, pair, n) for part, pair, n in zip(Mnist._fields, sets, rows, strict=True)))


def _pair(path: Path, part: str, pair: Any, rows: int) -> Pair:
    """Check one pair of a pickle."""
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(a, np.ndarray) for a in pair):
        raise DataError(f"{path}: {part}: expected a pair (x, y) of arrays")
    x, y = pair
    for field, array, shape, kind, high in (("x", x, (rows, _PIXELS), "f", 1), ("y", y, (rows,), "i", 9)):
        if array.shape != shape or array.dtype.kind != kind:
            raise DataError(
                f"{path}: {part} {field}: shape {array.shape} of {array.dtype}, expected {shape} of kind {kind!r}"
            )
        if not (array.min() >= 0 and array.max() <= high):
            raise DataError(f"{path}: {part} {field}: values from {array.min()} to {array.max()}, expected 0 to {high}")
    return x.astype(np.float32), y.astype(np.int64)
