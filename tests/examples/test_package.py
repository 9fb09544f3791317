"""The example package, installed: its kernels take part like the ladder's, with no edit of this repository."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {"outer-products", "numpy-dot"}
COMMAND = [sys.executable, "-m", "matmulbench"]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def with_example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install the package into a folder, and run commands that find it there."""
    source, site = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    shutil.copytree(ROOT / "examples" / "matmulbench-example", source, dirs_exist_ok=True)  # a build leaves files
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True, text=True)

    def run(*command: str, **more: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)} | more
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_list_shows_its_kernels_after_the_ladder(with_example: Run) -> None:
    rows = {row["name"]: row for row in json.loads(with_example(*COMMAND, "list", "--format", "json"))}
    for name in NAMES:
        assert rows[name]["status"] == "available"
        assert rows[name]["about"].startswith("matmulbench_example:")
    assert list(rows).index("torch") < list(rows).index("outer-products")


def test_its_kernels_are_verified_and_timed_by_name(with_example: Run) -> None:
    arguments = ["--workload", "8x8x8", "--budget", "0.4", "--format", "json"]
    rows = json.loads(with_example(*COMMAND, "measure", *NAMES, *arguments))
    assert {row["kernel"]: row["status"] for row in rows} == dict.fromkeys([*NAMES, "torch"], "ok")


def test_pytest_benchmark_collects_its_kernels(with_example: Run) -> None:
    suite = str(ROOT / "benchmarks" / "pytest_suite")
    collected = with_example(sys.executable, "-m", "pytest", suite, "--collect-only", "-q", "-p", "no:cacheprovider")
    for name in NAMES:
        assert f"5x784x10-{name}]" in collected


def test_asv_takes_them_where_they_are_named_and_not_because_they_are_installed(with_example: Run) -> None:
    show = "import sys; sys.path.insert(0, 'benchmarks'); from asv_suite import ladder; print(ladder.KERNELS)"
    code = [sys.executable, "-c", show]
    assert "outer-products" not in with_example(*code)
    assert "'outer-products', 'numpy-dot']" in with_example(*code, MATMULBENCH_KERNELS="outer-products numpy-dot")
