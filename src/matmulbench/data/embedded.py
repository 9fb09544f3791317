"""Two real data sets that scikit-learn carries, so that they need no download."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def breast_cancer() -> Pair:
    """Return the Wisconsin diagnostic set: x (569, 30) float32, as measured, and y (569,), 0 malignant, 1 benign.

    Street, Wolberg & Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993 (UCI, 1995).
    """
    from sklearn.datasets import load_breast_cancer  # here, for it takes two seconds

    x, y = load_breast_cancer(return_X_y=True)
    return np.asarray(x, np.float32), np.asarray(y, np.int64)


def digits() -> Pair:
    """Return the handwritten digits: x (1797, 64) float32 from 0 to 1, rows of 8x8 images, and y (1797,), 0 to 9.

    Alpaydin & Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), its test part.
    """
    from sklearn.datasets import load_digits  # here, for it takes two seconds

    x, y = load_digits(return_X_y=True)
    return np.asarray(x / 16, np.float32), np.asarray(y, np.int64)
