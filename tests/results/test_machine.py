import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from matmulbench.ladder.tiled.plan import VARIABLE, keep
from matmulbench.results.machine import caches, describe_machine, library_versions, older_kernels


def sysfs(root: Path, *cores: str) -> Path:
    """Write caches as Linux describes them: for each core a text of ``level type size shared_cpu_list`` each."""
    for cpu, text in enumerate(cores):
        for index, cache in enumerate(text.split(", ")):
            folder = root / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, value in zip(("level", "type", "size", "shared_cpu_list"), cache.split(), strict=True):
                (folder / name).write_text(value + "\n")
    return root


def test_a_cache_is_counted_once_however_many_share_it(tmp_path: Path) -> None:
    first, second = (
        f"1 Data 48K {cpu}, 1 Instruction 32K {cpu}, 2 Unified 2048K {cpu}, 3 Unified 266240K 0-1" for cpu in (0, 1)
    )
    root, last = sysfs(tmp_path, first, second), 260 * 2**20
    assert caches(1, (0, 1), root) == {1: 48 * 1024, 2: 2**21, 3: last}
    assert caches(2, (0, 1), root) == {1: 96 * 1024, 2: 2**22, 3: last}
    assert caches(2, (1,), root) == {1: 48 * 1024, 2: 2**21, 3: last}, "one core alone"


def test_of_unequal_cores_the_larger_caches_count(tmp_path: Path) -> None:
    root = sysfs(tmp_path, "1 Data 32K 0, 2 Unified 512K 0-1", "1 Data 32K 1, 2 Unified 512K 0-1", "1 Data 48K 2")
    assert caches(2, range(3), root) == {1: 80 * 1024, 2: 2**19}


def test_where_the_system_says_nothing_no_cache_is_known(tmp_path: Path) -> None:
    assert caches(1, (0,), tmp_path) == {}
    (sysfs(tmp_path, "1 Data 48K 0") / "cpu0/cache/index0/size").write_text("unknown")
    assert caches(1, (0,), tmp_path) == {}


def test_a_farther_cache_is_larger() -> None:
    machine = describe_machine()
    l2, l3 = machine["l2_cache"], machine["l3_cache"]
    if not (l2 and l3):
        pytest.skip("this system says nothing of its caches")
    assert 2**16 <= l2 < l3


def test_the_plans_that_the_tiled_kernel_uses_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert library_versions()["numba-tiled"] == "plans by heuristics"
    keep(1, {"float32 large": ("8x3 tiles", "A packed"), "float64 deep": ("direct",)})
    tuned = "float32 large on threads 1: 8x3 tiles, A packed; float64 deep on threads 1: direct"
    assert library_versions()["numba-tiled"] == tuned
    next(tmp_path.rglob("tiled-*.json")).write_text("{")
    assert library_versions()["numba-tiled"] == "plans by heuristics"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Haswell is an x86 processor")
def test_the_processor_that_openblas_has_in_mind_is_named() -> None:
    code = "from matmulbench.results.machine import library_versions; print(library_versions().get('openblas'))"
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if done.stdout.strip() == "None":
        pytest.skip("this numpy has another BLAS")
    assert done.stdout.strip().endswith(", kernels for Haswell")


@pytest.mark.parametrize(
    ("extensions", "openblas"),
    [
        (["avx2", "avx512f"], "0.3.31, kernels for SapphireRapids"),
        (["avx2"], "0.3.31, kernels for Zen"),
        (["asimd"], "0.3.31, kernels for neoversen1"),
        (["avx512f"], None),  # another BLAS
    ],
)
def test_kernels_for_the_processor_at_hand_need_no_note(extensions: list[str], openblas: str | None) -> None:
    versions = {"openblas": openblas} if openblas else {}
    assert older_kernels({"vector_extensions": extensions}, versions) is None


@pytest.mark.parametrize(
    ("printed", "said"), [("2.0 1.0", "2.00 times as fast"), ("", "figures against numpy flatter")]
)
def test_kernels_for_an_older_processor_are_said_with_what_they_cost(
    printed: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(printed.split())

    def run(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[bytes]:
        kernels.append(env["OPENBLAS_CORETYPE"])
        return subprocess.CompletedProcess(command, 0 if printed else 1, next(times, "").encode())

    kernels: list[str] = []
    monkeypatch.setattr(subprocess, "run", run)
    note = older_kernels({"vector_extensions": ["avx2", "avx512f"]}, {"openblas": "0.3.31, kernels for Haswell"})
    assert note
    assert "kernels for Haswell, an older processor" in note
    assert said in note
    assert kernels == ["Haswell", "SkylakeX"][: len(printed.split()) or 1]
