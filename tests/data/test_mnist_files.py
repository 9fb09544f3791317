import bz2
import gzip
import hashlib
import lzma
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matmulbench.data import DataError, breast_cancer, digits, mnist, mnist_files

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
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
    for name in IDX:
        with gzip.open(Path(mnist_dir) / f"{name}.gz") as packed, (tmp_path / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    monkeypatch.setenv("MATMULBENCH_DATA", str(tmp_path))
    assert np.array_equal(mnist().test[0], from_idx.test[0])


def link(mnist_dir, folder, rename=lambda name: f"{name}.gz"):
    """Link to the IDX files from ``folder`` under other names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in IDX:
        (folder / rename(name)).symlink_to(Path(mnist_dir) / f"{name}.gz")


@pytest.mark.parametrize(
    ("below", "old", "new"),
    [("MNIST/raw", "", ""), ("raw", "-idx", ".idx"), ("MNIST", "-ubyte", ".ubyte"), ("", "-idx3-ubyte", "")],
)
def test_the_files_are_found_as_torchvision_and_others_lay_them(mnist_dir, from_idx, tmp_path, below, old, new):
    link(mnist_dir, tmp_path / below, lambda name: name.replace(old, new))
    assert np.array_equal(mnist(tmp_path).test[1], from_idx.test[1])


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=["bzip2", "xz"])
def test_files_may_be_packed_otherwise_and_links(mnist_dir, from_idx, tmp_path, pack):
    link(mnist_dir, tmp_path / "MNIST" / "raw")
    labels = tmp_path / "MNIST" / "raw" / f"{IDX[3]}.gz"
    content = gzip.decompress(labels.read_bytes())
    labels.unlink()
    packed = labels.with_suffix(".bz2" if pack is bz2.compress else ".xz")
    packed.write_bytes(pack(content))
    (tmp_path / "linked").symlink_to(tmp_path / "MNIST")
    assert np.array_equal(mnist(tmp_path / "linked").test[1], from_idx.test[1])
    packed.write_bytes(pack(content)[:-20])
    with pytest.raises(DataError, match="the file is cut short"):
        mnist(tmp_path)
    packed.write_bytes(pack(content)[:20] + bytes(5) + pack(content)[25:])
    with pytest.raises(DataError, match="the file is damaged"):
        mnist(tmp_path)


def test_what_is_in_the_folder_instead_is_named(tmp_path):
    (tmp_path / "emnist-digits-train-images-idx3-ubyte.gz").write_bytes(b"")
    (tmp_path / "FashionMNIST").mkdir()
    with pytest.raises(DataError, match=r"MNIST is not there \(there are FashionMNIST, emnist-digits-train-images"):
        mnist(tmp_path)


def test_nothing_waits_for_a_pipe_and_no_place_is_a_traceback(tmp_path):
    for name in ("train.csv", "mnist.npz", f"{IDX[0]}.gz"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path, tmp_path / "train.csv", tmp_path / "loop", "/dev/zero", "~nosuchuser/data", "x" * 5000):
        with pytest.raises(DataError):
            mnist(place)


def test_an_empty_file_is_named(tmp_path):
    for name in ("mnist.npz", "mnist.pkl.gz", "train.csv"):
        (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
        with pytest.raises(DataError, match=f"{name}: the file is empty"):
            mnist(tmp_path / name)


def test_one_of_the_files_stands_for_all(mnist_dir, from_idx):
    assert np.array_equal(mnist(Path(mnist_dir) / f"{IDX[2]}.gz").test[1], from_idx.test[1])


def test_swapped_files_are_named(mnist_dir, tmp_path):
    train, test = "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"
    link(mnist_dir, tmp_path, lambda name: {train: f"{test}.gz", test: f"{train}.gz"}.get(name, f"{name}.gz"))
    with pytest.raises(DataError, match=rf"{train}\.gz: shape: \(10000,\), expected \(60000,\)"):
        mnist(tmp_path)


def test_another_set_of_the_same_shape_is_named(mnist_dir, tmp_path, monkeypatch):
    link(mnist_dir, tmp_path)
    path = tmp_path / f"{IDX[0]}.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[5000] ^= 1
    path.unlink()
    path.write_bytes(gzip.compress(content, 1))
    with pytest.raises(DataError, match=rf"{path.name}: train-images: not MNIST but another .*, MNIST's 741c9888"):
        mnist(tmp_path)
    checksum = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(mnist_files._OTHERS, checksum, "Fashion-MNIST")
    with pytest.raises(DataError, match="train-images: not MNIST but Fashion-MNIST: "):
        mnist(tmp_path)


def test_a_file_cut_short_is_named(mnist_dir, tmp_path):
    link(mnist_dir, tmp_path)
    path = tmp_path / f"{IDX[0]}.gz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="the file is cut short"):
        mnist(tmp_path)


def test_an_empty_folder_says_what_is_missing_and_how_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        mnist(tmp_path)
    forms = ("mnist.npz", "train.csv", "mnist_train.csv", "mnist.pkl.gz")
    for part in (*IDX, *forms, "fetch mnist", "--data-dir", "MATMULBENCH_DATA", str(tmp_path)):
        assert part in str(caught.value)


def test_an_absent_file_of_the_four_is_named(tmp_path):
    (tmp_path / IDX[0]).write_bytes(b"")
    with pytest.raises(DataError, match=r"not there, absent: t10k-images, t10k-labels, train-labels\. Accepted"):
        mnist(tmp_path)


@pytest.fixture(scope="module")
def whole(from_idx):
    """Return MNIST as four arrays of bytes."""
    (x, y), (x_valid, y_valid), (x_test, y_test) = from_idx
    x, x_test = ((part * 256).astype(np.uint8) for part in (np.concatenate((x, x_valid)), x_test))
    return x, np.concatenate((y, y_valid)), x_test, y_test


def same(got, want):
    return all(
        np.array_equal(a, b) for one, other in zip(got, want, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("scale", "kind", "protocol"), [(256, "u1", 0), (256, "u1", 5), (256 / 255, "f8", 4)])
def test_a_pickle_saved_anew_holds_the_same(from_idx, tmp_path, scale, kind, protocol):
    sets = [((x * scale).astype(kind), y.astype(np.int32)) for x, y in from_idx]
    sets = [[np.asfortranarray(x), y] for x, y in sets]
    (tmp_path / "mnist.pkl").write_bytes(pickle.dumps(sets, protocol=protocol))
    got = mnist(tmp_path)
    assert [(x.dtype, y.dtype, x.flags.writeable) for x, y in got] == [(np.float32, np.int64, True)] * 3
    want = [(x * np.float32(scale if scale < 2 else 1), y) for x, y in from_idx]
    assert all(np.allclose(x, x_want, rtol=1e-6) for (x, _), (x_want, _) in zip(got, want, strict=True))
    assert all(np.array_equal(y, y_want) for (_, y), (_, y_want) in zip(got, want, strict=True))


def test_kerass_file_holds_the_same(from_idx, whole, tmp_path):
    x, y, x_test, y_test = whole
    np.savez(
        tmp_path / "mnist.npz", x_train=x.reshape(-1, 28, 28), y_train=y.astype("u1"), x_test=x_test, y_test=y_test
    )
    assert same(mnist(tmp_path), from_idx)
    np.savez(tmp_path / "mnist.npz", x_train=x[::-1], y_train=y, x_test=x_test, y_test=y_test)
    with pytest.raises(DataError, match=r"train-images: not MNIST but another data set .* or MNIST reordered"):
        mnist(tmp_path)


def write_csv(path, x, y, header=False):
    frame = pd.DataFrame(np.column_stack((y, x)), columns=["label", *(f"pixel{n}" for n in range(x.shape[1]))])
    frame.to_csv(path, index=False, header=header)


def test_a_sixth_of_kaggles_file_is_held_out(from_idx, whole, tmp_path):
    write_csv(tmp_path / "train.csv", whole[0][:1200], whole[1][:1200], header=True)
    (x, y), (x_valid, y_valid), (x_test, _) = mnist(tmp_path)
    assert np.array_equal(x, from_idx.train[0][:1000])
    assert np.array_equal(y, from_idx.train[1][:1000])
    assert np.array_equal(x_valid, from_idx.train[0][1000:1200])
    assert np.array_equal(y_valid, from_idx.train[1][1000:1200])
    assert x.flags.c_contiguous
    assert len(x_test) == 0


@pytest.mark.parametrize("header", [None, [*(f"pixel{n}" for n in range(784)), "target"]])
def test_labels_in_the_last_column_are_found(from_idx, whole, tmp_path, header):
    table = pd.DataFrame(np.column_stack((whole[0][:1200], whole[1][:1200])))
    table.to_csv(tmp_path / "train.csv", index=False, header=header or False)
    (x, y), *_ = mnist(tmp_path)
    assert np.array_equal(x, from_idx.train[0][:1000])
    assert np.array_equal(y, from_idx.train[1][:1000])


def test_what_pandas_writes_with_an_index_is_told_so(tmp_path):
    pd.DataFrame(np.zeros((1000, 785))).to_csv(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv: columns: 786, expected 785"):
        mnist(tmp_path)


def test_the_test_file_beside_is_read(from_idx, whole, tmp_path):
    write_csv(tmp_path / "mnist_train.csv", whole[0][:1200], whole[1][:1200])
    write_csv(tmp_path / "mnist_test.csv", *whole[2:])
    assert same(mnist(tmp_path)[2:], from_idx[2:])


def test_openmls_one_table_has_the_test_behind_the_training_rows(from_idx, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_files, "_ROWS", 1200)
    monkeypatch.setattr(mnist_files, "_TEST", 200)
    table = pd.DataFrame(whole[0][:1400], columns=[f"pixel{n}" for n in range(1, 785)])
    table.assign(**{"class": whole[1][:1400]}).to_csv(tmp_path / "mnist_784.csv", index=False)
    (x, y), (x_valid, _), (x_test, y_test) = mnist(tmp_path)
    assert np.array_equal(np.concatenate((x, x_valid, x_test)), from_idx.train[0][:1400])
    assert (len(x), len(x_valid), len(x_test)) == (1000, 200, 200)
    assert np.array_equal(y, from_idx.train[1][:1000])
    assert np.array_equal(y_test, from_idx.train[1][1200:1400])


@pytest.mark.parametrize(
    "content", [b"PAR1\x15\0\x15,,,PAR1", b"t10k-labels.gz\0\0,,,", "label,pixel1".encode("utf-16")]
)
def test_what_is_no_text_is_not_taken_for_a_csv_file(tmp_path, content):
    (tmp_path / "mnist_784.parquet").write_bytes(content)
    with pytest.raises(
        DataError, match=r"it begins with b'.*', as no form of MNIST does\. Accepted are .* mnist_784\.csv"
    ):
        mnist(tmp_path / "mnist_784.parquet")


def test_columns_with_semicolons_between_are_told_so(tmp_path):
    (tmp_path / "train.csv").write_text("label;pixel1\n5;0\n")
    with pytest.raises(DataError, match=r"train\.csv: columns: 1, expected 785 with commas between"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((10, 784)), np.zeros(10), "rows: 10, expected 1000 to 60000, or 70000 with the test"),
        (
            np.full((1000, 784), [256] + [0] * 783),
            np.zeros(1000),
            r"train x: values from 0.0 to 256.0, expected 0 to 255",
        ),
        (np.zeros((1000, 784)), np.arange(1000) % 11, r"train y: values from 0.0 to 10.0, expected 0 to 9"),
        (np.zeros((1000, 784)), np.full(1000, 1.5), r"train y: 1.5, expected whole numbers"),
        (np.zeros((1000, 784)), np.zeros(1000), "train y: all labels are 0, expected several digits"),
        (
            np.zeros((1000, 785)),
            np.zeros(1000),
            "columns: 786, expected 785 with commas between: label and 784 pixels, no index",
        ),
    ],
)
def test_a_csv_file_of_something_else_is_refused(tmp_path, x, y, message):
    write_csv(tmp_path / "train.csv", x, y)
    with pytest.raises(DataError, match=rf"train\.csv: {message}"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([1, 2], "expected are three pairs"),
        (
            [(np.zeros((2, 784), np.float32), np.zeros(2, np.int64))] * 3,
            r"train x: shape \(2, 784\), expected \(50000, 784\)",
        ),
        ([1, 2, 3], "expected are three pairs"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, sets, message):
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(sets, protocol=3)))
    with pytest.raises(DataError, match=rf"mnist\.pkl\.gz: .*{message}"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    "bomb", [b"\x80\x02T" + (10**6).to_bytes(4, "little"), b"(V", b"(S'", b"(V" + b"\\u0000" * 600]
)
def test_a_pickle_bomb_is_refused(tmp_path, monkeypatch, bomb):
    monkeypatch.setattr("matmulbench.data.array_pickle.BYTES", 1000)
    (tmp_path / "mnist.pkl.gz").write_bytes(gzip.compress(bomb + bytes(10**6)))
    with pytest.raises(DataError, match="more than 1000 bytes"):
        mnist(tmp_path)


def test_a_page_saved_in_place_of_the_file_is_named(tmp_path):
    (tmp_path / "mnist.pkl.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(
        DataError, match=r"mnist\.pkl\.gz: it begins with b'<ht', as no form of MNIST does. Accepted are"
    ):
        mnist(tmp_path)


def test_the_embedded_sets():
    x, y = breast_cancer()
    assert (x.shape, y.shape, int(y.sum())) == ((569, 30), (569,), 357)  # benign
    x, y = digits()
    assert (x.shape, x.min(), x.max()) == ((1797, 64), 0, 1)
    assert set(y.tolist()) == set(range(10))
