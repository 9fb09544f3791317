"""With ``--format json`` or ``csv``, each verb that has tables writes data alone to a pipe, and one document."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from matmulbench.audit import Check
from matmulbench.results.schema import columns

Command = Callable[..., Any]
REFERENCE = str(Path(__file__).parents[2] / "results" / "reference")
VERBS = {
    "measure": (["measure", "loud.py:matmul", "--workload", "8x8x8", "--budget", "0.1"], columns("measurements")),
    "train": (["train", "loud.py:matmul", "--budget", "0.1"], columns("training")),
    "compare": (["compare", REFERENCE, REFERENCE], ["workload", "dtype", "threads", "kernel", "status_a", "status_b"]),
}


@pytest.fixture
def _loud(tmp_path: Path, known_roof: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a folder with a kernel that prints, as those under construction do."""
    monkeypatch.chdir(tmp_path)
    Path("loud.py").write_text(
        "import os\nprint('imported')\n"
        "def matmul(a, b):\n    print('called')\n    os.write(1, b'by the system')\n    return a @ b\n"
    )


@pytest.mark.usefixtures("_loud")
@pytest.mark.parametrize("verb", VERBS)
def test_json_is_one_list_of_rows(matmulbench: Command, verb: str) -> None:
    arguments, names = VERBS[verb]
    rows: list[dict[str, Any]] = json.loads(matmulbench(*arguments, "--format", "json").stdout)
    assert rows
    for row in rows:
        assert list(row)[: len(names)] == names


def test_csv_is_one_table(matmulbench: Command) -> None:
    arguments, names = VERBS["compare"]
    head, *rows = csv.reader(io.StringIO(matmulbench(*arguments, "--format", "csv").stdout))
    assert head[: len(names)] == names
    assert rows
    assert {len(row) for row in rows} == {len(head)}


def test_an_audit_of_all_parts_is_one_document(monkeypatch: pytest.MonkeyPatch, matmulbench: Command) -> None:
    """The audit takes minutes: here two functions that take none stand in for its parts."""
    mutant = Check("naps", "it sleeps", "pass", "pass", True)
    check = Check("A/A: false verdicts", "5x784x10", "≤ 1 %", "2.0%", False)
    monkeypatch.setattr("matmulbench.audit.verification.audit_verification", lambda **_: [mutant])
    monkeypatch.setattr(
        "matmulbench.audit.measurement.audit_measurement", lambda part, *_: [check] if part == "same-twice" else []
    )
    done = matmulbench("audit", "--format", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == [
        {"check": "naps", "setting": "it sleeps", "required": "pass", "got": "pass", "passed": True},
        {"check": "A/A: false verdicts", "setting": "5x784x10", "required": "≤ 1 %", "got": "2.0%", "passed": False},
    ]


def test_what_an_interrupted_audit_has_found_is_kept(monkeypatch: pytest.MonkeyPatch, matmulbench: Command) -> None:
    def interrupted(part: str, *_: object) -> Iterator[Check]:
        yield Check("known duration", "2 µs", "± 1 %", "+0.1%", True)
        raise KeyboardInterrupt

    monkeypatch.setattr("matmulbench.audit.measurement.audit_measurement", interrupted)
    done = matmulbench("audit", "--only", "durations", "--format", "json")
    assert done.returncode == 130
    assert [row["setting"] for row in json.loads(done.stdout)] == ["2 µs"]


def test_a_line_of_csv_ends_alike_on_every_system(matmulbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.linesep", "\r\n")  # which Windows' standard output makes of a line's end by itself
    assert "\r" not in matmulbench("compare", REFERENCE, REFERENCE, "--format", "csv").stdout
