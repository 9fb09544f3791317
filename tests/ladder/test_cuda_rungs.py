"""The rungs of a GPU, without one: in numba's simulator and Triton's interpreter, which need a process of their own."""

import importlib.util
import os
import subprocess
import sys

import pytest

CHECK = """
import torch
from matmulbench.ladder.{module} import matmul

generator = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.{other}):
    for m, k, n in ((0, 2, 3), (1, 0, 1), (1, 1, 1), (3, 5, 2), (9, 17, 33)):
        for layout in ("NN", "TN", "NT", "TT") if m < 9 else ("TT",):
            shapes = [(k, m) if layout[0] == "T" else (m, k), (n, k) if layout[1] == "T" else (k, n)]
            a, b = (torch.randint(-3, 4, shape, generator=generator).to(dtype) for shape in shapes)
            a, b = (x.T if letter == "T" else x for x, letter in zip((a, b), layout))
            c = matmul(a, b)
            assert c.dtype == dtype and torch.equal(c.double(), a.double() @ b.double()), (dtype, m, k, n, layout)
try:
    matmul(torch.ones(2, 3), torch.ones(4, 5))
except ValueError as error:
    assert "``k`` differs" in str(error)
else:
    raise AssertionError("inner sizes differ")
"""


@pytest.mark.parametrize(
    ("module", "other", "variable", "library"),
    [
        ("cuda_naive", "float64", "NUMBA_ENABLE_CUDASIM", "numba_cuda"),
        ("cuda_shared", "float64", "NUMBA_ENABLE_CUDASIM", "numba_cuda"),
        ("triton_matmul", "float16", "TRITON_INTERPRET", "triton"),
        ("cuda_torch", "float64", None, "torch"),
    ],
)
def test_a_rung_multiplies_exactly(module: str, other: str, variable: str | None, library: str) -> None:
    if not importlib.util.find_spec(library):
        pytest.skip(f"{library} is not installed: pip install 'matmulbench[cuda]'")
    check = CHECK.format(module=module, other=other)
    environment = os.environ | ({variable: "1"} if variable else {})
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
