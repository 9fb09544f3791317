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

Run = Callable[..., str]


@pytest.fixture(scope="module")
def with_example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install the package into a folder, and run commands that find it there."""
    source, site = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    shutil.copytree(ROOT / "examples" / "matmulbench-example", source, dirs_exist_ok=True)  # a build leaves files
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True, text=True)

    def run(*command: str, **more: str) -> str:
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path} | more
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_its_kernels_come_after_the_ladder_and_asv_takes_them_where_they_are_named(with_example: Run) -> None:
    code = (
        "import json, sys; sys.path.insert(0, 'benchmarks'); from asv_suite import ladder;"
        "from matmulbench.ladder.plugins import find_kernel, kernels;"
        "print(json.dumps([kernels(), find_kernel('numpy-dot'), ladder.KERNELS]))"
    )
    known, place, tracked = json.loads(with_example(sys.executable, "-c", code))
    assert set(known[-2:]) == NAMES
    assert place.startswith("matmulbench_example:")
    assert not NAMES & {*tracked}, "not because they are installed"
    named = json.loads(with_example(sys.executable, "-c", code, MATMULBENCH_KERNELS="outer-products numpy-dot"))
    assert named[2][-2:] == ["outer-products", "numpy-dot"]


def test_its_kernels_are_verified_by_name(with_example: Run, brief: list[str]) -> None:
    rows = json.loads(with_example(*brief, "verify", *NAMES, "--dtype", "float32", "--format", "json"))
    assert {row["kernel"]: row["status"] for row in rows} == dict.fromkeys(NAMES, "ok")


def test_pytest_benchmark_collects_its_kernels(with_example: Run) -> None:
    suite = str(ROOT / "benchmarks" / "pytest_suite")
    collected = with_example(sys.executable, "-m", "pytest", suite, "--collect-only", "-q", "-p", "no:cacheprovider")
    for name in NAMES:
        assert f"5x784x10-{name}]" in collected
