"""A kernel that works on copies is judged by what it does to the originals; the CPU itself serves as the device."""

import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from matmulbench import measure, train, verify
from matmulbench.errors import UsageError
from matmulbench.isolation import Host
from matmulbench.isolation.requests import LoadKernel
from matmulbench.ladder import CUDA_LADDER
from matmulbench.ladder.devices import mirrored, on_device, unmirrored
from matmulbench.ladder.plugins import load_kernel, parts, with_operands
from matmulbench.status import Status
from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest, WrongError
from matmulbench.verification.shapes import LAYOUTS
from matmulbench.verification.statefulness import check_addresses, check_earlier_calls

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
Multiply = Callable[[torch.Tensor, torch.Tensor], object]


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def under_test(kernel: Multiply, dtype: str = "float32") -> KernelUnderTest:
    return KernelUnderTest("mine.py:matmul", mirrored(kernel, "cpu"), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_operands_have_their_layout_on_the_device(dtype: str) -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen[:] = [(x.stride(), x.storage_offset(), x.untyped_storage().nbytes(), x.data_ptr()) for x in (a, b)]
        return a @ b

    seen: list[tuple[object, ...]] = []
    test = under_test(kernel, dtype)
    for layout in LAYOUTS:
        for sizes in ((2, 3, 4), (1, 1, 1), (0, 3, 2), (2, 0, 3)):
            case = Case(*sizes, layout, dtype, "small-integers")
            test.check(case)
            a, b = case.operands()
            test.call(a, b, str(case))
            for x, (*form, place) in zip((a, b), seen, strict=True):
                assert form == [x.stride(), x.storage_offset(), x.untyped_storage().nbytes()]
                assert not x.numel() or place != x.data_ptr()


def test_a_right_kernel_is_right_whatever_happens_to_its_operands() -> None:
    check_earlier_calls(under_test(product), 1.0)
    check_addresses(under_test(product))


def writes_to_operand(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    b[0, 0] += 1
    return c


def turns_operand(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    a.t_()
    return c


def asks_for_gradients(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    a.requires_grad_()
    return c


def returns_operand(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, :1].expand(a.shape[0], b.shape[1]) if b.shape[1] == 1 else a @ b


def one_buffer() -> Multiply:
    buffers: dict[tuple[int, int], torch.Tensor] = {}

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shape = a.shape[0], b.shape[1]
        return torch.mm(a, b, out=buffers.setdefault(shape, torch.empty(shape)))

    return kernel


def late_writer() -> Multiply:
    earlier: list[torch.Tensor] = []

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for c in earlier:
            c += 1
        earlier.append(a @ b)
        return earlier[-1]

    return kernel


def rememberer() -> Multiply:
    answers: dict[int, tuple[object, ...]] = {}  # with the operands, so that no other has their place

    def kernel(a: torch.Tensor, b: torch.Tensor) -> object:
        return answers.setdefault(id(a) + id(b), (a @ b, a, b))[0].clone()  # type: ignore[attr-defined]

    return kernel


@pytest.mark.parametrize(
    ("kernel", "finding"),
    [
        (writes_to_operand, "operand b is not what it was before the call"),
        (turns_operand, "operand a is not what it was before the call"),
        (asks_for_gradients, "operand a is not what it was before the call"),
        (returns_operand, "the result shares memory with operand a"),
        (one_buffer(), "the result shares memory with an earlier result"),
        (late_writer(), "a result returned earlier has changed since"),
        (rememberer(), r"the same objects, after a\[0, 0\] \+= 1"),
        (lambda a, b: None, "the result is None, expected a torch.Tensor"),
        (lambda a, b: (a @ b).double(), "the result is torch.float64, expected torch.float32"),
        (lambda a, b: (a @ b).requires_grad_(), "the result requires a gradient"),
        (lambda a, b: (a @ b).to_sparse(), "the result is torch.sparse_coo on cpu"),
    ],
)
def test_what_a_kernel_does_on_its_device_is_found(kernel: Multiply, finding: str) -> None:
    test = under_test(kernel)
    with pytest.raises(WrongError, match=finding):  # noqa: PT012 - any of its calls
        for seed in range(3):
            test.check(Case(3, 1, 1, values="small-integers", seed=seed))
        check_earlier_calls(test, 0.0)


def test_a_result_on_another_device_is_refused_with_a_remedy() -> None:
    kernel = mirrored(lambda a, b: torch.empty(2, 4, device="meta"), "cpu")
    with pytest.raises(ValueError, match=r"the result is on meta, expected cpu: make it with device=a\.device"):
        kernel(torch.ones(2, 3), torch.ones(3, 4))


def test_what_is_changed_on_the_cpu_stays_so() -> None:
    kernel = mirrored(product, "cpu")
    c = kernel(torch.ones(2, 3), torch.ones(3, 4))
    c += 1
    kernel(torch.ones(2, 3), torch.ones(3, 4))
    assert torch.equal(c, torch.full((2, 4), 4.0))
    assert torch.equal(kernel(c, torch.eye(4)), c)


def test_a_late_write_is_seen_once() -> None:
    earlier: list[torch.Tensor] = []

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        earlier.append(a @ b)
        if len(earlier) == 2:
            earlier[0].zero_()
        return earlier[-1]

    whole, a, b = mirrored(kernel, "cpu"), torch.ones(2, 3), torch.ones(3, 4)
    c = whole(a, b)
    whole(a, b)
    assert not c.any()
    c += 1
    whole(a, b)
    assert c.all()


def test_nothing_is_kept_that_nobody_has() -> None:
    seen: list[int] = []
    kernel = mirrored(lambda a, b: (seen.append(len(gc.get_objects())), a @ b)[1], "cpu")
    for _ in range(12):
        kernel(torch.ones(2, 3), torch.ones(3, 4))
        gc.collect()
    assert seen[-1] < seen[3] + 5


def test_what_a_kernel_says_of_itself_is_said_of_the_whole() -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b

    kernel.dtypes, kernel.batched, kernel.accumulation = ("float32",), True, "bfloat16"  # type: ignore[attr-defined]
    whole = mirrored(kernel, "cpu")
    assert unmirrored(whole) is kernel
    assert (whole.dtypes, whole.batched, whole.accumulation) == (("float32",), True, "bfloat16")  # type: ignore[attr-defined]
    assert not hasattr(whole, "device")
    batch = torch.ones(2, 3, 4), torch.ones(2, 4, 5)
    assert torch.equal(whole(*batch), torch.full((2, 3, 5), 4.0))


def test_an_unknown_device_is_named() -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b

    kernel.device = "cuda0"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="device 'cuda0' is unknown: did you mean cuda"):
        load_kernel(kernel)


def test_a_kernel_is_timed_where_it_works_without_the_copies() -> None:
    whole = mirrored(product, "cpu")
    whole.device = "cuda"  # type: ignore[attr-defined]
    assert on_device(product, "cpu") is on_device(whole, "cuda") is product
    with pytest.raises(ImportError, match="it works on cuda, not on cpu: --device cuda has it timed there"):
        on_device(whole, "cpu")
    with pytest.raises(ImportError, match="it works on cpu, not on cuda: --device cpu has it timed there"):
        on_device(product, "cuda")


@without_gpu
@pytest.mark.parametrize("name", [rung.name for rung in CUDA_LADDER])
def test_rungs_of_a_device_are_unavailable_without_one(host: Host, name: str) -> None:
    outcome = host.call(LoadKernel(name), silence_limit=30)
    assert outcome.status == Status.UNAVAILABLE
    assert "no CUDA device" in str(outcome.reason) or "pip install 'matmulbench[cuda]'" in str(outcome.reason)


@without_gpu
@pytest.mark.usefixtures("shared_bench")
def test_without_a_gpu_nothing_begins_there() -> None:
    for ask in (partial(verify, "cuda-torch"), partial(measure, "cuda-torch"), partial(train, "digits", "cuda-torch")):
        with pytest.raises(UsageError, match="device 'cuda': no CUDA device, as far as torch sees; `matmulbench list`"):
            ask(device="cuda")


def test_a_name_says_that_a_kernel_works_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    whole = load_kernel(f"{__file__}:product@cuda")
    assert whole.device == "cuda"  # type: ignore[attr-defined]
    assert unmirrored(whole).__name__ == "product"
    assert with_operands("my.py:product", None, "cuda") == "my.py:product@cuda"
    assert with_operands("cuda-torch", None, "cuda") == "cuda-torch"
    with pytest.raises(UsageError, match="operands 'numpy' are not on device 'cuda': expected torch"):
        with_operands("my.py:product", "numpy", "cuda")


@without_gpu
@pytest.mark.usefixtures("shared_bench")
def test_a_users_kernel_of_a_device_is_unavailable_without_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def matmul(a, b):\n    return a @ b\n\nmatmul.device = 'cuda'\n")
    (row,) = verify(f"{path}:matmul", "float32").to_dict("records")
    assert row["status"] == "unavailable"
    assert "no CUDA device" in row["finding"]


@pytest.mark.usefixtures("shared_bench")
def test_a_right_kernel_passes_verification_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from matmulbench.ladder.devices import mirrored\n"
        "def product(a, b):\n    return a @ b\n\nmatmul = mirrored(product, 'cpu')\n"
    )
    (row,) = verify(f"{path}:matmul", "float32", effort="quick").to_dict("records")
    assert row["status"] == "ok", row["finding"]


@pytest.mark.filterwarnings("ignore:Couldn't get spec for numba_cuda")
@pytest.mark.parametrize("library", ["numba_cuda", "triton"])
def test_a_missing_library_is_answered_with_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setitem(sys.modules, library, None)
    for module in ("cuda_launch", "cuda_naive", "triton_matmul"):
        monkeypatch.delitem(sys.modules, f"matmulbench.ladder.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"{library}.*; pip install 'matmulbench\[cuda\]'"):
        load_kernel({"numba_cuda": "cuda-naive", "triton": "triton"}[library])


def test_a_kernel_that_is_loaded_twice_is_copied_to_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    kernel = load_kernel("cuda-torch")
    assert load_kernel(kernel) is kernel
    assert unmirrored(kernel).__module__ == "matmulbench.ladder.cuda_torch"


def test_a_kernel_that_prepares_b_prepares_it_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(a: torch.Tensor, prepared: torch.Tensor) -> torch.Tensor:
        return a @ prepared

    kernel.setup, kernel.device = torch.clone, "cuda"  # type: ignore[attr-defined]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    whole = load_kernel(kernel)
    assert not hasattr(whole, "setup")
    assert parts(unmirrored(whole))[0] is kernel


def test_arrays_are_on_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a @ b

    kernel.operands, kernel.device = "numpy", "cuda"  # type: ignore[attr-defined]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(UsageError, match="operands on device 'cuda' are torch's, it says 'numpy'"):
        load_kernel(kernel)
