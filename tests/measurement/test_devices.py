"""A device goes on after a kernel has returned: what it does is timed whole, and in nobody else's turn.

The device is a fake one, for no machine need have a GPU: queues that are worked off by the clock.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matmulbench.isolation import Host
from matmulbench.ladder.devices import DEVICES
from matmulbench.measurement.cells import Cell, Settings, measure_cells, measure_roof
from matmulbench.measurement.conditions import Conditions
from matmulbench.measurement.stopwatch import Timer
from matmulbench.results.schema import Status, TrainingRow
from matmulbench.training.accounting import train_kernels
from matmulbench.workload import Workload

FOLDER = Path(__file__).parents[1] / "fake_device"
CALL_S = 1e-4  # what a product takes there
WORK_S = 0.02
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])}


def named(kernel: str) -> str:
    return f"{FOLDER / 'fake_kernels.py'}:{kernel}@fake"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device, here."""
    monkeypatch.syspath_prepend(FOLDER)
    from fake_device import Fake

    device = Fake()
    monkeypatch.setitem(DEVICES, "fake", device)
    return device


@pytest.fixture(scope="module")
def fake_host() -> Iterator[Host]:
    """A host whose children have the device."""
    with Host(1, variables=ENVIRONMENT) as host:
        yield host


def test_a_block_is_timed_to_the_end_of_what_it_asked_for(fake: Any) -> None:
    timer = Timer(fake)
    timer.begin_turn()
    watch = timer.start()
    fake.enqueue(WORK_S)
    start, end, own_s, late_s = watch.stop()
    assert WORK_S <= own_s <= end - start
    assert late_s < WORK_S / 2


def test_what_was_asked_for_in_another_stream_is_late(fake: Any) -> None:
    timer = Timer(fake)
    watch = timer.start()
    fake.enqueue(WORK_S, stream="side")
    *_, own_s, late_s = watch.stop()
    assert own_s < WORK_S / 2
    assert late_s > WORK_S / 2


def test_what_is_left_of_an_earlier_turn_is_late_and_not_timed(fake: Any) -> None:
    timer = Timer(fake)
    fake.enqueue(WORK_S)
    timer.begin_turn()
    *_, own_s, late_s = timer.start().stop()
    assert own_s < WORK_S / 2
    assert late_s > WORK_S / 2


def test_on_the_processor_nothing_is_late() -> None:
    timer = Timer()
    timer.begin_turn()
    timer.drain()
    assert timer.start().stop()[3] == 0


def cell(host: Host, kernel: str, cold: bool = False) -> Cell:
    """Measure a kernel alone; where other load left it no turn, once more, as the pipeline does."""
    settings = Settings(device="fake", cold=cold)
    for _ in range(2):
        (found,) = measure_cells(host, Workload(8, 16, 4), [named(kernel)], None, 0.8, settings=settings)
        if found.row.status != Status.LOST:
            break
    return found


@pytest.mark.parametrize("kernel", ["honest", "waits", "beside_and_joined", "declared"])
def test_a_right_kernel_is_timed_whether_it_waits_or_not(fake: Any, fake_host: Host, kernel: str) -> None:
    found = cell(fake_host, kernel)
    assert found.row.status == Status.OK, found.row.reason
    assert found.row.device == "fake"
    assert found.row.median_s
    # What the empty kernel takes is subtracted, which a busy machine may make too much; without the wait, it is 0.
    assert found.row.median_s >= CALL_S / 2, found.samples
    assert found.extra["device_clocks"] == [[1000, 500]] * 2


@pytest.mark.parametrize(
    ("kernel", "finding"),
    [("beside", "late work"), ("spills", "late work"), ("defers", "inside the timed loop: ")],
)
def test_work_that_its_clock_does_not_see_is_found(fake: Any, fake_host: Host, kernel: str, finding: str) -> None:
    row = cell(fake_host, kernel).row
    assert row.status == Status.FAILED_VERIFICATION
    assert finding in str(row.reason)
    assert row.median_s is None


def test_one_that_is_refused_costs_its_own_row_alone(fake: Any, fake_host: Host) -> None:
    kernels = [named("beside"), named("waits")]
    settings = Settings(device="fake")
    rows = [
        one.row for one in measure_cells(fake_host, Workload(8, 16, 4), kernels, named("honest"), 1.5, None, settings)
    ]
    assert [row.status for row in rows] == [Status.OK, Status.FAILED_VERIFICATION, Status.OK]
    assert rows[2].speedup is not None


def test_a_kernel_of_the_processor_is_not_timed_there(fake: Any, fake_host: Host) -> None:
    (found,) = measure_cells(fake_host, Workload(8, 16, 4), ["numpy"], None, 0.3, settings=Settings(device="fake"))
    assert (found.row.status, found.row.device) == (Status.UNAVAILABLE, "fake")
    assert found.row.reason == "it works on cpu, not on fake: --device cpu has it timed there"


def test_cold_calls_find_nothing_in_the_devices_caches(
    fake: Any, fake_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matmulbench.measurement import worker

    assert cell(fake_host, "honest", cold=True).row.status == Status.OK
    # What a block does, here:
    monkeypatch.setattr("matmulbench.isolation.wait_for_go", lambda: bytes(8))
    bench = worker._Bench(lambda a, b: a @ b, None, Timer(fake), FewOperands(), None, Workload(2, 2, 2))  # type: ignore[arg-type]
    monkeypatch.setattr(worker, "_benches", [bench])
    for cold in (False, True):
        worker.run_block(Workload(2, 2, 2), [0], [0], False, cold)
        assert fake.flushes == cold


class FewOperands:
    def refresh(self) -> None:
        pass

    def pairs(self, *_: object) -> list[list[Any]]:
        import torch

        return [[torch.ones(2, 2)], [torch.ones(2, 2)]]


def test_a_roof_is_measured_there(fake: Any, fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conditions, "warnings", lambda self, calibration: [])
    roof = measure_roof(fake_host, "float32", "fake")
    assert roof.device == "fake"
    assert [level.name for level in roof.levels] == ["L2", "DRAM"]
    assert roof.levels[0].gbs >= roof.levels[1].gbs > 0
    assert roof.fma_gflops > 1
    assert 0 < roof.call_floor_s < 1e-3


def test_clocks_that_changed_or_are_unknown_are_noted(fake: Any, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[int] | None] = [[1980, 2619], [1410, 2619], None, None]
    monkeypatch.setattr(fake, "clocks", lambda: said.pop(0))
    changed, unknown = (Conditions(host, "fake").warnings([]) for _ in range(2))
    assert any("device clocks: 1980 MHz at first, 1410 MHz at last" in warning for warning in changed)
    assert any("device clocks: unknown" in warning for warning in unknown)


def trained(host: Host, kernel: str) -> list[TrainingRow]:
    """Train a few steps with a kernel, and with torch.nn."""
    options = {"epochs": 8}  # a step each
    found = train_kernels(host, "breast-cancer", [named(kernel)], named(kernel), 120.0, options=options, device="fake")
    return [row for row, _ in found]


def test_a_training_is_done_there(fake: Any, fake_host: Host, to_the_end: None) -> None:
    rows = trained(fake_host, "waits")
    assert [(row.kernel, row.status, row.reason) for row in rows if row.status != Status.OK] == []
    assert [row.kernel for row in rows] == [named("waits"), "torch.nn"]
    assert {row.device for row in rows} == {"fake"}
    assert rows[0].step_s
    assert rows[0].step_s > 5 * CALL_S  # its products are timed to their ends
    assert rows[0].matmul_share
    assert rows[0].matmul_share < 1
    assert math.isclose(rows[0].final_loss or 0, rows[1].final_loss or 1, rel_tol=1e-3)


def test_late_work_in_a_training_is_found(fake: Any, fake_host: Host, to_the_end: None) -> None:
    rows = trained(fake_host, "spills_steps")
    assert rows[0].status == Status.FAILED_VERIFICATION
    assert "late work" in str(rows[0].reason)


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "matmulbench", *arguments],
        env=os.environ | ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_kernel_of_ones_own_is_put_there_by_the_command() -> None:
    kernel = named("honest").removesuffix("@fake")
    options = ["--workload", "8x16x4", "--device", "fake", "--budget", "1", "--format", "json", "-q"]
    done = command("measure", kernel, named("waits").removesuffix("@fake"), *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["kernel"] for row in rows] == [named("honest"), named("waits")]
    assert {row["device"] for row in rows} == {"fake"}
    assert rows[0]["verdict"] == "baseline"


def test_a_device_that_is_not_there_is_said_in_one_sentence() -> None:
    done = command("verify", named("honest"), "--device", "fake", NO_FAKE_DEVICE="1")
    assert done.returncode == 2
    assert "device 'fake': no fake device, as this test has it" in done.stderr
