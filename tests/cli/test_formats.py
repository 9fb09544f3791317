"""With ``--format json`` or ``csv``, each verb that has tables writes data alone to a pipe, and one document."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matmulbench.audit import Check
from matmulbench.cli import main
from matmulbench.results.schema import columns

REFERENCE = str(Path(__file__).parents[2] / "results" / "reference")
COMMAND = [sys.executable, "-m", "matmulbench"]

VERBS = {
    "list": (["list"], ["kind", "name", "about", "status"]),
    "verify": (["verify", "loud.py:matmul", "--dtype", "float32"], columns("verification")),
    "verify --agreement": (["verify", "numpy", "torch", "--agreement"], ["dtype", "kernel", "numpy", "torch"]),
    "measure": (["measure", "loud.py:matmul", "--workload", "8x8x8", "--budget", "0.2"], columns("measurements")),
    "train": (["train", "loud.py:matmul", "--budget", "1"], columns("training")),
    "trace": (
        ["trace", "loud.py:make"],
        ["threads", "shape", "layout", "dtype", "operator", "module", "count", "flop"],
    ),
    "compare": (["compare", REFERENCE, REFERENCE], ["workload", "dtype", "threads", "kernel", "status_a", "status_b"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a kernel and a factory that print, as those under construction do."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "loud.py").write_text(
        "import os\nprint('imported')\n"
        "def matmul(a, b):\n    print('called')\n    os.write(1, b'by the system')\n    return a @ b\n"
        "def make():\n    import torch\n    from torch import nn\n    print('called')\n"
        "    model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))\n"
        "    batch = torch.randn(64, 784), torch.randint(10, (64,))\n"
        "    return model, nn.CrossEntropyLoss(), [batch] * 10\n"
    )
    return folder


def piped(folder: Path, arguments: list[str], format: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments, "--format", format], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_json_is_one_list_of_rows(folder: Path, verb: str) -> None:
    arguments, names = VERBS[verb]
    rows: list[dict[str, Any]] = json.loads(piped(folder, arguments, "json"))
    assert rows
    for row in rows:
        assert list(row)[: len(names)] == names


@pytest.mark.parametrize("verb", ["list", "compare"])
def test_csv_is_one_table(folder: Path, verb: str) -> None:
    arguments, names = VERBS[verb]
    head, *rows = csv.reader(io.StringIO(piped(folder, arguments, "csv")))
    assert head[: len(names)] == names
    assert rows
    assert {len(row) for row in rows} == {len(head)}


def test_an_audit_of_all_parts_is_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The audit takes minutes: here two functions that take none stand in for its parts."""
    mutant = Check("naps", "it sleeps", "pass", "pass", True)
    check = Check("A/A: false verdicts", "5x784x10", "≤ 1 %", "2.0%", False)
    monkeypatch.setattr("matmulbench.audit.verification.audit_verification", lambda **_: [mutant])
    monkeypatch.setattr(
        "matmulbench.audit.measurement.audit_measurement", lambda part, *_: [check] if part == "same-twice" else []
    )
    monkeypatch.setattr(sys, "argv", ["matmulbench", "audit", "--format", "json"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert json.loads(capsys.readouterr().out) == [
        {"check": "naps", "setting": "it sleeps", "required": "pass", "got": "pass", "passed": True},
        {"check": "A/A: false verdicts", "setting": "5x784x10", "required": "≤ 1 %", "got": "2.0%", "passed": False},
    ]


def test_what_an_interrupted_audit_has_found_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(part: str, *_: object) -> Iterator[Check]:
        yield Check("known duration", "2 µs", "± 1 %", "+0.1%", True)
        raise KeyboardInterrupt

    monkeypatch.setattr("matmulbench.audit.measurement.audit_measurement", interrupted)
    monkeypatch.setattr(sys, "argv", ["matmulbench", "audit", "--only", "durations", "--format", "json"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert [row["setting"] for row in json.loads(capsys.readouterr().out)] == ["2 µs"]


def test_a_reader_that_stops_early_is_no_error(folder: Path) -> None:
    command = subprocess.Popen(
        [*COMMAND, "list", "--format", "csv"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout
    assert command.stderr
    command.stdout.close()
    assert command.stderr.read() == b""
    command.wait()
