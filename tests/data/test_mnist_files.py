import gzip
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from matmulbench.data import DataError, breast_cancer, digits, first_product, mnist
from matmulbench.data.mnist_files import FILES
from matmulbench.ladder.broadcasting import matmul

REBUILT = "mnist-rebuilt.pkl.gz"


@pytest.fixture(scope="module")
def from_idx(mnist_dir):
    return mnist(mnist_dir)


def test_the_sets_are_the_articles(from_idx):
    assert [x.shape for x, _ in from_idx] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert [y[:5].tolist() for _, y in from_idx] == [[5, 0, 4, 1, 9], [3, 8, 6, 9, 6], [7, 2, 1, 0, 4]]
    for x, y in from_idx:
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0, 0.99609375)


def test_the_pickle_holds_the_same(mnist_dir, from_idx, tmp_path):
    source = Path(mnist_dir) / REBUILT
    if not source.exists():
        pytest.skip(f"there is no {REBUILT} beside the IDX files")
    (tmp_path / "mnist.pkl.gz").symlink_to(source)
    for got in (mnist(tmp_path), mnist(tmp_path / "mnist.pkl.gz")):
        for (x, y), (x_want, y_want) in zip(got, from_idx, strict=True):
            assert np.array_equal(x, x_want)
            assert np.array_equal(y, y_want)


def test_files_may_be_unpacked_and_the_variable_names_the_folder(mnist_dir, from_idx, tmp_path, monkeypatch):
    for name in FILES:
        with gzip.open(Path(mnist_dir) / f"{name}.gz") as packed, (tmp_path / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    monkeypatch.setenv("MATMULBENCH_DATA", str(tmp_path))
    assert np.array_equal(mnist().test[0], from_idx.test[0])


def test_the_articles_first_product(mnist_dir, from_idx):
    m1, m2 = first_product(mnist_dir)
    assert (m1.shape, m2.shape) == ((5, 784), (784, 10))
    assert np.array_equal(m1.numpy(), from_idx.valid[0][:5])
    assert torch.allclose(matmul(m1, m2), m1 @ m2, atol=1e-4)


def test_swapped_files_are_told(mnist_dir, tmp_path):
    train, test = "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"
    for name in FILES:
        other = {train: test, test: train}.get(name, name)
        (tmp_path / f"{name}.gz").symlink_to(Path(mnist_dir) / f"{other}.gz")
    with pytest.raises(DataError, match=rf"{train}\.gz: shape: \(10000,\), expected \(60000,\)"):
        mnist(tmp_path)


def test_a_changed_pixel_is_told(mnist_dir, tmp_path):
    for name in FILES:
        (tmp_path / f"{name}.gz").symlink_to(Path(mnist_dir) / f"{name}.gz")
    name = "t10k-images-idx3-ubyte"
    content = bytearray(gzip.decompress((tmp_path / f"{name}.gz").read_bytes()))
    content[5000] ^= 1
    (tmp_path / f"{name}.gz").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: sha256"):
        mnist(tmp_path)


def test_an_empty_folder_says_what_is_missing_and_how_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        mnist(tmp_path)
    for part in (*FILES, "fetch mnist", "--data-dir", "MATMULBENCH_DATA", str(tmp_path)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([1, 2], "expected three"),
        ([(np.zeros((2, 784), np.float32), np.zeros(2, np.int64))] * 3, r"train x: shape \(2, 784\) of float32"),
        ([1, 2, 3], "train: expected a pair"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, sets, message):
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(sets, protocol=3)))
    with pytest.raises(DataError, match=rf"mnist\.pkl\.gz: .*{message}"):
        mnist(tmp_path)


def test_a_pickle_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("matmulbench.data.mnist_files._PICKLE_LIMIT", 1000)
    (tmp_path / "mnist.pkl.gz").write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(DataError, match="unpacks to more than 1000 bytes"):
        mnist(tmp_path)


def test_the_embedded_sets():
    x, y = breast_cancer()
    assert (x.shape, y.shape, int(y.sum())) == ((569, 30), (569,), 357)  # benign
    x, y = digits()
    assert (x.shape, x.min(), x.max()) == ((1797, 64), 0, 1)
    assert set(y.tolist()) == set(range(10))
