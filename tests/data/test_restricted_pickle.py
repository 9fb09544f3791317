import os
import pickle

import numpy as np
import pytest

from matmulbench.data import DataError
from matmulbench.data.restricted_pickle import load_arrays


class Malicious:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def call(module, function, arguments):
    """Write a pickle that calls ``module.function`` with what ``arguments`` pushes."""
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + arguments + b"R."


# numpy 1 and 2 name the function's module differently; what else a pickle of an array holds is the same.
@pytest.mark.parametrize("spelling", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_arrays_of_either_numpy_are_read(spelling, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    # Made by hand, as Python 2 wrote it: protocol 2, the elements as a string.
    data = b"T" + array.nbytes.to_bytes(4, "little") + array.tobytes()
    code = array.dtype.str[1:].encode()
    content = (
        b"\x80\x02c" + spelling.encode() + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89" + data + b"tb."
    )
    got = load_arrays(content, "file")
    assert got.dtype == kind
    assert np.array_equal(got, array)
    assert np.array_equal(pickle.loads(content, encoding="latin-1"), array)  # the test's own pickle is right


def test_a_malicious_pickle_runs_nothing(tmp_path):
    mark = tmp_path / "mark"
    content = pickle.dumps(Malicious(mark))
    with pytest.raises(DataError, match=r"file: pickle: .*it asks for \w+\.system, and only numpy arrays"):
        load_arrays(content, "file")
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # it does run where it may


@pytest.mark.parametrize(
    "content",
    [
        call("builtins", "eval", b"X\x01\x00\x00\x000\x85"),
        call("numpy", "load", b"X\x01\x00\x00\x00x\x85"),
        call("numpy", "dtype.__class__", b"X\x01\x00\x00\x00x\x85"),
        call("numpy.core.multiarray", "scalar", b"X\x01\x00\x00\x00x\x85"),
        call("numpy", "ndarray", b"J\xff\xff\xff\x7f\x85\x85"),  # 2 GiB of doubles, if it were called
        call("numpy", "dtype", b"U\x01O\x85"),  # objects
        call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87"),
        call("numpy.core.multiarray", "_reconstruct", b"cnumpy\ndtype\nK\x00\x85U\x01b\x87"),
        b"\x80\x02U\x01xQ.",  # a persistent object
        b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".",  # bytes of a length that is not there
        pickle.dumps(np.zeros(3), protocol=2)[:-20],
        b"",
        b"not a pickle",
    ],
)
def test_whatever_else_is_refused(content):
    with pytest.raises(DataError, match=r"^file: pickle: "):
        load_arrays(content, "file")


def test_an_array_larger_than_its_bytes_is_refused():
    content = pickle.dumps(np.zeros(4), protocol=2)
    claim = content.replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")
    assert claim != content
    with pytest.raises(DataError):
        load_arrays(claim, "file")
