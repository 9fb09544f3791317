import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from matmulbench.data import DataError, fetch, fetch_mnist


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012  # one server at a time

    def log_message(self, *_):
        self.asked.append(self.path)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve small stand-ins for the files, with checksums to match, from ``good/``; and others from ``bad/``."""
    archives = {}
    for folder in ("good", "bad"):
        (tmp_path / "served" / folder).mkdir(parents=True)
    for name in fetch.ARCHIVES:
        content = name.encode() * 100
        (tmp_path / "served" / "good" / name).write_bytes(content)
        (tmp_path / "served" / "bad" / name).write_bytes(content[:-1])
        archives[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fetch, "ARCHIVES", archives)
    monkeypatch.setattr(Quiet, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch_from(tmp_path, monkeypatch):
    """Return a function that fetches from the mirrors that it is given, into a cache that is empty at first."""
    monkeypatch.setattr(fetch, "cache_folder", lambda: tmp_path / "cache")

    def fetch_from(*mirrors, progress=lambda text: None):
        monkeypatch.setattr(fetch, "MIRRORS", mirrors)
        return fetch_mnist(progress)

    return fetch_from


def test_files_come_from_the_mirror_that_has_them_right(mirror, fetch_from):
    addresses = []
    folder = fetch_from(*(f"{mirror}{name}/" for name in ("absent", "bad", "good")), progress=addresses.append)
    assert sorted(path.name for path in folder.iterdir()) == sorted(fetch.ARCHIVES)
    for name, sha256 in fetch.ARCHIVES.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    first, *_ = fetch.ARCHIVES
    wanted = [f"absent/{first}", f"bad/{first}", *(f"good/{name}" for name in fetch.ARCHIVES)]
    assert addresses == [f"fetch {mirror}{name}" for name in wanted]


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(mirror, fetch_from):
    folder = fetch_from(f"{mirror}good/")
    damaged = sorted(fetch.ARCHIVES)[0]
    (folder / damaged).write_bytes(b"half of it")
    Quiet.asked.clear()
    fetch_from(f"{mirror}good/")
    assert Quiet.asked == [f"/good/{damaged}"]


def test_without_a_network_the_message_says_what_to_put_where(tmp_path, fetch_from):
    with pytest.raises(DataError) as caught:
        fetch_from("http://127.0.0.1:9/")
    for part in (*fetch.ARCHIVES, *fetch.ARCHIVES.values(), str(tmp_path / "cache"), "--data-dir", "127.0.0.1:9"):
        assert part in str(caught.value)


def test_a_mirror_with_wrong_bytes_leaves_nothing_behind(mirror, tmp_path, fetch_from):
    with pytest.raises(DataError, match=r"bad/.*: other content than expected \(sha256 differs\)"):
        fetch_from(f"{mirror}bad/")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path, fetch_from):
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match="cache: File exists; XDG_CACHE_HOME names another"):
        fetch_from("http://127.0.0.1:9/")
