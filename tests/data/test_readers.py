import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from matmulbench.data import DataError
from matmulbench.data.readers import read_csv, read_idx, read_npz

SHAPE = (3, 2, 2)
ELEMENTS = bytes(range(12))


def idx(shape=SHAPE, elements=ELEMENTS, magic=b"\0\0\x08"):
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + elements


def write(folder, content, packed):
    path = folder / ("file-idx3-ubyte" + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def packed(request):
    return request.param


def test_a_good_file_is_read(tmp_path, packed):
    got = read_idx(write(tmp_path, idx(), packed), SHAPE)
    assert got.dtype == np.uint8
    assert got.tolist() == np.arange(12).reshape(SHAPE).tolist()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "size: 0 bytes of content of 28: the file is cut short"),
        (idx()[:10], "size: 10 bytes of content of 28: the file is cut short"),
        (idx(magic=b"PK\x03"), "magic number: 504b0303"),
        (idx(magic=b"\0\0\x0d"), "magic number: 00000d03; an IDX file of bytes begins 00000803"),
        (idx(shape=(12,)) + bytes(8), r"shape: \(12,\), expected \(3, 2, 2\): is it another file"),
        (idx(shape=(4, 2, 2)), r"shape: \(4, 2, 2\), expected \(3, 2, 2\)"),
        (idx(shape=(2**32 - 1, 2**32 - 1, 2**32 - 1)), r"shape: \(4294967295, 4294967295, 4294967295\), expected"),
        (idx()[:-1], "size: 27 bytes of content of 28: the file is cut short"),
        (idx() + b"x", "size: expected 28 bytes of content, there are more"),
        (b"<!DOCTYPE html>", "magic number: 3c21444f; an IDX"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path, packed, content, field):
    path = write(tmp_path, content, packed)
    with pytest.raises(DataError, match=f"{path.name}: {field}"):
        read_idx(path, SHAPE)


def test_a_truncated_gzip_stream(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx())[:-12])
    with pytest.raises(DataError, match=r"file\.gz: the file is cut short"):
        read_idx(path, SHAPE)


def test_a_corrupted_gzip_stream(tmp_path):
    path = tmp_path / "file.gz"
    content = bytearray(gzip.compress(idx(elements=np.random.default_rng(0).bytes(12))))
    content[12] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.gz: (.*the file is damaged|magic|shape|size|dimensions|header)"):
        read_idx(path, SHAPE)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as bomb:
        bomb.write(idx())
        for _ in range(64):
            bomb.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(DataError, match="there are more"):
        read_idx(path, SHAPE)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_an_absent_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "absent", SHAPE)
    with pytest.raises(DataError, match="Is a directory"):
        read_idx(tmp_path, SHAPE)


KERAS = {"x_train": np.ones((6, 2)), "y_train": np.arange(6), "x_test": np.zeros((1, 2)), "y_test": np.zeros(1, "u1")}


def save_npz(path, **changes):
    np.savez_compressed(path, **{**KERAS, **changes})
    return path


def test_an_npz_file_is_read(tmp_path):
    got = read_npz(save_npz(tmp_path / "mnist.npz"))
    assert all(np.array_equal(a, b) for a, b in zip(got, KERAS.values(), strict=True))


def test_the_arrays_of_an_npz_file_stand_in_any_order_with_others_among_them(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, other=np.zeros(3), **dict(reversed(KERAS.items())))
    for content in (path.read_bytes(), gzip.compress(path.read_bytes())):
        path.write_bytes(content)
        assert all(np.array_equal(a, b) for a, b in zip(read_npz(path), KERAS.values(), strict=True))


def test_a_bad_npz_file_is_named(tmp_path):
    path = save_npz(tmp_path / "mnist.npz")
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(DataError, match="the file is cut short or damaged"):
        read_npz(path)
    save_npz(path, x_train=np.array([print]))
    with pytest.raises(DataError, match=r"npz: Object arrays cannot be loaded"):
        read_npz(path)
    np.savez(path, x=np.zeros(2))
    with pytest.raises(DataError, match=r"npz: absent: x_train, y_train, x_test, y_test; it has x$"):
        read_npz(path)


def test_an_npz_file_that_lies_of_its_size_takes_no_memory(tmp_path):
    path = tmp_path / "mnist.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in KERAS:
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(DataError, match="npz: "):
        read_npz(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x_train.npy", "w") as bomb:
        for _ in range(500):
            bomb.write(bytes(10**6))
    tracemalloc.start()
    with pytest.raises(DataError, match="size: it unpacks to more than 480000000 bytes"):
        read_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


HEADER = ",".join(["label", *(f"pixel{n}" for n in range(784))]) + "\n"
ROWS = "".join(",".join([str(label), *(str((label + n) % 256) for n in range(784))]) + "\n" for label in range(5))


QUOTED = "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in (HEADER + ROWS).splitlines())
LAST = "".join(",".join([*line.split(",")[1:], line.split(",")[0]]) + "\n" for line in (HEADER + ROWS).splitlines())


@pytest.mark.parametrize(
    "content",
    [
        *(HEADER + ROWS, ROWS, ROWS.rstrip(), (HEADER + ROWS).replace("\n", "\r\n"), ROWS.replace("\n", "\r\n")),
        *("\ufeff" + HEADER + ROWS, "\ufeff" + ROWS, QUOTED, QUOTED.partition("\n")[2], "\ufeff" + QUOTED),
        *(
            LAST.replace("pixel0,", "1x1,"),
            ROWS.replace(",", ".0,"),
            HEADER.upper() + ROWS,
            HEADER.replace("label", "class") + ROWS,
            LAST,
        ),
    ],
)
def test_a_csv_file_is_read_with_or_without_header(tmp_path, packed, content):
    x, y = read_csv(write(tmp_path, content.encode(), packed), 5)
    assert y.tolist() == list(range(5))
    assert x.tolist() == [[(label + n) % 256 for n in range(784)] for label in range(5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "columns: 1, expected 785"),
        ("1,2,3\n", "columns: 3, expected 785 with commas between"),
        (HEADER.removeprefix("label,"), "columns: 784, expected 785"),
        (ROWS[:-500], "the last row has fewer than 785 columns: the file is cut short"),
        (ROWS.replace("250", "soup"), "could not convert string to float"),
        (ROWS + ROWS, "rows: more than 5"),
        (ROWS.replace("\n", ",1\n"), "columns: 786, expected 785"),
    ],
)
def test_a_bad_csv_file_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_csv(write(tmp_path, content.encode(), packed=False), 5)
