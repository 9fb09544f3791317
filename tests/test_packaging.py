"""What is installed holds what is in the sources, whichever way it was built."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BUILT = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
SKIPPED = ("__pycache__", ".egg-info")


def sources() -> set[str]:
    paths = (path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not any(part.endswith(SKIPPED) for part in path.parts)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist of a copy, and from it a wheel, without a network."""
    copy, out = (tmp_path_factory.mktemp(name) for name in ("copy", "dist"))
    for name in [*BUILT, *(f"src/{source}" for source in sources())]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_every_file_of_the_package_and_no_other(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == sources()


def test_the_sdist_holds_what_the_wheel_is_built_from_and_no_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{source}" for source in sources()} <= held
    assert set(BUILT) <= held
    assert not [name for name in held if name.startswith("tests")]


def test_the_wheel_says_what_it_needs_and_offers(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name.rpartition("/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(wheel.read(names["METADATA"]).decode())
        commands = wheel.read(names["entry_points.txt"]).decode()
        assert "LICENSE" in names
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"asv", "pytest", "notebook", "docs"} <= set(metadata.get_all("Provides-Extra") or [])
    assert "matmulbench = matmulbench.cli:main" in commands


def test_ci_runs_the_readmes_commands_on_every_python_that_is_named() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    job = workflow["jobs"]["readme"]
    matrix = job["strategy"]["matrix"]
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]
    named = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    assert [f"Programming Language :: Python :: {python}" for python in matrix["python"]] == [
        line for line in named if line.startswith("Programming Language :: Python :: 3.")
    ]
    readme = (ROOT / "README.md").read_text("utf-8")
    everywhere = [step["run"] for step in job["steps"] if "run" in step and "if" not in step]
    made = [command for command in everywhere if command.startswith("make ")]
    assert made == [
        line.removeprefix("$ ").split("#")[0].strip() for line in readme.splitlines() if line.startswith("$ make ")
    ]
