"""What is remembered of built-in kernels: that they were right, how long they compile. A bad file is passed over."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import matmulbench
from matmulbench.pipeline import Bench, Job, carry_out
from matmulbench.results.folder import RunFolder, load_results
from matmulbench.results.schema import VerificationRow
from matmulbench.status import Status
from matmulbench.verification.remembered import Remembered
from matmulbench.workload import Workload

RIGHT = VerificationRow("torch", "float32", Status.OK, "pass", 0.99, 123, None)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "matmulbench" / "remembered.json"


def test_a_pass_is_remembered_whole_for_this_effort_and_smaller_ones(file: Path) -> None:
    Remembered(2).note(RIGHT, "default")
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    remembered = Remembered(2)
    assert remembered.recall("torch", "float32", "default") == remembered.recall("torch", "float32", "quick") == RIGHT
    remembered.note(RIGHT, "quick")
    assert Remembered(2).recall("torch", "float32", "default") == RIGHT, "the larger effort is kept"
    assert remembered.recall("torch", "float32", "thorough") is None
    assert remembered.recall("torch", "float64", "quick") is None
    assert remembered.recall("numpy", "float32", "quick") is None
    assert Remembered(3).recall("torch", "float32", "quick") is None


def test_neither_a_failure_nor_a_users_kernel_is_remembered(file: Path) -> None:
    remembered = Remembered(2)
    remembered.note(RIGHT, "quick")
    remembered.note(VerificationRow("torch", "float32", Status.FAILED_VERIFICATION, "fail"), "quick")
    remembered.note(VerificationRow("my.py:matmul", "float32", Status.OK, "pass"), "quick")
    assert Remembered(2).recall("torch", "float32", "quick") is None
    assert json.loads(file.read_text()) == {}


def test_how_long_a_built_in_kernel_compiles_is_remembered(file: Path) -> None:
    remembered = Remembered(2)
    remembered.note(RIGHT, "quick")
    for kernel, seconds in {"torch": 0.5, "numpy": None, "my.py:matmul": 0.5}.items():
        remembered.note_compile_s(kernel, "float32", seconds)
        assert Remembered(2).recall_compile_s(kernel, "float32") == (0.5 if kernel == "torch" else None)
    remembered.note(VerificationRow("torch", "float32", Status.FAILED_VERIFICATION, "fail"), "quick")
    assert remembered.recall_compile_s("torch", "float32") == 0.5
    file.write_text(file.read_text().replace("0.5", '"short"'))
    assert Remembered(2).recall_compile_s("torch", "float32") is None


def test_a_kernel_that_writes_itself_into_the_file_is_not_found_there(file: Path) -> None:
    Remembered(2).note(RIGHT, "quick")
    ((key, entry),) = json.loads(file.read_text()).items()
    entry["row"]["kernel"] = "my.py:matmul"
    file.write_text(json.dumps({key.replace("torch", name): entry for name in ("my.py:matmul", "numpy")}))
    for kernel in ("my.py:matmul", "numpy"):
        assert Remembered(2).recall(kernel, "float32", "quick") is None


def test_what_others_wrote_meanwhile_is_kept_and_the_oldest_goes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Remembered(2), Remembered(2)
    one.note(RIGHT, "quick")
    other.note(replace(RIGHT, dtype="float64"), "quick")
    assert len(json.loads(file.read_text())) == 2
    monkeypatch.setattr("matmulbench.verification.remembered._KEPT", 1)
    other.note(replace(RIGHT, kernel="numpy"), "quick")
    assert [key.split()[0] for key in json.loads(file.read_text())] == ["numpy"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text(file.read_text()[:-9]),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(file.read_text().replace('"cases": 123', '"cases": "many"')),
        lambda file: file.write_text(file.read_text().replace('"effort": "quick"', '"effort": "none"')),
        lambda file: file.write_text(file.read_text().replace('"ok"', '"crashed"')),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_a_file_that_is_spoilt_is_passed_over(file: Path, spoil: Callable[[Path], object]) -> None:
    Remembered(2).note(RIGHT, "quick")
    spoil(file)
    remembered = Remembered(2)
    assert remembered.recall("torch", "float32", "quick") is None
    remembered.note(RIGHT, "quick")
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_no_place_to_write_is_no_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.write_text("in the way")
    Remembered(2).note(RIGHT, "quick")
    monkeypatch.chdir(file.parents[1])
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr("pooch.os_cache", lambda _: Path("~"))  # where there is no home
    Remembered(2).note(RIGHT, "quick")
    assert not Path("~").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr("matmulbench.verification.remembered.library_versions", lambda: {"torch": "9"}),
        lambda patch: patch.setattr("matmulbench.verification.remembered.describe_machine", lambda: {"cpu": "Z80"}),
        lambda patch: patch.setenv("OPENBLAS_CORETYPE", "Z80"),
    ],
)
@pytest.mark.usefixtures("file")
def test_other_circumstances_forget(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], object]
) -> None:
    Remembered(2).note(RIGHT, "quick")
    change(monkeypatch)
    assert Remembered(2).recall("torch", "float32", "quick") is None


@pytest.mark.usefixtures("file")
def test_other_source_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Remembered(2).note(RIGHT, "quick")
    package = tmp_path / "package"
    (package / "ladder").mkdir(parents=True)
    monkeypatch.setattr("matmulbench.verification.remembered.__file__", str(package / "verification" / "remembered.py"))
    (package / "ladder" / "numpy_matmul.py").write_text("1")
    Remembered(2).note(RIGHT, "quick")
    assert Remembered(2).recall("torch", "float32", "quick") == RIGHT
    (package / "ladder" / "numpy_matmul.py").write_text("2")
    assert Remembered(2).recall("torch", "float32", "quick") is None


@pytest.mark.usefixtures("file", "shared_bench")
def test_what_is_known_is_not_verified_again_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    own = f"{tmp_path}/own.py:fails"
    Path(tmp_path, "own.py").write_text("def fails(a, b): ...\n")

    def verify_kernel(_: object, spec: str, dtype: str, effort: str) -> VerificationRow:
        verified.append(spec)
        return VerificationRow(spec, dtype, Status.FAILED_VERIFICATION if "fails" in spec else Status.OK, "pass")

    monkeypatch.setattr("matmulbench.pipeline.verify_kernel", verify_kernel)
    said: list[str] = []
    for _ in range(2):
        matmulbench.measure([own, "numpy"], "2x2x2", budget_s=0.1, baseline="numpy", progress=said.append)
    assert verified == [own, "numpy", own]
    assert said.count("verify numpy float32: remembered") == 1
    matmulbench.verify("numpy", "float32", "quick")
    assert verified[-1] == "numpy"


@pytest.mark.usefixtures("file")
def test_runs_compile_the_ladder_once(tmp_path: Path, shared_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_seconds(_: object, spec: str, dtype: str) -> float:
        compiled.append(spec)
        return 0.5

    monkeypatch.setattr("matmulbench.pipeline.compile_seconds", compile_seconds)
    for name in ("one", "two"):
        monkeypatch.setattr(shared_bench, "_compile_s", {})
        with RunFolder(tmp_path / name, {}) as results:
            carry_out(Job(("numpy",), "numpy", workloads=((Workload(2, 2, 2), 0.1),), compilation=True), results)
        assert load_results(tmp_path / name).measurements["compile_s"].tolist() == [0.5]
    assert compiled == ["numpy"]
