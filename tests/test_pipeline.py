"""The pipeline: what is verified before anything is timed or trained."""

from pathlib import Path

import pytest

import matmulbench
from matmulbench import pipeline
from matmulbench.isolation import LostError
from matmulbench.status import Status

MODEL = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    batches = [(torch.randn(16, 8, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64))]
    return nn.Linear(8, 2).double(), nn.functional.mse_loss, batches

def wrong_in_float64(a, b):
    return (a.float() @ b.float()).to(a.dtype)
"""


@pytest.mark.usefixtures("shared_bench")
def test_a_models_kernels_are_verified_in_the_dtype_of_its_products(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    rows = matmulbench.train(f"{tmp_path}/mine.py:make", [f"{tmp_path}/mine.py:wrong_in_float64"], budget_s=1.0)
    status = {row.kernel.split(":")[-1]: (row.status, row.reason or "") for row in rows.itertuples()}
    assert status["wrong_in_float64"][0] == Status.FAILED_VERIFICATION
    assert "float64" in status["wrong_in_float64"][1]
    assert status["torch"][0] == Status.OK


def test_a_roof_that_cannot_be_measured_is_tried_again_and_costs_its_own_cells(
    monkeypatch: pytest.MonkeyPatch, shared_bench: pipeline.Bench
) -> None:
    tries = []

    def no_roof(host: object, dtype: str, device: str) -> None:
        tries.append(dtype)
        raise LostError("its process was killed")

    monkeypatch.setattr(pipeline, "measure_roof", no_roof)
    monkeypatch.setattr(shared_bench, "roofs", {})
    rows = matmulbench.measure("numpy", "8x8x8", budget_s=0.2)
    assert tries == ["float32", "float32"]
    assert set(rows["status"]) == {Status.LOST}
    assert set(rows["reason"]) == {"its process was killed"}


@pytest.mark.usefixtures("shared_bench")
def test_what_else_is_said_of_a_training_stays_beside_a_refused_baseline(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def wrong(a, b):\n    return 2 * (a @ b)\n")
    rows = matmulbench.train("digits", "torch", baseline=f"{tmp_path}/mine.py:wrong", budget_s=0.001)
    reason = rows.set_index("kernel")["reason"]["torch"]
    assert reason.startswith("no speedup: the baseline ")
    assert "predicted from smaller products" in reason
