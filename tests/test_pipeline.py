"""The pipeline: what is verified before anything is timed or trained."""

from pathlib import Path

import matmulbench
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


def test_a_models_kernels_are_verified_in_the_dtype_of_its_products(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    rows = matmulbench.train(f"{tmp_path}/mine.py:make", [f"{tmp_path}/mine.py:wrong_in_float64"], budget_s=1.0)
    status = {row.kernel.split(":")[-1]: (row.status, row.reason or "") for row in rows.itertuples()}
    assert status["wrong_in_float64"][0] == Status.FAILED_VERIFICATION
    assert "float64" in status["wrong_in_float64"][1]
    assert status["torch"][0] == Status.OK
