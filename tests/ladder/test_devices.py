"""What verification sees of a kernel on a GPU is what the kernel does there; the device is the CPU's memory here."""

from pathlib import Path

import pytest
import torch

from matmulbench import verify
from matmulbench.errors import UsageError
from matmulbench.isolation import Host
from matmulbench.isolation.requests import LoadKernel
from matmulbench.ladder import CUDA_LADDER
from matmulbench.ladder.devices import check_timed, mirrored
from matmulbench.ladder.plugins import load_kernel
from matmulbench.status import Status

A, B = torch.arange(6.0).reshape(2, 3), torch.arange(12.0).reshape(3, 4)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (A, B),
        (A.T.contiguous().T, B.T.contiguous().T),
        (A[:1].expand(2, 3), B),
        (torch.arange(24.0).reshape(4, 6)[1::2, 1:4], B),
        (A[:, :0], B[:0]),
    ],
    ids=["plain", "transposed", "expanded", "slice", "empty"],
)
def test_the_kernel_gets_copies_of_the_same_strides(a: torch.Tensor, b: torch.Tensor) -> None:
    seen: list[torch.Tensor] = []

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.extend((a, b))
        return a @ b

    assert torch.equal(mirrored(kernel, "cpu")(a, b), a @ b)
    for there, here in zip(seen, (a, b), strict=True):
        assert there.stride() == here.stride()
        assert torch.equal(there, here)
        assert not here.numel() or there.data_ptr() != here.data_ptr()


def test_an_operand_that_is_changed_there_is_changed_here() -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        c = a @ b
        a[0, 0] = 7
        return c

    a = A.clone()
    mirrored(kernel, "cpu")(a, B)
    assert a[0, 0] == 7
    assert torch.equal(a.flatten()[1:], A.flatten()[1:])


def test_a_result_in_an_operands_memory_is_so_here() -> None:
    a = A.clone()
    c = mirrored(lambda a, b: a[:, 1:], "cpu")(a, B)
    assert c.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
    assert torch.equal(c, a[:, 1:])


def test_a_buffer_that_serves_twice_overwrites_the_earlier_result() -> None:
    buffer = torch.empty(2, 4)
    kernel = mirrored(lambda a, b: torch.mm(a, b, out=buffer), "cpu")
    first = kernel(A, B)
    second = kernel(2 * A, B)
    assert second is first
    assert torch.equal(first, 2 * A @ B)


def test_fresh_results_stay_what_they_were() -> None:
    kernel = mirrored(product, "cpu")
    results = [kernel(factor * A, B) for factor in range(20)]
    assert all(torch.equal(result, factor * A @ B) for factor, result in enumerate(results))


def test_a_result_on_another_device_is_named() -> None:
    with pytest.raises(TypeError, match="the result is on meta, expected on cpu"):
        mirrored(lambda a, b: torch.empty(2, 4, device="meta"), "cpu")(A, B)


def test_an_unknown_device_is_named() -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b

    kernel.device = "tpu"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="device 'tpu' is unknown"):
        load_kernel(kernel)


def test_kernels_of_a_gpu_are_not_timed() -> None:
    kernel = mirrored(product, "cpu")
    check_timed(kernel)
    kernel.__dict__["device"] = "cuda"
    with pytest.raises(ImportError, match="verified and not timed yet"):
        check_timed(kernel)


@without_gpu
@pytest.mark.parametrize("name", [rung.name for rung in CUDA_LADDER])
def test_rungs_of_a_gpu_are_unavailable_without_one(name: str) -> None:
    with Host() as host:
        outcome = host.call(LoadKernel(name), silence_limit=30)
    assert outcome.status == Status.UNAVAILABLE
    assert "CUDA" in str(outcome.reason) or "install" in str(outcome.reason)


@without_gpu
def test_a_users_kernel_of_a_gpu_is_unavailable_without_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def matmul(a, b):\n    return a @ b\n\nmatmul.device = 'cuda'\n")
    (row,) = verify(f"{path}:matmul", "float32").to_dict("records")
    assert row["status"] == "unavailable"
    assert "no CUDA device" in row["finding"]
