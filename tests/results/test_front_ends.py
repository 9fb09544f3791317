"""Files as pytest-benchmark 5.3 and asv 0.6 wrote them, cut down."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_what_asv_tracks_is_no_time(asv: Path) -> None:
    def track(content: Any) -> None:
        times = content["results"]["ladder.Calls.time_matmul"]
        content["results"] = {"ladder.Calls.peakmem_matmul": [[1e8] * 6, *times[1:]], **content["results"]}

    change(asv / ASV_RUN, track)
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
    change(path, lambda content: content["benchmarks"][0].update(params=None, group=None))
    assert [row.kernel for row in read_front_end(path).rows] == ["torch", "torch"]
    change(path, lambda content: [one.update(params={"size": 3}) for one in content["benchmarks"]])
    with pytest.raises(FrontEndError, match="no benchmark in it has a time and names its workload and kernel"):
        read_front_end(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.json", None, "absent.json does not exist; expected a pytest-benchmark JSON file or an asv"),
        ("a.csv", "a,b\n", "a.csv cannot be read as JSON"),
        ("list.json", "[]", "list.json is not what pytest-benchmark --benchmark-json writes"),
        ("run.json", '{"schema_version": 1}', "run.json is not what pytest-benchmark .* writes: KeyError.'benchmarks'"),
        ("half.json", '{"benchmarks": [{"params": {}}]}', "half.json is not what pytest-benchmark .* writes"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(FrontEndError, match=message):
        read_front_end(tmp_path / name)


def test_other_folders_are_refused_by_name(asv: Path, tmp_path: Path) -> None:
    with pytest.raises(FrontEndError, match=r"holds no results of asv; expected one such as \.asv/results"):
        read_front_end(tmp_path)
    change(asv / ASV_RUN, lambda content: content.update(version=3))
    with pytest.raises(
        FrontEndError, match=r"60c581e4-existing-py.json is not what asv writes: .*version 3, 2 is read"
    ):
        read_front_end(asv)
