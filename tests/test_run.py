"""The main job, end to end, on a small plan."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from matmulbench.api import trace_model
from matmulbench.isolation.system import missing
from matmulbench.ladder import CUDA_LADDER
from matmulbench.results.folder import load_results
from matmulbench.results.schema import TABLES, columns
from matmulbench.run import _products, plan
from matmulbench.workload import Workload

BROKEN = '''
import torch
def matmul(a, b):
    """The article's loop as printed: k runs over the rows of a."""
    ar, ac = a.shape
    br, bc = b.shape
    c = torch.zeros(ar, bc, dtype=a.dtype)
    for i in range(ar):
        for j in range(bc):
            for k in range(ar):
                c[i, j] += a[i, k] * b[k, j]
    return c
'''


PAIR = ["--kernel", "numpy", "--workload", "8x8x8", "--workload", "16x16x16"]
Command = Callable[..., Any]


def start(command: list[str], *arguments: str) -> subprocess.Popen[str]:
    """Start a run in a process of its own."""
    whole = [*command, "run", "--preset", "quick", *arguments]
    return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def run(shared_bench: object, brief_runs: None, no_charts: None, matmulbench: Command) -> Command:
    """Run in this process, with little time for each thing."""
    return partial(matmulbench, "run", "--preset", "quick")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, str]:
    """One run as anyone would start it."""
    folder = tmp_path_factory.mktemp("run")
    broken = folder / "broken.py"
    broken.write_text(BROKEN)
    kernels = ["--kernel", "numpy", "--kernel", f"{broken}:matmul"]
    workloads = ["--workload", "5x784x10", "--workload", "64x64x64"]
    with start([sys.executable, "-m", "matmulbench"], "--out", str(folder / "out"), *kernels, *workloads) as process:
        out, err = process.communicate()
    return folder / "out", process.returncode, out, err


def test_the_folder_is_that_of_the_contract(finished: tuple[Path, int, str, str]) -> None:
    out, _, stdout, stderr = finished
    assert "Traceback" not in stderr
    assert f"report: {out}/report.html" in stdout
    for table in TABLES:
        assert (out / f"{table}.csv").read_text().splitlines()[0] == ",".join(columns(table))
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "charts" / "ladder-5x784x10.svg").exists()
    run = json.loads((out / "run.json").read_text())
    assert run["end"] >= run["start"]
    assert str(out.parent) not in json.dumps(run["machine"])


def test_the_articles_loop_is_refused_everywhere_and_the_rest_goes_on(finished: tuple[Path, int, str, str]) -> None:
    out, code, *_ = finished
    assert code == 1
    results = load_results(out)
    for frame in results.tables.values():
        wrong = frame[frame["kernel"].str.endswith("broken.py:matmul")]
        assert len(wrong)
        assert not (wrong["status"] == "ok").any()
        right = frame[frame["kernel"] == "numpy"]
        assert (right["status"] == "ok").all()
    assert results.measurements[results.measurements["status"] != "ok"]["median_s"].isna().all()


def interrupted(command: list[str], out: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a run and end it while its second workload is measured; return the exit code and its last words."""
    with start(command, "--out", str(out), *PAIR) as process:
        assert process.stderr
        for line in process.stderr:
            if "measure 16x16x16" in line:
                process.send_signal(number)
                break
        _, said = process.communicate()
    return process.returncode, said


@pytest.mark.posix
def test_an_interrupted_run_keeps_what_it_had_and_resumes(tmp_path: Path, run: Command, brief: list[str]) -> None:
    out = tmp_path / "out"
    code, said = interrupted(brief, out, signal.SIGINT)
    assert code == 130
    assert f"go on with --out {out} --resume" in said
    kept = load_results(out)
    assert set(kept.measurements["workload"]) == {"8x8x8"}
    refused = run("--out", str(out), *PAIR)
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    done = run("--out", str(out), *PAIR, "--resume")
    assert done.returncode == 0, done.stderr
    resumed = load_results(out)
    assert set(resumed.measurements["workload"]) == {"8x8x8", "16x16x16"}
    cells = [(e["row"]["workload"], e["row"]["kernel"]) for e in resumed.journal if e["table"] == "measurements"]
    assert len(cells) == len(set(cells)), "nothing is measured twice"


@pytest.mark.posix
def test_a_run_that_is_told_to_end_writes_its_tables(tmp_path: Path, brief: list[str]) -> None:
    out = tmp_path / "out"
    code, said = interrupted(brief, out, signal.SIGTERM)
    assert code == 143
    assert said.splitlines() == [
        f"matmulbench: ended by SIGTERM; what was finished is kept: go on with --out {out} --resume"
    ]
    assert "8x8x8" in (out / "measurements.csv").read_text()


MODEL = """
import torch
class Attends(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)
    def forward(self, x):
        return self.linear((x @ x.mT) @ x).mean(1)
def make():
    torch.manual_seed(0)
    batches = [(torch.randn(3, 5, 8), torch.randint(4, (3,))) for _ in range(4)]
    return Attends(), torch.nn.CrossEntropyLoss(), batches
"""


def test_the_products_of_a_model_are_what_is_timed_and_it_is_trained(tmp_path: Path, run: Command) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    model, out = f"{tmp_path / 'model.py'}:make", tmp_path / "out"
    arguments = ["--out", str(out), "--kernel", "numpy", "--model", model, "--workload", "8x8x8"]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    results = load_results(out)
    assert results.run["options"]["model"] == model
    assert results.run["options"]["workloads"] == ["8x8x8 float32"]
    assert set(results.training["task"]) == {model}
    assert set(results.training["kernel"]) == {"numpy", "torch", "torch.nn"}
    traced = trace_model(model)
    assert set(results.measurements["workload"]) == {"8x8x8", *traced["shape"]}
    assert results.measurements["batch"].max() == 3
    assert (results.measurements["status"] == "ok").all()
    [said] = [line for line in done.stdout.splitlines() if line.startswith("Your step (")]
    shapes = traced["shape"].nunique()
    assert re.search(
        rf" % in products of {shapes} shapes; with `numpy` predicted .* (faster|slower|same).*, measured .*, limit ",
        said,
    )
    again = run(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert len(load_results(out).journal) == len(results.journal)


def test_of_very_many_products_those_are_timed_that_take_nearly_all_the_time() -> None:
    shapes = [f"{i}x8x8" for i in range(1, 41)]
    seconds = [100.0, 50.0, *[0.1] * 38]
    table = pd.DataFrame({"shape": shapes, "dtype": "float32", "time_s": seconds, "reason": ""})
    table.loc[1, "dtype"] = "float64"
    said: list[str] = []
    found = _products(table, said.append)
    assert found[:2] == [Workload(1, 8, 8), Workload(2, 8, 8, dtype="float64")]
    assert len(found) == 2
    assert said == ["2 of its 40 shapes are timed: 98 % of the time of its products"]
    assert len(_products(table[:16], said.append)) == 16
    table["reason"] = "convolution is one operator"
    assert _products(table, said.append) == []


def test_what_openblas_loses_is_noted_in_run_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "matmulbench.run.older_kernels", lambda machine, versions: f"numpy is slow: {len(versions) > 1}"
    )
    monkeypatch.setattr("matmulbench.run.carry_out", lambda job, sink, progress: None)
    plan("quick").execute(tmp_path)
    assert load_results(tmp_path).run["notes"] == [*missing(), "numpy is slow: True"]


def test_a_run_on_a_gpu_is_of_its_own_ladder_and_beside_it_what_the_user_has():
    own = f"{__file__}:test_what_openblas_loses_is_noted_in_run_json"
    ladder = tuple(rung.name for rung in CUDA_LADDER)
    alone, beside = plan("quick", device="cuda").job, plan(named=[own], device="cuda").job
    assert (alone.kernels, alone.baseline, alone.device) == (ladder, "cuda-torch", "cuda")
    assert beside.kernels == (*ladder, f"{own}@cuda")
    assert plan("quick").job.baseline == "torch"


def test_a_run_is_planned_for_each_dtype_and_the_standard_one_has_no_narrow_ones():
    planned = plan("quick", products=["5x784x10"], dtypes=["bfloat16", "int8"])
    assert [(str(one), one.dtype) for one in planned.asked] == [("5x784x10", "bfloat16"), ("5x784x10", "int8")]
    assert {one.dtype for one in plan("standard").asked} == {"float32"}
    assert {one.dtype for one in plan("full").asked} == {"float32", "float64", "bfloat16", "float16", "int8"}
