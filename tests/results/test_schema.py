"""Each column of each table is documented, with its unit, where a user looks for it; each has one type."""

import inspect
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import matmulbench
from matmulbench.results.schema import TABLES, MeasurementRow, Positive, Status, TrainingRow, columns, conforms, frame

FUNCTIONS = {"verification": matmulbench.verify, "measurements": matmulbench.measure, "training": matmulbench.train}
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "own-kernel.md"
SHAPE = ("5x784x10", 5, 784, 10, "NN", "float32", 1)
FAILED = MeasurementRow(*SHAPE, "mine.py:matmul", status="crashed", reason="SIGSEGV")


@pytest.mark.parametrize("table", TABLES)
def test_each_column_is_documented_where_it_stands(table: str) -> None:
    lines = inspect.getsource(TABLES[table]).splitlines()
    for name in columns(table):
        place = next(i for i, line in enumerate(lines) if line.startswith(f"    {name}: "))
        assert "  #: " in lines[place] or lines[place - 1].startswith("    #: "), name


@pytest.mark.parametrize("table", TABLES)
def test_what_a_function_returns_is_documented_there(table: str) -> None:
    returns = (FUNCTIONS[table].__doc__ or "").partition("Returns\n")[2].partition("Raises\n")[0]
    assert set(re.findall(r"``([a-z_]+)``", returns)) == set(columns(table))


def test_columns_have_one_type_whatever_is_missing() -> None:
    timed = MeasurementRow("5x784x10", 5, 784, 10, "NN", "float32", 1, "torch", median_s=1e-6, samples=12)
    for rows in ([], [FAILED], [FAILED, timed]):
        types = frame("measurements", rows).dtypes
        assert types["median_s"] == "float64"
        assert types["samples"] == "Int64"
        assert types["m"] == "int64"
        assert types["extrapolated"] == "bool"


def test_a_count_is_written_as_a_count() -> None:
    rows = [TrainingRow("digits", "torch", 1, steps=400), TrainingRow("digits", "mine.py:matmul", 1, status="crashed")]
    written = frame("training", rows).to_csv(index=False).splitlines()
    assert [line.split(",")[7] for line in written] == ["steps", "400", ""]


def test_each_status_that_is_not_ok_is_explained() -> None:
    explained = re.findall(
        r"^\| `([a-z-]+)` \|", HOWTO.read_text("utf-8").partition("## When it fails")[2], re.MULTILINE
    )
    assert explained == [status for status in Status if status != Status.OK]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [0, -3], [True, 1.0, "1", None, 2**63]),
        (float, [0, 0.5, float("nan")], [True, "1", None, 2**63]),
        (float | None, [None, 1.0], ["", []]),
        (list[int], [[], [1]], [(1,), [1, None], {}, None]),
        (Positive, [1, 1e-20], [0, -1.0, float("nan"), float("inf"), None]),
        ({"a": int, "b": str | None}, [{"a": 1}, {"a": 1, "b": "", "c": 3}], [{}, {"a": "1"}, {"a": 1, "b": 2}, [], 3]),
        (FAILED.__class__, [asdict(FAILED)], [asdict(FAILED) | {"new": 1}, {"workload": "5x784x10"}, [], None]),
    ],
)
def test_what_conforms_to_a_type(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(conforms(value, kind) for value in good)
    assert not any(conforms(value, kind) for value in bad)
