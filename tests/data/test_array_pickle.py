import io
import itertools
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from matmulbench.data.array_pickle import BYTES, load_pairs

PAIRS = tuple((np.arange(12, dtype=np.float32).reshape(3, 4) + n, np.arange(3) + n) for n in range(3))


def check_message(message):
    assert len(message) < 200
    assert message.isascii()
    assert message.isprintable()


def load(content):
    """Read ``content`` within bounds of time and memory; a refusal is one short printable sentence."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        return load_pairs(io.BytesIO(content))
    except pickle.UnpicklingError as error:
        check_message(str(error))
        raise
    finally:
        assert time.perf_counter() - start < 10
        assert tracemalloc.get_traced_memory()[1] < 10**9
        tracemalloc.stop()


def same(got, pairs=PAIRS):
    assert [a.dtype for pair in got for a in pair] == [a.dtype for pair in pairs for a in pair]
    return all(
        np.array_equal(a, b) for one, other in zip(got, pairs, strict=True) for a, b in zip(one, other, strict=True)
    )


class Malicious:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def call(module, function, arguments):
    """Write a pickle that calls ``module.function`` with what ``arguments`` pushes."""
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + arguments + b"R."


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["f4", "f8", "u1", "i4", ">f4", ">i8"])
@pytest.mark.parametrize("numpy_core", [b"numpy._core", b"numpy.core\n"], ids=["numpy2", "numpy1"])
def test_pairs_of_every_protocol_and_either_numpy_are_read(protocol, kind, numpy_core):
    pairs = [(np.asfortranarray(x.astype(kind)), y.astype(kind)) for x, y in PAIRS]
    content = pickle.dumps(pairs if protocol % 2 else tuple(pairs), protocol=protocol)
    if numpy_core != b"numpy._core" and protocol < 4:  # where names are lines, no length precedes them
        content = content.replace(b"numpy._core", b"numpy.core")
    assert same(load(content), pairs)


def test_a_pickle_of_python_2_is_read():
    def array(a):
        # Made by hand, as Python 2 wrote it: protocol 2, the elements as a string.
        shape = b"".join(b"K" + bytes([n]) for n in a.shape) + (b"\x86" if a.ndim == 2 else b"\x85")
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape + b"cnumpy\n"
            b"dtype\nU\x02" + a.dtype.str[1:].encode() + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
            b"J\xff\xff\xff\xffK\x00tb\x89T" + a.nbytes.to_bytes(4, "little") + a.tobytes() + b"tb"
        )

    content = b"\x80\x02" + b"".join(array(x) + array(y) + b"\x86" for x, y in PAIRS) + b"\x87."
    assert same(pickle.loads(content, encoding="latin-1"))  # the test's own pickle is right
    assert same(load(content))


def test_a_pickle_of_python_2_in_protocol_0_is_read():
    def array(a):
        # Made by hand, as Python 2 wrote it: each array's elements as the repr of a string.
        shape = "".join(f"I{n}\n" for n in a.shape)
        state = f"(I1\n({shape}tcnumpy\ndtype\n(S'{a.dtype.str[1:]}'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        start = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        return f"{start}{state}S{repr(a.tobytes())[1:]}\ntb"

    content = ("(lp0\n" + "".join(f"({array(x)}{array(y)}tp1\na" for x, y in PAIRS) + ".").encode()
    assert same(pickle.loads(content, encoding="latin-1"))  # the test's own pickle is right
    assert same(load(content))


def test_a_malicious_pickle_runs_nothing(tmp_path):
    mark = tmp_path / "mark"
    content = pickle.dumps(Malicious(mark))
    with pytest.raises(pickle.UnpicklingError, match=r"it asks for '\w+\.system', and only numpy arrays"):
        load(content)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # it does run where it may


def long_binput(index):
    return b"\x80\x02Nr" + index.to_bytes(4, "little") + b"."


REFUSED = "three pairs|no pickle of arrays"
DTYPE = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (call("builtins", "eval", b"U\x010\x85"), "asks for 'builtins.eval'"),
        (call("numpy", "load", b"U\x01x\x85"), "asks for 'numpy.load'"),
        (call("numpy", "dtype.__class__", b"U\x01x\x85"), "asks for"),
        (call("numpy.core.multiarray", "scalar", b"U\x01x\x85"), "asks for"),
        (call("numpy", "ndarray", b"J\xff\xff\xff\x7f\x85\x85"), REFUSED),  # 2 GiB, if it were called
        (call("numpy", "dtype", b"U\x01O\x85") + b".", "three pairs"),  # objects
        (
            call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87"),
            REFUSED,
        ),
        (
            call("numpy.core.multiarray", "_reconstruct", b"cnumpy\ndtype\nK\x00\x85U\x01b\x87"),
            REFUSED,
        ),
        (call("numpy._core.numeric", "_frombuffer", b"(C\x04aaaa" + DTYPE + b"K\x07\x85U\x01Ct"), r"three pairs"),
        (call("numpy._core.numeric", "_frombuffer", b"(K\x09" + DTYPE + b"K\x07\x85U\x01Ct"), "three pairs"),
        (call("numpy._core.numeric", "_frombuffer", b"(C\x04aaaaU\x02f4K\x01\x85U\x01Ct"), "three pairs"),
        (call("_codecs", "encode", b"X\x04\x00\x00\x00aaaaU\x03zip\x86"), REFUSED),
        (call("_codecs", "encode", b"X\x0c\x00\x00\x00" + "a€aaaaaaaa".encode() + b"U\x06latin1\x86"), REFUSED),
        (b"\x80\x02" + DTYPE + b"(K\x03U\x01<NNNK\x00K\x00J\xff\xff\xff\x7ftb.", "three pairs"),  # hostile flags
        (b"\x80\x02" + DTYPE + b"(K\x03U\x01ONNNK\x00K\x00K\x00tb\x85.", "three pairs"),
        (b"\x80\x02cnumpy\ndtype\n(U\x01xNNtb.", REFUSED),  # a state for a function
        (b"\x80\x02U\x01xQ.", "instruction BINPERSID"),
        (b"\x80\x02}.", "instruction EMPTY_DICT"),
        (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".", f"more than {BYTES} bytes"),
        (b"\x80\x04\x8e" + (10**8).to_bytes(8, "little") + b".", "cut short"),
        (pickle.dumps(PAIRS, protocol=2)[:-20], "cut short"),
        (pickle.dumps(PAIRS, protocol=0)[:-200], "cut short|damaged"),
        (b"S'" + b"a" * 100, "cut short"),
        (b"V" + b"\\u00", "cut short|damaged"),
        (b"V" + b"\\u20ac" * 100 + b"\n.", REFUSED),
        (pickle.dumps([1, 2, 3]), "three pairs"),
        (pickle.dumps([(1, 2), (3, 4), (5, 6)]), "three pairs"),
        (pickle.dumps(PAIRS[:2]), "three pairs"),
        (b"", "cut short"),
        (b"not a pickle", "damaged"),
        (b"\x80\x02h\x05.", "Memo value not found"),
        (b"\x80\x02c" + b"\x1b" * 90 + b"\n" + b"\xff" * 90 + b"\n.", "damaged"),
        (b"\x80\x02c" + b"\x1b" * 90 + b"\nx\n.", r"asks for '(\\x1b)+"),
        (long_binput(2**28), "three pairs"),  # nine bytes that once took 4.2 GB
        (long_binput(2**32 - 1), "three pairs"),
        (b"\x80\x02" + b"]" * 4_000_000 + b".", "more instructions than six arrays need"),
        (b"\x80\x02)" + b"\x85" * 4_000_000 + b".", "more instructions than six arrays need"),  # nested tuples
        (b"\x80\x02)" + b"\x85" * 4_000 + b"b.", "damaged"),
        (b"\x80\x02]q\x00" + b"h\x00\x86" * 1_000 + b".", "three pairs"),
        (b"\x80\x02]q\x00(h\x00h\x00h\x00e.", "three pairs"),  # a list within itself
        (b"\x80\x02I" + b"9" * 1_000_000 + b"\n.", "damaged"),
    ],
    ids=itertools.count(),
)
def test_whatever_else_is_refused(content, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        load(content)


LARGE = 10**8
SIZE = LARGE.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((b"\x8b" + SIZE, b"\x01" * LARGE), "instruction LONG4"),
        ((b"X" + SIZE + "😀".encode(), b"a" * (LARGE - 4)), "three pairs"),  # four bytes a character, if decoded
        ((b"X" + SIZE, b"a" * LARGE, b"q\x00(", b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 100), "three pairs"),
        ((b"S'", b"a" * LARGE, b"'\n."), "three pairs"),
        ((b"U\x00" * 4_000, b"T" + SIZE, b"a" * LARGE, b"\x86" * 20), "three pairs"),
    ],
    ids=itertools.count(),
)
def test_large_items_take_no_more_than_is_allowed(parts, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        load(b"\x80\x04" + b"".join(parts) + b".")


def test_an_array_larger_than_its_bytes_is_refused():
    content = pickle.dumps(PAIRS, protocol=2)
    claim = content.replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fK\x04\x86")
    assert claim != content
    with pytest.raises(pickle.UnpicklingError, match=r"no pickle of arrays \(ValueError\)"):
        load(claim)


def test_a_pickle_changed_anywhere_is_read_or_refused():
    content = pickle.dumps(PAIRS, protocol=4)
    random = np.random.default_rng(0)
    for _ in range(2_000):
        changed = bytearray(content)
        for position in random.integers(len(content), size=3):
            changed[position] = random.integers(256)
        try:
            load_pairs(io.BytesIO(bytes(changed)))
        except pickle.UnpicklingError as error:
            check_message(str(error))
