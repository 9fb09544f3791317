import contextlib
import io
import json
import statistics
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time

import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everyone's name for it
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import matmulbench
from matmulbench.errors import UsageError
from matmulbench.training import trace as module
from matmulbench.training.custom_model import load_model

EXAMPLES = Path(__file__).parents[2] / "examples"
FACTORIES = Path(__file__).with_name("factories.py")
COLUMNS = list(module.COLUMNS)


class Tied(nn.Module):
    """Characters in, scores of characters out, both by the same weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(torch.relu(self.hidden(self.embed(x)))).mT


class States(nn.Module):
    """An LSTM's states."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Checkpointed(nn.Module):
    """A layer, and two that run again in back-propagation, as far as that needs it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    def forward(self, x):
        return checkpoint(self.two, self.one(x), use_reentrant=False)


class Calling(nn.Module):
    """A layer of its own, and any function of x (3, 5, 4)."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.linear(x))


X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
MODELS = {
    "mlp": (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), X[0]),
    "encoder": (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), X),
    "encoder, fused attention": (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), X),
    "lstm": (States(), X),
    "lstm, float64": (States().double(), X.double()),
    "conv": (nn.Sequential(nn.Conv1d(5, 6, 3), nn.ReLU(), nn.ConvTranspose1d(6, 2, 2), nn.Linear(3, 2)), X),
    "tied": (Tied(), torch.arange(6).reshape(2, 3)),
    "checkpoint": (Checkpointed(), X),
    "einsum": (Calling(lambda x: torch.einsum("bij,bkj->bik", x, x)), X),
    "no gradient": (Calling(lambda x: x @ (x.detach().mT @ x.detach())), X),
}


def mean(out, _):
    return out.square().mean()


def traced(model, x=X, loss=mean):
    return matmulbench.trace(model, loss, [(x, x)])


@pytest.mark.parametrize("name", MODELS)
def test_flop_are_those_of_torchs_counter(name):
    model, x = MODELS[name]
    with FlopCounterMode(display=False) as counter:
        mean(model(x), x).backward()
    model.zero_grad()
    found = traced(model, x)
    assert found["flop"].sum() == sum(counter.get_flop_counts().get("Global", {}).values())
    assert list(found.columns) == COLUMNS
    assert found["time_s"].gt(0).all()
    assert found["time_s"].is_monotonic_decreasing


def rows(frame, *columns):
    return sorted(tuple(row) for row in frame[list(columns)].to_numpy().tolist())


def test_a_row_says_who_asks_for_what_how_often():
    found = traced(*MODELS["mlp"])
    assert rows(found, "shape", "layout", "operator", "module", "count") == [
        ("2x5x6:TN", "TN", "mm", "backward of 2", 1),
        ("5x2x6", "NN", "mm", "backward of 2", 1),
        ("5x4x6:NT", "NT", "addmm", "0", 1),
        ("5x6x2:NT", "NT", "addmm", "2", 1),
        ("6x5x4:TN", "TN", "mm", "backward of 0", 1),
    ]
    assert set(found["dtype"]) == {"float32"}
    assert not found["reason"].any()


def test_batches_and_both_operands_transposed():
    found = traced(Calling(lambda x: x[:, :4].mT @ x.mT))
    assert ("3*4x4x5:TT", "bmm", "Calling", 1) in rows(found, "shape", "operator", "module", "count")


def test_a_module_that_runs_often_is_one_row():
    layer = nn.Linear(4, 4)
    found = traced(nn.Sequential(layer, nn.ReLU(), layer))
    assert rows(found, "module", "count") == [("0", 2), ("backward of 0", 1), ("backward of 0", 2)]


def test_what_a_checkpoint_runs_again_is_the_modules_own():
    found = traced(*MODELS["checkpoint"])
    assert found.groupby("module")["count"].sum().to_dict() == {
        "one": 1,
        "two.0": 2,
        "two.2": 1,
        "backward of two.2": 2,
        "backward of two.0": 2,
        "backward of one": 1,
    }


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x @ x.mT

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return (gradient + gradient.mT) @ x


def test_a_function_with_a_gradient_of_its_own_is_found_in_its_module():
    found = traced(Calling(Squared.apply))
    bmm = found[found["operator"] == "bmm"]
    assert rows(bmm, "shape", "module") == [("3*5x4x5:NT", "Calling"), ("3*5x5x4", "backward of Calling")]


def test_what_loss_asks_for_is_outside_the_model():
    found = traced(MODELS["mlp"][0], X[0], lambda out, x: (out @ out.mT).mean())
    assert {"outside the model", "backward of outside the model"} <= set(found["module"])


def test_what_the_optimiser_asks_for_is_its_own():
    layer, batch = nn.Linear(5, 4, bias=False), (torch.ones(2, 5), torch.ones(2, 4))
    found = matmulbench.trace(layer, nn.MSELoss(), [batch], torch.optim.Muon)
    assert rows(found[found["dtype"] == "bfloat16"], "module") == [("the optimiser",)] * 3
    assert set(found["module"]) == {"the optimiser", "Linear", "backward of Linear"}


@pytest.mark.parametrize(
    ("function", "operator", "reason"),
    [
        (nn.Conv1d(5, 2, 3), "convolution", "convolution is one operator"),
        (nn.Conv1d(5, 2, 3), "convolution_backward", "convolution is one operator"),
        (
            lambda x: F.scaled_dot_product_attention(*[x[:, None]] * 3),
            "_scaled_dot_product_flash_attention_for_cpu",
            "fused attention is one operator; torch.nn.attention.sdpa_kernel(SDPBackend.MATH) makes products of it",
        ),
        (
            States(),
            "mkldnn_rnn_layer",
            "MKL-DNN's LSTM is one operator; torch.backends.mkldnn.set_flags(False) makes products of it",
        ),
        (
            lambda x: (x.bfloat16() @ x.bfloat16().mT).float(),
            "bmm",
            "bfloat16 on cpu; kernels take dense float32 and float64 on the CPU",
        ),
        (
            lambda x: torch.sparse.mm(torch.eye(5).to_sparse(), x[0]),
            "_sparse_addmm",
            "kernels do mm, addmm, bmm, baddbmm",
        ),
        (
            lambda x: torch.zeros(5, 5).addmm_(x[0], x[0].T),
            "addmm_",
            "its result goes into a given tensor",
        ),
        (lambda x: x + x[..., :0] @ x[:, :4, :0].mT, "bmm", "an operand is empty"),
        (lambda x: x[0] @ x[0, 0], "mv", "a matrix times a vector"),
        pytest.param(
            lambda x: x + torch._foreach_mm([x[0, :4].detach()], [x[0, :4].detach()])[0].mean(),
            "_foreach_mm",
            "kernels do mm, addmm, bmm, baddbmm",
            marks=pytest.mark.skipif(not hasattr(torch, "_foreach_mm"), reason="of torch 2.13"),
        ),
        (lambda x: F.bilinear(x, x, torch.ones(2, 4, 4)), "_trilinear", "kernels do mm, addmm, bmm, baddbmm"),
    ],
)
def test_what_no_kernel_can_do_has_a_reason_and_a_time(function, operator, reason):
    found = traced(Calling(function))
    found = found[(found["operator"] == operator) & (found["reason"] != "")]
    assert set(found["reason"]) == {reason}
    assert found["time_s"].gt(0).all()


def test_the_encoders_fast_path_is_seen():
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval().requires_grad_(False)
    found = traced(nn.Sequential(encoder, nn.Linear(4, 2)))
    assert "_transformer_encoder_layer_fwd" in set(found["operator"])


@pytest.mark.parametrize("switch", [torch.backends.mkldnn.set_flags, torch.backends.mha.set_fastpath_enabled])
def test_what_a_reason_advises_exists(switch):
    assert callable(switch)


def test_mkldnns_lstm_comes_apart_as_advised():
    with torch.backends.mkldnn.flags(enabled=False):
        found = traced(*MODELS["lstm"])
    assert not found["reason"].any()


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(5), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    traced(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_compiled_model_can_be_traced():
    found = traced(torch.compile(nn.Linear(4, 4), backend="eager"))
    assert found["count"].sum() == 2


def test_only_the_first_batch_is_taken():
    def batches():
        yield X, X
        raise AssertionError

    assert len(matmulbench.trace(nn.Linear(4, 4), mean, batches())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((F.linear, mean, [(X, X)]), "model: expected a torch.nn.Module, got builtin_function_or_method"),
        ((nn.Linear(4, 4), mean, []), "batches: expected pairs (x, y), got none"),
        (
            (nn.Linear(4, 4), lambda out, y: out, [(X, X)]),
            "model 'Linear': its loss returned shape (3, 5, 4), expected a tensor of one number",
        ),
        ((nn.Linear(4, 4), lambda out, y: 1.0, [(X, X)]), "model 'Linear': its loss returned float, expected"),
        ((nn.Linear(5, 4), mean, [(X, X)]), "model 'Linear': a step on batch 1 of 1 ends in RuntimeError: mat1 and"),
        ((nn.Linear(4, 4), lambda out, y: X.mean(), [(X, X)]), "one number that depends on the parameters"),
        ((nn.LayerNorm(4), mean, [(X, X)]), "model 'LayerNorm': a step has no matrix product, expected one at least"),
    ],
)
def test_what_cannot_be_traced_is_said_in_a_sentence(arguments, message):
    with pytest.raises(UsageError) as refused:
        matmulbench.trace(*arguments)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_product_has_its_least_time(monkeypatch):
    times = iter(range(10**6))

    def slower_and_slower(kernel, record):
        record(None, None, 1e-9 * next(times) or 1.0)
        record(None, None, 1e-9 * next(times))
        return contextlib.nullcontext()

    monkeypatch.setattr(module, "replaced", slower_and_slower)
    found = traced(nn.Linear(4, 4))
    assert found["time_s"].tolist() == pytest.approx([2e-9, 1e-9])


def test_a_step_that_asks_for_products_inside_other_operators_is_timed_by_looking_at_all():
    found = traced(Calling(lambda x: torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist")))
    assert found["time_s"].gt(0).all()
    assert found["count"].sum() >= 2


@pytest.mark.timing
def test_timing_products_takes_little():
    trainer = load_model(f"{EXAMPLES / 'lstm.py'}:make_of_cells").begin_plain()
    trainer.step(0)
    plain, timed = [], []
    for _ in range(9):
        start = thread_time()
        trainer.step(0)
        plain.append(thread_time() - start)
        with matmulbench.replaced(torch.mm, lambda a, b, seconds: None):
            start = thread_time()
            trainer.step(0)
            timed.append(thread_time() - start)
    assert min(timed) <= 2 * min(plain)


@pytest.mark.timing
def test_tracing_takes_at_most_twice_as_long():
    trainer = load_model(f"{EXAMPLES / 'transformer.py'}:make").begin_plain()
    trainer.step(0)
    ratios = []
    for _ in range(9):
        start = perf_counter()
        trainer.step(0)
        middle = perf_counter()
        with module.Tracer(trainer.model):
            trainer.step(0)
        ratios.append((perf_counter() - middle) / (middle - start))
    assert statistics.median(ratios) <= 2


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def run(shared_bench, matmulbench):
    return partial(matmulbench, "trace")


def test_the_command_writes_a_table_and_what_it_comes_to(run):
    done = run(f"{EXAMPLES / 'conv.py'}:make")
    assert done.returncode == 0
    assert "64x512x64:NT" in done.stdout
    assert "backward of 2" in done.stdout
    assert "convolution is one operator" in done.stdout
    assert "in products that a kernel can do, " in done.stdout
    assert done.stderr == f"trace {EXAMPLES / 'conv.py'}:make, 1 thread\n"


def test_what_can_be_done_about_a_reason_is_said_once(run):
    out = run(f"{EXAMPLES / 'lstm.py'}:make", "-q").stdout
    assert out.count("torch.backends.mkldnn.set_flags(False) makes products of it") == 1


def test_a_model_of_convolutions_alone_is_listed_with_reasons(run):
    records = json.loads(run(f"{FACTORIES}:only_convolution", "-q", "--format", "json").stdout)
    assert {row["reason"] for row in records} == {"convolution is one operator"}
    assert all(row["time_s"] > 0 for row in records)


def test_the_command_writes_csv_and_json(run):
    factory = f"{EXAMPLES / 'lstm.py'}:make"
    written = run(factory, "-q", "--format", "csv").stdout
    table = pd.read_csv(io.StringIO(written), dtype={"flop": "Int64"})
    records = json.loads(run(factory, "-q", "--format", "json").stdout)
    assert list(table.columns) == ["threads", *COLUMNS]
    assert list(records[0]) == ["threads", *COLUMNS]
    assert table["flop"].sum() == sum(row["flop"] or 0 for row in records) == 3 * 2 * 512 * 64 * 80


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("raises", "its factory ends in KeyError: 'weights'; expected (model, loss, batches)"),
        ("no_products", "a step has no matrix product, expected one at least"),
        ("two", "from the factory, got tuple of 2"),
        ("unfit", "a step on batch 1 of 1 ends in RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("vector_loss", "its loss returned shape (3, 1), expected a tensor of one number"),
        ("no_such_thing", "no function 'no_such_thing'"),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(run, factory, message):
    done = run(f"{FACTORIES}:{factory}", "-q")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"matmulbench: model '{FACTORIES}:{factory}': ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_factory_that_ends_its_process_ends_with_2(run, tmp_path):
    (tmp_path / "ending.py").write_text("import os\n\ndef make():\n    os._exit(3)\n")
    done = run(f"{tmp_path / 'ending.py'}:make", "-q")
    assert done.returncode == 2
    assert "ending.py:make': the process ended itself with exit code 3" in done.stderr


def test_products_take_no_more_than_the_step(monkeypatch):
    monkeypatch.setattr("matmulbench.training.trace.Stopwatch.stop", lambda _: (0.0, 0.0, 1e-9))  # as other load may
    found = traced(nn.Linear(4, 4))
    assert found["share"].sum() == pytest.approx(1)
