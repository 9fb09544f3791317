import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from matmulbench.data import DataError
from matmulbench.data.idx import read_idx

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
    got = read_idx(write(tmp_path, idx(), packed), SHAPE, hashlib.sha256(idx()).hexdigest())
    assert got.dtype == np.uint8
    assert got.tolist() == np.arange(12).reshape(SHAPE).tolist()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "header: 0 bytes"),
        (idx()[:10], "header: 10 bytes; an IDX header has 16: is it truncated"),
        (idx(magic=b"PK\x03"), "magic number: 504b0303"),
        (idx(magic=b"\0\0\x0d"), "magic number: 00000d03; an IDX file of bytes begins 00000803"),
        (idx(shape=(12,)) + bytes(8), "dimensions: 1, expected 3: are images and labels swapped"),
        (idx(shape=(4, 2, 2)), r"shape: \(4, 2, 2\), expected \(3, 2, 2\)"),
        (idx(shape=(2**32 - 1, 2**32 - 1, 2**32 - 1)), r"shape: \(4294967295, 4294967295, 4294967295\), expected"),
        (idx()[:-1], "size: expected 28 bytes of content, there are 27: is it truncated"),
        (idx() + b"x", "size: expected 28 bytes of content, there are more"),
        (idx(elements=bytes(12)), "sha256 of the unpacked content: .*: is it corrupted"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path, packed, content, field):
    path = write(tmp_path, content, packed)
    with pytest.raises(DataError, match=f"{path.name}: {field}"):
        read_idx(path, SHAPE, hashlib.sha256(idx()).hexdigest())


def test_a_truncated_gzip_stream(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx())[:-12])
    with pytest.raises(DataError, match=r"file\.gz: gzip stream: it ends too soon"):
        read_idx(path, SHAPE)


def test_a_corrupted_gzip_stream(tmp_path):
    path = tmp_path / "file.gz"
    content = bytearray(gzip.compress(idx(elements=np.random.default_rng(0).bytes(12))))
    content[12] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.gz: (gzip stream|magic|shape|sha256|size|dimensions|header)"):
        read_idx(path, SHAPE, hashlib.sha256(idx()).hexdigest())


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
