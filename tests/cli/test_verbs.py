"""The command as a user types it: what is wrong is said in one line with exit code 2, and data alone is on stdout."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from matmulbench.cli.verbs import _any_failed
from matmulbench.report.headline import warnings
from matmulbench.results.folder import load_results

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--preset", "quik"], "preset 'quik' is unknown: did you mean quick?"),
        (["run", "--kernel", "tripleloop"], "kernel 'tripleloop' is unknown: did you mean triple-loop?"),
        (["measure", "--baseline", "torhc"], "kernel 'torhc' is unknown: did you mean torch?"),
        (["measure", "--workload", "5x784"], "workload '5x784': expected MxKxN"),
        (["measure", "--dtype", "float61"], "dtype 'float61' is unknown: did you mean"),
        (["measure", "--device", "cudda"], "device 'cudda' is unknown: did you mean cuda?"),
        (
            ["measure", "--device", "cuda", "--operands", "numpy", f"{__file__}:Path"],
            "operands 'numpy' are not",
        ),
        (["train", "--device", "cuda", "--workers", "2"], "device 'cuda' does not go with workers 2"),
        (["train", "--device", "cuda", "--model", f"{__file__}:Path"], "device 'cuda' does not go with model"),
        (["measure", "--threads", "1,999"], "threads '1,999': expected counts from 1 to"),
        (["measure", "--threads", "²"], "threads '²': expected counts from 1 to"),
        (["measure", "--threads", "1_0"], "threads '1_0': expected counts from 1 to"),
        (["measure", "--threads", "9" * 5000], "expected counts from 1 to"),
        (["measure", "--workload", "00x5x5"], "workload '00x5x5': expected MxKxN"),
        (["measure", "--workload", "0005x5x5"], "workload '0005x5x5': expected MxKxN"),
        (["measure", "--workload", "5x5x" + "9" * 5000], "expected MxKxN"),
        (["measure", "--workload", "999999999x5x999999999"], "workload '999999999x5x999999999' takes"),
        (["run", "--workload", "999999999x5x999999999"], "bytes, this machine has"),
        (["measure", "--budget", "0"], "budget 0: expected seconds above 0"),
        (["measure", "--budget", "inf"], "budget inf: expected seconds above 0, at most 604800"),
        (["train", "--budget", "nan"], "budget nan: expected seconds above 0"),
        (["measure", "--budget", "2m"], "budget '2m': expected a number"),
        (["train", "--batch-size", "3.5"], "batch-size '3.5': expected a whole number"),
        (["run", "--seed", "-1"], "seed -1: expected a number from 0 to 4294967295"),
        (["train", "--seed", "4294967296"], "seed 4294967296: expected a number from 0"),
        (["train", "--lr", "inf"], "lr inf: expected a number above 0, at most 1e+09"),
        (["train", "--epochs", "9" * 30], "expected a whole number above 0, at most 1e+09"),
        (["train", "--hidden", "0"], "hidden 0: expected a whole number above 0"),
        (["train", "--model", ""], "model '': expected path/to/file.py:function"),
        (["train", "--model", "5x5:f"], "model '5x5:f': expected path/to/file.py:function"),
        (["train", "--task", "mnist", "--data-dir", "a\0b"], "data-dir 'a\\x00b': there is no such folder or file"),
        (["train", "--task", "mnist", "--data-dir", ""], "data-dir '': there is no such folder or file"),
        (["measure", "--operands", "\udcff"], "operands '?' is unknown: known are torch, numpy"),
        (["measure", "--baseline", ""], "kernel '' is unknown"),
        (["verify", "--dtype", "float32,float64"], "did you mean float64 or float32? Repeat the option for several."),
        (["verify", "--import-timeout", "nan"], "import-timeout nan: expected seconds above 0"),
        (["list", "--import-timeout", "-1"], "import-timeout -1: expected seconds above 0"),
        (["verify", "\x1b[31mtorhc"], "kernel 'torhc' is unknown"),
        (["verify", "a\0.py:f"], "kernel 'a\\x00.py:f': there is no file"),
        (["verify", f"{__file__}:mattmul"], "no function 'mattmul'; it has: test_bad_input"),
        (["measure", "torch", f"{__file__}:nothing"], "no function 'nothing'; it has: "),
        (["list", "nowhere.py:f"], "kernel 'nowhere.py:f': there is no file 'nowhere.py'"),
        (["run", "--preset", ""], "preset '' is unknown"),
        (["run", "--out", ""], "--out '': expected a folder"),
        (["audit", "--only", ""], "audit '' is unknown"),
        (["run", "--resume"], "--resume goes on with the run that --out names: name it"),
        (["verify", "~nosuchuser/k.py:f"], "kernel '~nosuchuser/k.py:f': there is no file '~nosuchuser/k.py'"),
        (["verify", __file__], f"kernel '{__file__}': which function? it has: test_bad_input"),
        (["train", "--model", "nope.py:make"], "model 'nope.py:make': there is no file 'nope.py'"),
        (["train", "--model", __file__], f"model '{__file__}': which function? it has: test_bad_input"),
        (["train", "--model", "numpy"], "model 'numpy': expected path/to/file.py:function"),
        (["train", "--model", "m:f", "--epochs", "3"], "epochs 3 does not go with model 'm:f'"),
        (["train", "--model", "m:f", "--batch-size", "3"], "batch_size 3 does not go with model 'm:f'"),
        (["train", "--model", "m:f", "--hidden", "3"], "hidden 3 does not go with model 'm:f'"),
        (["train", "--model", "m:f", "--dtype", "float64"], "dtype 'float64' does not go with model 'm:f'"),
        (["train", "--model", "m:f", "--lr", "nan"], "lr nan: expected a number above 0"),
        (["trace", "nope.py:make"], "model 'nope.py:make': there is no file 'nope.py'"),
        (["train", "--task", "digit"], "task 'digit' is unknown: did you mean digits"),
        (["verify", "nowhere.py:matmul"], "there is no file 'nowhere.py'"),
        (["verify", "torch", "--case", "2x2"], "case '2x2': expected MxKxN or MxKxN:LAYOUT"),
        (["verify", "torch", "--case", "2x2x2", "--dtype", "float32"], "a case names its own dtype"),
        (["verify", "torch", "--case", "2x2x2", "--agreement"], "--case 2x2x2 does not go with --agreement"),
        (["verify", "torch", "--case", "999999999x5x999999999"], "case '999999999x5x999999999' takes"),
        (["train", "--model", "m:f", "--task", "digits"], "task 'digits' does not go with model 'm:f'"),
        (["run", "--each", "host"], "each 'host' goes with --scheduler"),
        (["list", "--format", "xml"], "format 'xml' is unknown"),
        (["compare", "nowhere", "nowhere"], "folder nowhere holds no run"),
        (["report", "nowhere"], "folder nowhere holds no run"),
        (["fetch", "mnst"], "data set 'mnst' is unknown: did you mean mnist?"),
        (["audit", "--only", "speed"], "audit 'speed' is unknown"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(matmulbench: Command, arguments: list[str], message: str) -> None:
    done = matmulbench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, matmulbench.cli; print([m for m in ('torch', 'numba', 'numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_verb_of_the_contract_has_help(matmulbench: Command) -> None:
    text = matmulbench("--help").stdout
    for verb in ("run", "list", "verify", "measure", "train", "trace", "guard", "compare", "report", "audit", "fetch"):
        assert f" {verb} " in text


def test_list_as_json_is_data_alone(matmulbench: Command) -> None:
    rows = json.loads(matmulbench("list", "--format", "json").stdout)
    assert list(rows[0]) == ["kind", "name", "about", "status"]
    assert {row["kind"] for row in rows} == {"kernel", "workload", "task"}
    about = {row["name"]: row["about"] for row in rows}
    assert about["50x50000x784:TN"] == "3.92 GFLOP: first layer, weight gradient, 50,000 rows (784-50-10)"


@pytest.mark.usefixtures("shared_bench")
def test_measure_as_csv_is_data_alone(matmulbench: Command) -> None:
    done = matmulbench("measure", "numpy", "--workload", "8x8x8", "--budget", "0.2", "--format", "csv")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.startswith("workload,m,k,n,layout,dtype,threads,kernel,batch,device,status,extrapolated,median_s")
    assert [row.split(",")[7] for row in rows] == ["torch", "numpy"]


@pytest.mark.usefixtures("shared_bench")
def test_a_wrong_kernel_of_ones_own_is_refused_and_not_timed(matmulbench: Command, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def matmul(a, b):\n    return 1.001 * (a @ b)\n")
    done = matmulbench("measure", f"{mine}:matmul", "--workload", "8x8x8", "--budget", "0.2", "--format", "json")
    assert done.returncode == 1
    rows = {row["kernel"].rpartition(":")[2]: row for row in json.loads(done.stdout)}
    assert rows["matmul"]["status"] == "failed-verification"
    assert rows["matmul"]["median_s"] is None
    assert rows["torch"]["status"] == "ok"


@pytest.mark.usefixtures("shared_bench")
def test_kernels_are_compared_with_each_other(matmulbench: Command) -> None:
    done = matmulbench("verify", "torch", "einsum", "--agreement", "--dtype", "float32", "--format", "json")
    first, second = json.loads(done.stdout)
    assert first["torch"] == second["einsum"] == 0
    assert 0 <= first["einsum"] <= 2


def test_what_is_passed_over_of_a_run_is_said_once_in_one_line(matmulbench: Command, tmp_path: Path) -> None:
    folder = shutil.copytree(REFERENCE, tmp_path / "run")
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b"5\n\xff\n")
    done = matmulbench("compare", str(folder), str(folder))
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: {folder}/journal.jsonl: passed over 2 of ")
    assert done.stderr.count("passed over") == 1
    # What was amiss with the machine in a run concerns whoever compares it.
    said = [f"warning: {folder}: {line}" for line in warnings(load_results(folder))]
    assert done.stderr.splitlines()[1:] == said


@pytest.mark.parametrize(
    ("kernel", "statuses", "failed"),
    [
        ("numba", ["unavailable", "unavailable"], False),  # a library that is not installed costs a rung
        ("mine.py:matmul", ["ok", "unavailable"], False),  # it does not take the second dtype
        ("mine.py:matmul", ["unavailable", "unavailable"], True),  # it cannot be imported
        ("numba", ["ok", "lost"], True),
    ],
)
def test_what_is_not_available_failed_only_where_nothing_of_it_is(
    kernel: str, statuses: list[str], failed: bool
) -> None:
    rows = pd.DataFrame({"kernel": ["torch", kernel, kernel], "status": ["ok", *statuses]})
    assert _any_failed(pd.DataFrame({"time": [1.0]}), rows) == failed
