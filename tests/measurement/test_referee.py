"""What the referee sees of a block: one result that is wrong among many, whichever is drawn."""

import os
import re
from collections.abc import Iterator

import pytest
import torch

from matmulbench.dtypes import as_array
from matmulbench.isolation.system import shared_file
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.measurement import operands, referee
from matmulbench.workload import Workload

PRODUCT, BATCH, WINDOWS, CALLS = Workload(32, 24, 16), Workload(32, 24, 16, "TN", batch=3), 64, 8
LEFT, RIGHT = list(range(CALLS)), list(range(CALLS, 2 * CALLS))


NARROW = [Workload(32, 24, 16, dtype=dtype) for dtype in ("bfloat16", "float16", "int8")]


@pytest.fixture(params=[PRODUCT, BATCH, *NARROW], ids=lambda workload: f"{workload}-{workload.dtype}")
def results(request: pytest.FixtureRequest) -> Iterator[torch.Tensor]:
    """Right results of a block."""
    referee.open_operands(request.param, WINDOWS, [operands.create(request.param, WINDOWS)])
    windows = referee._operands[0].pairs(request.param, [LEFT, RIGHT], False)
    yield torch.stack([matmul(a, b) for a, b in zip(*windows, strict=True)])
    referee._operands.clear()


def checked(results: torch.Tensor, drawn: int | None) -> str | None:
    descriptor = shared_file(0)
    os.write(descriptor, as_array(results).tobytes())
    return referee.check(referee._operands[0].workload, LEFT, RIGHT, drawn, None, [descriptor])


@pytest.mark.parametrize("drawn", [None, 0, CALLS - 1])
def test_right_results_pass(results: torch.Tensor, drawn: int | None) -> None:
    assert checked(results, drawn) is None


@pytest.mark.parametrize("drawn", [None, 0])
@pytest.mark.parametrize("wrong", [1, CALLS - 1])
def test_one_old_result_is_seen_whichever_is_drawn(results: torch.Tensor, drawn: int | None, wrong: int) -> None:
    results[wrong] = results[wrong - 1]
    # of a row, the signs may cancel what is wrong; not of them all
    assert re.match(r"row \d+, summed with random signs, is off by", str(checked(results, drawn)))


def test_what_is_drawn_is_compared_element_by_element(results: torch.Tensor) -> None:
    if results.dtype != torch.float32:
        pytest.skip("of 16 bits, so small a difference is rounded away; of integers, sums show any")
    results[3, ..., 2, 1] += 0.01
    assert "c[2, 1] is" in str(checked(results, 3))


def test_one_wrong_product_of_a_batch_is_seen(results: torch.Tensor) -> None:
    results[2].reshape(-1, 32, 16)[-1] = 0
    assert "summed with random signs, is off by" in str(checked(results, None))
