"""What only a GPU can show; `tools/gpu-check` runs it where there is one. Elsewhere it is left out."""

import pytest
import torch

from matmulbench import measure, train, verify
from matmulbench.audit.mutants import mutants
from matmulbench.isolation import Host
from matmulbench.ladder import CUDA_LADDER
from matmulbench.measurement.cells import Settings, measure_cells, measure_roof
from matmulbench.results.schema import Status
from matmulbench.workload import Workload

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
MUTANTS = {mutant.name: mutant for mutant in mutants("devices")}


@pytest.mark.parametrize("kernel", [rung.name for rung in CUDA_LADDER])
def test_a_rung_is_right(kernel: str) -> None:
    (row,) = verify(kernel, "float32", effort="quick").to_dict("records")
    assert row["status"] in ("ok", "unavailable"), row["finding"]


def test_rungs_are_timed_below_the_roof() -> None:
    rows = measure([rung.name for rung in CUDA_LADDER], "2048x2048x2048", device="cuda", budget_s=8.0)
    timed = rows[rows["status"] == "ok"]
    assert "cuda-torch" in set(timed["kernel"]), rows[["kernel", "status", "reason"]].to_string()
    assert (timed["roof_percent"].fillna(0) < 115).all()
    assert set(rows["device"]) == {"cuda"}


def test_the_roof_rises_towards_the_processors() -> None:
    with Host(1) as host:
        roof = measure_roof(host, "float32", "cuda")
    near, far = roof.levels
    assert near.gbs > far.gbs > 50
    assert roof.fma_gflops > 500


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_refused_while_it_is_timed(name: str) -> None:
    mutant = MUTANTS[name]
    with Host(1) as host:
        settings = Settings(device="cuda")
        (cell,) = measure_cells(host, Workload(512, 512, 512), [mutant.spec], None, 1.5, settings=settings)
    assert cell.row.status == Status.FAILED_VERIFICATION, cell.row
    assert any(expected in str(cell.row.reason) for expected in mutant.expected), cell.row.reason


def test_a_net_is_trained_there() -> None:
    rows = train("digits", ["cuda-torch"], device="cuda", budget_s=15.0)
    assert set(rows["status"]) == {"ok"}, rows["reason"].tolist()
