"""Download MNIST into the cache, from whichever public mirror answers with the right bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matmulbench.data.mnist_files import cache_folder
from matmulbench.data.readers import DataError
from matmulbench.errors import printable

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
_TIMEOUT_S = 30.0  # for a mirror's answer

# sha256 of the files as every mirror serves them
ARCHIVES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def fetch_mnist(progress: Callable[[str], None] = lambda text: None) -> Path:
    """Download the four MNIST files into the user's cache and return the folder that has them.

    A file that is there with the right checksum is not fetched again. A download comes under another name and
    takes its own once its checksum is right, so that one cut short leaves nothing behind. ``progress`` is called with
    each file's address before it is fetched.

    Raises
    ------
    DataError
        if no mirror serves a file; the message says which files to put where by hand.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")  # the error raised below names each failure
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "; XDG_CACHE_HOME names another folder for caches" * (sys.platform == "linux")
        raise DataError(f"{folder}: {error.strerror}{hint}") from None
    downloader = pooch.HTTPDownloader(timeout=_TIMEOUT_S)
    failures = []
    for mirror in MIRRORS:
        store = pooch.create(folder, mirror, registry=ARCHIVES, retry_if_failed=1)
        try:
            for name in ARCHIVES:
                progress(f"fetch {mirror}{name}")
                store.fetch(name, downloader=downloader)
            return folder
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong checksum a ValueError
            wrong = "other content than expected (sha256 differs)" if "hash" in str(error).lower() else str(error)
            failures.append(f"{mirror}{name}: {printable(wrong, 300)}")
    files = "".join(f"\n  {name}  sha256 {sha256}" for name, sha256 in ARCHIVES.items())
    tried = "".join(f"\n  {failure}" for failure in failures)
    raise DataError(
        f"MNIST could not be downloaded. Tried:{tried}\nPut these files into {folder}, "
        f"or into a folder that you name with --data-dir or MATMULBENCH_DATA:{files}"
    )
