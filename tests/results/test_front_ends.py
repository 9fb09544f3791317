"""Files as pytest-benchmark 5.3 and asv 0.6 wrote them, cut down."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matmulbench.errors import InputWarning
from matmulbench.results.front_ends import FrontEndError, read_front_end

HERE = Path(__file__).parent / "front_ends"
ASV_RUN = "example/60c581e4-existing-py.json"


@pytest.fixture
def asv(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "asv", tmp_path / "asv"))


def change(path: Path, how: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def test_pytest_benchmark() -> None:
    found = read_front_end(HERE / "benchmark.json")
    assert (found.name, found.commit, found.cpu) == ("pytest-benchmark", "60c581e4", "AMD EPYC")
    assert [(row.workload, row.kernel, row.dtype, row.threads) for row in found.rows] == [
        ("5x784x10", "numpy", "float32", 1),
        ("5x784x10", "torch", "float32", 1),
        ("64x784x50", "torch", "float32", 1),
    ]
    first = found.rows[0]
    assert first.median_s == 9.633999070501886e-06
    assert (first.min_s, first.samples) == (6.5090007410617545e-06, 36429)
    assert first.gflops == pytest.approx(2 * 5 * 784 * 10 / 9.633999070501886e-06 / 1e9)
    assert (first.speedup, first.verdict) == (None, None), "the kernels were not timed side by side"


def test_asv_skips_are_no_rows() -> None:
    found = read_front_end(HERE / "asv")
    assert (found.name, found.commit, found.cpu) == ("asv", "60c581e4", "AMD EPYC")
    assert [(row.workload, row.kernel, row.median_s) for row in found.rows] == [
        ("5x784x10", "numpy", 1.729600080579985e-05),
        ("5x784x10", "torch", 1.4540999472956173e-05),
        ("64x64x64", "numpy", 2.2473001081380062e-05),
        ("64x64x64", "torch", 1.4571998690371402e-05),
    ]


def test_what_asv_tracks_in_another_unit_is_no_time(asv: Path) -> None:
    def track(content: Any) -> None:
        times = content["results"]["ladder.Calls.time_matmul"]
        content["results"] = {"ladder.Calls.peakmem_matmul": [[1e8] * 6, *times[1:]], **content["results"]}

    change(asv / ASV_RUN, track)
    assert read_front_end(asv) == read_front_end(HERE / "asv")


def test_what_asv_tracks_in_seconds_is_a_time(asv: Path) -> None:
    change(asv / "benchmarks.json", lambda content: content["ladder.Calls.time_matmul"].update(type="track"))
    assert read_front_end(asv) == read_front_end(HERE / "asv")


def test_of_several_commits_the_newest_with_times_counts(asv: Path) -> None:
    for commit, days, failed in (("older000", -1, False), ("newer000", 1, False), ("failed00", 2, True)):
        shutil.copy(asv / ASV_RUN, asv / "example" / f"{commit}.json")

        def alter(content: Any, commit: str = commit, days: int = days, failed: bool = failed) -> None:
            content["commit_hash"] = commit
            content["date"] += days * 86_400_000
            if failed:
                content["results"]["ladder.Calls.time_matmul"][0] = None

        change(asv / "example" / f"{commit}.json", alter)
    assert read_front_end(asv).commit == "newer000"


def test_benchmarks_of_something_else_are_passed_over(tmp_path: Path) -> None:
    path = Path(shutil.copy(HERE / "benchmark.json", tmp_path))
    change(path, lambda content: content["benchmarks"][0].update(params=None, group=None, name="test_other"))
    assert [row.kernel for row in read_front_end(path).rows] == ["torch", "torch"]
    change(path, lambda content: [one.update(params={"size": 3}, name="") for one in content["benchmarks"]])
    with pytest.raises(FrontEndError, match="it has no valid time with a workload and a kernel"):
        read_front_end(path)


@pytest.mark.parametrize(
    ("median", "message"),
    [("fast", "'fast', expected float"), (-1, "-1, expected another value"), (0, "0, expected another value")],
)
def test_a_wrong_median_is_named(tmp_path: Path, median: object, message: str) -> None:
    path = Path(shutil.copy(HERE / "benchmark.json", tmp_path))
    change(path, lambda content: content["benchmarks"][0]["stats"].update(median=median))
    with pytest.warns(InputWarning, match=f"passed over numpy on 5x784x10: median_s is {message}"):
        assert [row.kernel for row in read_front_end(path).rows] == ["torch", "torch"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.json", None, "absent.json does not exist; expected pytest-benchmark's JSON file"),
        ("a.csv", "a,b\n", "a.csv cannot be read as JSON"),
        ("list.json", "[]", "list.json is neither pytest-benchmark's nor asv's"),
        ("run.json", '{"schema_version": 1}', "run.json is neither pytest-benchmark's nor asv's; expected"),
        ("deep.json", "[" * 100_000, "deep.json cannot be read as JSON"),
        ("empty.json", "", "empty.json is empty"),
        ("blank.json", "\n", "blank.json is empty"),
        ("number.json", '{"benchmarks": 5}', "number.json is neither pytest-benchmark's nor asv's"),
        ("half.json", '{"benchmarks": [{"params": {}}]}', "half.json cannot be shown: it has no valid time"),
        ("hyperfine.json", '{"results": [{"command": "python a.py", "median": 0.5}]}', "hyperfine.json is neither"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(FrontEndError, match=message):
        read_front_end(tmp_path / name)


def test_other_folders_are_refused_by_name(asv: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(FrontEndError, match=r"none cannot be shown: it has no valid time .*; expected .*\.asv/results"):
        read_front_end(tmp_path / "none")
    change(asv / ASV_RUN, lambda content: content.update(version=1))
    with pytest.raises(
        FrontEndError, match=r"60c581e4-existing-py.json is of asv's version 1, 2 is read: `asv update` rewrites it$"
    ):
        read_front_end(asv)
    (asv / ASV_RUN).unlink()
    with pytest.raises(FrontEndError, match="it has no valid time"):
        read_front_end(asv)


def test_odd_files_beside_asvs_are_passed_over_and_counted(asv: Path) -> None:
    shutil.copy(asv / ASV_RUN, asv / "example" / "v1.json")
    change(asv / "example" / "v1.json", lambda content: content.update(version=1, date=2**50))
    (asv / "example" / "empty.json").write_text("")
    (asv / "example" / "list.json").write_text("[]")
    os.mkfifo(asv / "example" / "pipe.json")
    with pytest.warns(InputWarning, match="passed over 4 of 5 files, one because .*version 1"):
        found = read_front_end(asv)
    assert found == read_front_end(HERE / "asv")


def test_the_newest_file_of_pytest_benchmarks_folder_counts(tmp_path: Path) -> None:
    inner = tmp_path / ".benchmarks" / "Linux-CPython-3.12-64bit"
    inner.mkdir(parents=True)
    for name, date, commit in (
        ("0001_a", "2025-01-01", "older"),
        ("0002_b", "2024-01-01", "oldest"),
        ("0003_c", "2026-01-01", "newest"),
    ):
        shutil.copy(HERE / "benchmark.json", inner / f"{name}.json")
        change(
            inner / f"{name}.json", lambda content, d=date, c=commit: content.update(datetime=d, commit_info={"id": c})
        )
    (inner / "0004_d.json").write_text("{")
    for folder in (inner, inner.parent):
        with pytest.warns(InputWarning, match="passed over 1 of 4 files"):
            assert read_front_end(folder).commit == "newest"


def test_an_old_file_gives_what_it_can(tmp_path: Path) -> None:
    """Before version 3.1 there is no processor, and before 3.0 no parameters but those in the test's name."""
    path = Path(shutil.copy(HERE / "benchmark.json", tmp_path))

    def age(content: Any) -> None:
        content.update(machine_info={"node": "w"}, commit_info=None)
        del content["datetime"]
        for benchmark, kernel in zip(content["benchmarks"], ("numba-tiled", "torch", "numpy"), strict=True):
            stats = {name: benchmark["stats"][name] for name in ("median", "rounds", "min")}
            benchmark.clear()
            benchmark.update(name=f"test_matmul[64x784x50-{kernel}]", stats=stats)

    change(path, age)
    found = read_front_end(path)
    assert (found.cpu, [(row.workload, row.kernel) for row in found.rows]) == (
        "",
        [("64x784x50", "numba-tiled"), ("64x784x50", "torch"), ("64x784x50", "numpy")],
    )


@pytest.mark.parametrize(
    "stats",
    [
        {"median": 0},
        {"median": -1.0},
        {"median": float("nan")},
        {"median": float("inf")},
        {"median": 10**400},
        {"median": "1"},
        {},
        None,
    ],
)
def test_a_benchmark_without_a_time_is_passed_over(tmp_path: Path, stats: Any) -> None:
    path = Path(shutil.copy(HERE / "benchmark.json", tmp_path))
    change(path, lambda content: content["benchmarks"][0].update(stats=stats))
    assert len(read_front_end(path).rows) == 2


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FrontEndError, match="is no regular file"):
            read_front_end(path)
    os.truncate(os.open(tmp_path / "large", os.O_CREAT | os.O_WRONLY), 2**28)
    with pytest.raises(FrontEndError, match="large has 256 MiB, at most 128 are read"):
        read_front_end(tmp_path / "large")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_in_every_encoding_that_windows_writes(asv: Path, tmp_path: Path, encoding: str) -> None:
    for path in (asv / ASV_RUN, asv / "benchmarks.json"):
        path.write_text(path.read_text(), encoding=encoding)
    assert read_front_end(asv) == read_front_end(HERE / "asv")
    path = tmp_path / "benchmark.json"
    path.write_text((HERE / "benchmark.json").read_text(), encoding=encoding)
    assert read_front_end(path) == read_front_end(HERE / "benchmark.json")


@pytest.mark.parametrize("place", [ASV_RUN, "example", "."])
def test_asvs_results_are_found_from_the_folder_to_the_file(place: str) -> None:
    assert read_front_end(HERE / "asv" / place) == read_front_end(HERE / "asv")


def test_asvs_file_without_its_benchmarks_says_what_is_missing(asv: Path) -> None:
    (asv / "benchmarks.json").unlink()
    with pytest.raises(FrontEndError, match=r"py.json is asv's, whose benchmarks.json belongs into the folder above"):
        read_front_end(asv)


def test_an_odd_benchmark_of_asvs_spoils_no_other(asv: Path) -> None:
    change(asv / "benchmarks.json", lambda content: content.update({"odd": {"type": "time", "param_names": None}}))

    def add(content: Any) -> None:
        times = content["results"]["ladder.Calls.time_matmul"]
        content["results"]["ladder.Calls.time_other"] = [times[0], [["<function f at 0x7f>"], ["'torch'"]]]

    change(asv / ASV_RUN, add)
    change(
        asv / "benchmarks.json",
        lambda content: content.update({"ladder.Calls.time_other": content["ladder.Calls.time_matmul"]}),
    )
    assert read_front_end(asv) == read_front_end(HERE / "asv")


def test_a_file_without_a_date_is_not_the_newest(tmp_path: Path) -> None:
    for name, changes in (("a", {"commit_info": {"id": "dated"}}), ("b", {"datetime": None, "commit_info": None})):
        shutil.copy(HERE / "benchmark.json", tmp_path / f"{name}.json")
        change(tmp_path / f"{name}.json", lambda content, changes=changes: content.update(changes))
    assert read_front_end(tmp_path).commit == "dated"
    assert read_front_end(tmp_path / "b.json").commit == "unknown"


@pytest.mark.parametrize("cpu", [{"brand": "AMD EPYC"}, {"brand_raw": "AMD EPYC"}, "AMD EPYC"])
def test_the_processor_is_read_as_every_version_wrote_it(tmp_path: Path, cpu: Any) -> None:
    path = Path(shutil.copy(HERE / "benchmark.json", tmp_path))
    change(path, lambda content: content["machine_info"].update(cpu=cpu))
    assert read_front_end(path).cpu == "AMD EPYC"
