"""A kernel that says it takes batches is verified with them; one that does not is never given any."""

from pathlib import Path

import pytest
import torch

from matmulbench.isolation import Host
from matmulbench.ladder.plugins import load_kernel, over_batches, parts
from matmulbench.verification.api import verify_kernel

SOURCE = """
import torch
def right(a, b): return torch.einsum("...ik,...kj->...ij", a, b)
def first_for_all(a, b):
    c = a @ b
    return c if a.dim() == 2 else c[:1].expand(c.shape).contiguous()
def last_layout(a, b):
    return a @ b if a.dim() == 2 or a.is_contiguous() else a.reshape(a.shape) @ b.reshape(-1).view(b.shape).roll(1, 0)
def remembers(a, b, seen={}):
    return a @ b if a.dim() == 2 else seen.setdefault((id(a), id(b), a.shape, b.shape), a @ b).clone()
def spoils(a, b):
    c = a @ b
    if a.dim() == 3: a[0] = 0
    return c
def matrices_alone(a, b):
    (m, k), n = a.shape, b.shape[1]
    return a @ b
for each in (right, first_for_all, last_layout, remembers, spoils, matrices_alone):
    each.batched = True
def plain(a, b):
    (m, k), n = a.shape, b.shape[1]
    return a @ b
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batches") / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("name", ["right", "plain"])
def test_what_takes_batches_or_does_not_say_so_is_right(checking_host: Host, file: Path, name: str) -> None:
    row = verify_kernel(checking_host, f"{file}:{name}", "float32", "quick")
    assert (row.status, row.finding) == ("ok", None)


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("first_for_all", "product 1: c[0, 0] is"),
        ("last_layout", ", product "),
        ("remembers", ", after a[-1, -1, -1] += 1, product "),
        ("spoils", "operand a is not what it was before the call"),
        ("matrices_alone", "(mine.py:16); it says with `batched = True` that"),
    ],
)
def test_what_is_wrong_on_batches_alone_is_found(checking_host: Host, file: Path, name: str, finding: str) -> None:
    row = verify_kernel(checking_host, f"{file}:{name}", "float64", "quick")
    assert row.status != "ok"
    assert "a batch of " in str(row.finding)
    assert finding in str(row.finding)


@pytest.mark.parametrize("name", ["torch", "numpy", "numba-tiled"])
def test_a_batch_is_a_loop_unless_the_kernel_takes_it(name: str) -> None:
    kernel = load_kernel(name)
    multiply = over_batches(kernel)
    assert (multiply is kernel) == (name != "numba-tiled")
    a, b = torch.randn(3, 4, 5).transpose(0, 1), torch.randn(4, 6, 5).mT
    assert torch.allclose(multiply(a, b), a @ b, atol=1e-5)


def test_what_a_kernel_prepares_is_prepared_for_each_of_a_batch() -> None:
    def kernel(a: torch.Tensor, prepared: tuple[str, torch.Tensor]) -> torch.Tensor:
        assert prepared[0] == "prepared"
        return a @ prepared[1]

    kernel.setup = lambda b: ("prepared", b)  # type: ignore[attr-defined]
    multiply = over_batches(load_kernel(kernel))
    a, b = torch.randn(3, 4, 5), torch.randn(3, 5, 6)
    assert torch.allclose(multiply(a, b), a @ b, atol=1e-5)
    _, prepare = parts(multiply)
    assert prepare
    assert len(prepare(b)) == 3
