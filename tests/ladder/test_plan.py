"""What is kept of tuning: found again, or passed over with one line."""

import json
import warnings

import pytest

from matmulbench.errors import InputWarning
from matmulbench.isolation.environment import thread_environment
from matmulbench.ladder.tiled import plan
from matmulbench.ladder.tiled.plan import OPTIONS, SHAPES, STAGES, VARIABLE, Plan, as_text, current, keep, make_plan
from matmulbench.verification.remembered import Remembered
from matmulbench.workload import DTYPES

PLANS = {"float32 large": ("8x3 tiles", "A packed"), "float64 small": ("direct",)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_plans_are_found_again_at_their_thread_count():
    keep(2, PLANS)
    assert current(2) == PLANS
    assert current(1) == {}


def test_plans_of_another_processor_are_not_found(monkeypatch):
    keep(1, PLANS)
    monkeypatch.setattr(plan, "_machine", lambda: ["another"])
    assert current(1) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "not of version"),
        ("\0" * 9, "Expecting value"),
        ("[" * 100_000, "recursion"),
        ('{"version": "0.0.1", "plans": {}}', "not of version .*`matmulbench tune` makes new ones"),
        ({"plans": None}, "expected options by dtype and class of shapes"),
        ({"plans": {"float16 large": []}}, "'float16 large' is no dtype and class of shapes"),
        ({"plans": {"float32 large": ["m_block 4096"]}}, "float32 large: option 'm_block 4096' is unknown"),
        ({"plans": {"float32 large": 3}}, "not iterable"),
    ],
)
def test_a_file_that_cannot_be_used_is_passed_over_with_one_line(content, reason):
    path = keep(1, PLANS)
    text = content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content)
    path.write_text(text)
    with pytest.warns(InputWarning, match=f"numba-tiled's plans in .*{path.name} are ignored: .*{reason}") as warned:
        assert current(1) == {}
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)


def test_the_environment_overrules_the_file(monkeypatch):
    keep(1, PLANS)
    monkeypatch.setenv(VARIABLE, "{}")
    assert current(1) == {}
    monkeypatch.setenv(VARIABLE, "8x3 tiles")
    with pytest.warns(InputWarning, match="plans in MATMULBENCH_PLAN are ignored"):
        assert current(1) == {}


def test_children_get_the_plans_that_their_parent_found():
    keep(1, PLANS)
    assert thread_environment(1)[VARIABLE] == as_text(PLANS)
    assert thread_environment(2)[VARIABLE] == "{}"


def test_a_verdict_is_remembered_for_one_plan():
    before = Remembered(1)._state
    assert Remembered(1)._state == before
    keep(1, PLANS)
    assert Remembered(1)._state != before


def test_nothing_is_written_where_it_cannot_be(cache, monkeypatch):
    (cache / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    with pytest.raises(NotADirectoryError):
        keep(1, PLANS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert current(1) == {}


def test_every_option_changes_the_plan_and_is_tried():
    assert make_plan(()) == Plan()
    assert all(make_plan((option,)) != Plan() for option in OPTIONS)
    assert {option for stages in STAGES.values() for stage in stages for option in stage} == set(OPTIONS)
    assert set(plan.DTYPES) <= set(DTYPES)
    assert set(STAGES) == set(SHAPES)
    # No plan may ask for more memory than is kept: blocks of A, and panels of B.
    assert max(one.k_block for one in map(make_plan, ((option,) for option in OPTIONS))) <= 1024
    assert max(one.m_block for one in map(make_plan, ((option,) for option in OPTIONS))) <= 256
