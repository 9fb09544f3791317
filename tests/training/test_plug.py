import copy
import ctypes
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from matmulbench import replaced, trace
from matmulbench.errors import InputWarning, UsageError
from matmulbench.ladder.numpy_matmul import matmul as numpy_matmul
from matmulbench.ladder.row_slice import matmul as row_slice
from matmulbench.training.plug import plug, unplug
from matmulbench.training.replacement import _IN_GRAPH, _ON_CPU, Hooks

OVERRIDES = (_ON_CPU, _IN_GRAPH)


class Tied(nn.Module):
    """One linear layer used twice, and a second whose weight is the first's."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(5, 5)
        self.two = nn.Linear(5, 5, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.relu(self.one(torch.relu(self.one(x)))))


class Counting:
    def __init__(self):
        self.calls = []

    def __call__(self, a, b):
        assert not a.requires_grad
        assert not b.requires_grad
        self.calls.append((tuple(a.shape), tuple(b.shape)))
        return a @ b


def gradients(model, x):
    x = x.clone().requires_grad_()
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    return out.detach(), [x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("kernel", [numpy_matmul, row_slice])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5)])
@pytest.mark.parametrize(
    "model",
    [nn.Linear(5, 4), nn.Linear(5, 4, bias=False), nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), Tied()],
    ids=["linear", "no bias", "net", "shared"],
)
def test_forward_and_gradients_are_those_of_the_model(model, shape, kernel):
    model = copy.deepcopy(model).double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    want, want_gradients = gradients(model, x)
    got, got_gradients = gradients(plug(model, kernel), x)
    assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)
    assert len(got_gradients) == len(want_gradients)
    for one, other in zip(got_gradients, want_gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck(bias):
    layer = plug(nn.Linear(4, 3, bias=bias).double(), numpy_matmul)
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    weight = layer.weight.detach().clone().requires_grad_()

    def of_the_weight(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x.detach(),))

    assert torch.autograd.gradcheck(of_the_weight, (weight,))
    assert torch.autograd.gradgradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(of_the_weight, (weight,))


def test_frozen_weights_and_data_cost_no_product():
    kernel = Counting()
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    model[1].weight.requires_grad_(False)
    plugged = plug(model, kernel)
    plugged(torch.randn(2, 5)).sum().backward()
    forward = [((2, 5), (5, 4)), ((2, 4), (4, 3))]
    assert kernel.calls == [*forward, ((2, 3), (3, 4)), ((4, 2), (2, 5))]
    assert plugged[1].weight.grad is None
    assert plugged[1].bias.grad is not None


def test_sharing_names_and_values_stay():
    model = Tied()
    plugged = plug(model, torch.matmul)
    assert plugged.one.weight is plugged.two.weight
    assert plugged.one.weight is not model.one.weight
    assert list(plugged.state_dict()) == list(model.state_dict())
    model.load_state_dict(plugged.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plugged.parameters(), model.parameters(), strict=True))


def test_unplug_gives_the_plain_model_and_changes_nothing_else():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    kernel = Counting()
    plugged = plug(model, kernel)
    plain = unplug(plugged)
    assert [type(m) for m in plain] == [type(m) for m in model]
    assert vars(plain[0]).keys() == vars(model[0]).keys()
    x = torch.randn(2, 5)
    assert torch.equal(plain(x), model(x))
    assert not kernel.calls
    plugged(x)
    assert len(kernel.calls) == 2


def test_plugging_again_changes_the_kernel():
    first, second = Counting(), Counting()
    plug(plug(nn.Linear(5, 4), first), second)(torch.randn(2, 5))
    assert (len(first.calls), len(second.calls)) == (0, 1)


def test_a_kernel_can_be_named():
    plugged = plug(nn.Linear(5, 4), "row-slice")
    assert plugged(torch.ones(2, 5)).shape == (2, 4)
    assert "kernel=row-slice" in repr(plugged)
    again = pickle.loads(pickle.dumps(plugged))
    assert repr(again) == repr(plugged)
    assert again(torch.ones(2, 5)).shape == (2, 4)
    assert torch.equal(plugged(torch.zeros(2, 5)), again(torch.zeros(2, 5)))
    assert sum(isinstance(hook.__self__, Hooks) for hook in again._forward_hooks.values()) == 1
    with pytest.raises(UsageError, match="kernel 'nunpy' is unknown: did you mean numpy"):
        plug(nn.Linear(5, 4), "nunpy")


def test_a_function_of_arrays_that_says_so_can_be_plugged():
    def product(a, b):
        return a.astype(a.dtype) @ b

    product.operands = "numpy"
    assert plug(nn.Linear(5, 4), product)(torch.ones(2, 5)).shape == (2, 4)


@torch.jit.script
def scripted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


class Multiplier(nn.Module):
    """A module is a callable too; its parameters are none of the model's."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, a, b):
        return a @ b


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        (scripted, "scripted"),
        (torch.compile(row_slice, backend="eager"), "matmul"),
        (ctypes.CDLL(None).abs, "abs"),
        (Multiplier(), "Multiplier"),
    ],
    ids=["script", "compile", "ctypes", "module"],
)
def test_copies_share_the_kernel_and_name_it(kernel, name):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    plugged = copy.deepcopy(plug(model, kernel))
    hooks = [hook.__self__ for module in plugged.modules() for hook in module._forward_hooks.values()]
    assert [one.kernel is kernel for one in hooks] == [True] * 3
    assert repr(plugged).count(f"kernel={name}") == 2, "once for all, once in the layer that has weights"
    assert repr(unplug(plugged)) == repr(model)
    assert list(plugged.state_dict()) == list(model.state_dict())
    assert vars(unplug(plugged)[0]).keys() == vars(model[0]).keys()


def test_hooks_and_training_mode_stay():
    model = nn.Linear(5, 4).eval()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    plugged = plug(model, torch.matmul)
    plugged(torch.randn(2, 5))
    assert seen == [1]
    assert not plugged.training


class Attending(nn.Module):
    """Products by ``@`` in 3 dimensions, by an LSTM's cell, and by a layer with a forward of its own."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTMCell(5, 5), Doubled(5, 4)

    def forward(self, x):
        states = torch.stack([self.cell(row)[0] for row in torch.softmax(x @ x.mT, -1) @ x])
        return self.out(states)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("batched", [False, True])
def test_products_that_are_no_linear_layers_are_the_kernels_too(batched):
    model, x, kernel = Attending().double(), torch.randn(2, 3, 5, dtype=torch.float64), Counting()
    kernel.batched = batched
    want, want_gradients = gradients(model, x)
    got, got_gradients = gradients(plug(model, kernel), x)
    assert torch.allclose(got, want, rtol=1e-12)
    for one, other in zip(got_gradients, want_gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)
    products = 2 if batched else 1
    forward, backward = [4 / products + 4 + 1, 8 / products + 6 + 2]
    assert len(kernel.calls) == forward + backward


def test_the_graph_keeps_the_kernel_whoever_else_multiplies_in_it():
    one, two, x = Counting(), Counting(), torch.randn(2, 5)
    first, plain, second = plug(nn.Linear(5, 5), one), nn.Linear(5, 5), plug(nn.Linear(5, 5), two)
    loss = second(plain(first(x))).sum()
    assert (len(one.calls), len(two.calls)) == (1, 1)
    loss.backward()
    assert (len(one.calls), len(two.calls)) == (2, 3)
    assert plain.weight.grad is not None


def test_the_graph_keeps_the_kernel_when_the_copy_is_gone():
    kernel = Counting()
    loss = plug(nn.Linear(5, 4), kernel)(torch.randn(2, 5)).sum()
    gc.collect()
    loss.backward()
    assert len(kernel.calls) == 2


def test_other_threads_and_later_products_are_torchs():
    kernel, x = Counting(), torch.ones(2, 5)

    class Waiting(nn.Linear):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(torch.mm, x, x.t()).result()
            return super().forward(x)

    plugged = plug(Waiting(5, 4), kernel)
    plugged(x)
    assert len(kernel.calls) == 1
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        plugged(torch.ones(2, 6))
    torch.mm(x, x.t())
    assert len(kernel.calls) == 1


def test_what_is_overridden_is_torchs_again_when_the_last_copy_goes():
    gc.collect()
    before = [overrides.wanted for overrides in OVERRIDES]
    plugged = plug(nn.Linear(5, 4), torch.matmul)
    copied = copy.deepcopy(plugged)
    del plugged
    assert [overrides.wanted for overrides in OVERRIDES] == [wanted + 1 for wanted in before]
    del copied
    gc.collect()
    assert [overrides.wanted for overrides in OVERRIDES] == before


def test_a_plugged_model_is_traced_and_replaced_like_any_other():
    kernel, outer = Counting(), Counting()
    plugged = plug(nn.Linear(5, 4), kernel)
    found = trace(plugged, nn.MSELoss(), [(torch.ones(2, 5), torch.ones(2, 4))])
    assert kernel.calls
    assert found["reason"].eq("").all()
    calls = len(kernel.calls)
    with replaced(outer):
        plugged(torch.ones(2, 5))
    assert (len(kernel.calls), len(outer.calls)) == (calls + 1, 0)


def test_the_models_sgd_trains_it_like_the_plain_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    plugged = plug(model, numpy_matmul)
    x, y = torch.randn(8, 5).double(), torch.randn(8, 1).double()
    for net in (model, plugged):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
    assert torch.allclose(model[0].weight, plugged[0].weight, rtol=1e-10)


class Keeping(nn.Module):
    """Keeps its last activations, to be looked at later."""

    def __init__(self):
        super().__init__()
        self.one, self.kept = nn.Linear(5, 4), []

    def forward(self, x):
        self.kept = [{"activation": self.one(x)}]
        return self.kept[0]["activation"]


@pytest.mark.parametrize(
    ("layer", "calls"),
    [
        (nn.LazyLinear(4), 1),
        (nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), 1),
        (nn.utils.parametrizations.orthogonal(nn.Linear(5, 4)), 2),
        (nn.utils.weight_norm(nn.Linear(5, 4)), 1),
        (Keeping(), 1),
    ],
    ids=["lazy", "weight norm", "orthogonal", "old weight norm", "keeping"],
)
def test_layers_that_are_no_plain_linear_take_part(layer, calls):
    model = nn.Sequential(layer, nn.ReLU())
    x = torch.randn(2, 5)
    if not isinstance(layer, nn.LazyLinear):
        model(x)
    kernel = Counting()
    plugged = plug(model, kernel)
    plain = unplug(plugged)
    assert type(plain[0]) is type(layer)
    assert plain(x).shape == (2, 4)
    assert not kernel.calls
    plugged(x).sum().backward()
    assert len(kernel.calls) == 2 * calls  # x is data
    if not isinstance(layer, nn.LazyLinear):
        assert torch.allclose(plugged(x), model(x))
        assert list(plugged.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("nested", [False, True])
def test_an_encoder_runs_the_kernel_in_eval_too(nested):
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 2, enable_nested_tensor=nested)
    model, x, kernel = model.eval(), torch.randn(2, 3, 8), Counting()
    with pytest.warns(InputWarning, match="within one operator of MultiheadAttention"):
        plugged = plug(model, kernel)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mask[0, 2] = True
    with torch.no_grad():
        assert torch.allclose(plugged(x, src_key_padding_mask=mask), model(x, src_key_padding_mask=mask), atol=1e-5)
    assert len(kernel.calls) >= 4
    plain = unplug(plugged)
    for module, other in zip(plain.modules(), model.modules(), strict=True):
        assert vars(module).keys() == vars(other).keys()


def test_a_model_that_cannot_be_copied_is_said():
    model = nn.Linear(5, 4)
    model.lock = threading.Lock()
    with pytest.raises(UsageError, match="the model cannot be copied: TypeError: cannot pickle"):
        plug(model, torch.matmul)


def test_layers_whose_products_stay_torchs_are_named():
    model = nn.ModuleList([nn.Linear(4, 4, dtype=torch.bfloat16), nn.LSTM(4, 4), nn.Conv1d(1, 1, 1)])
    said = (
        "products within one operator of Conv1d, LSTM and products in bfloat16 do not run the kernel: trace lists "
        "them, if there are any"
    )
    with pytest.warns(InputWarning, match=f"^{said}$"):
        plug(model, "torch")


def test_scripted_modules_run_the_kernel_inside_others():
    scripted, kernel = torch.jit.script(nn.Linear(5, 4)), Counting()
    plugged = plug(nn.Sequential(scripted), kernel)
    plugged(torch.ones(2, 5)).sum().backward()
    assert len(kernel.calls) == 2
    with pytest.warns(InputWarning, match="products of TorchScript do not run the kernel"):
        copy = plug(scripted, kernel)
    assert all(parameter.is_leaf for parameter in (*copy.parameters(), *plugged.parameters()))


def test_what_a_kernel_returns_may_be_a_view_and_is_written_to():
    model, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True)), torch.randn(2, 5)
    want, want_gradients = gradients(model, x)
    got, got_gradients = gradients(plug(model, lambda a, b: torch.einsum("ik,kj->ij", a, b)), x)
    assert torch.allclose(got, want)
    for one, other in zip(got_gradients, want_gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_of_a_compiled_model_the_copy_is_not_compiled():
    kernel, x = Counting(), torch.randn(2, 5)
    model = nn.Linear(5, 4)
    plugged = plug(torch.compile(model), kernel)
    assert torch.allclose(plugged(x), model(x))
    assert len(kernel.calls) == 1


class Half(nn.Module):
    """A part, and a layer after it."""

    def __init__(self, part):
        super().__init__()
        self.part, self.layer = part, nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(self.part(x))


def test_torch_compile_leaves_a_plugged_part_as_it_is(recwarn):
    import torch._dynamo.testing

    def kernel(a, b):
        calls.append(a.shape)
        return numpy_matmul(a, b)

    calls, compiler, x = [], torch._dynamo.testing.CompileCounter(), torch.randn(2, 3, 5, dtype=torch.float64)
    model = Half(plug(Attending(), kernel)).double()
    want = gradients(model, x)[1]
    expected = len(calls)
    found = gradients(torch.compile(model, backend=compiler), x)[1]
    assert len(calls) == 2 * expected
    assert compiler.op_count == 1, "the layer that is not plugged"
    assert all(torch.equal(one, other) for one, other in zip(found, want, strict=True))
    torch.compile(nn.Sequential(model.part, model.layer), backend=compiler)(x)  # not compiled for its loop
    torch._dynamo.reset()  # it keeps the model
    assert not recwarn.list


@pytest.mark.parametrize("kernel", [numpy_matmul, row_slice])
def test_derivatives_of_every_kind_are_the_models(kernel):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    plugged, x, direction = plug(model, kernel), *torch.randn(2, 2, 5, dtype=torch.float64)

    def forward(net):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, direction)
            return torch.autograd.forward_ad.unpack_dual(net(dual)).tangent

    for derive in (
        forward,
        lambda net: torch.func.jvp(net, (x,), (direction,))[1],
        lambda net: torch.func.hessian(lambda x: net(x).square().sum())(x),
        lambda net: torch.func.vmap(torch.func.jacrev(net))(x),
        lambda net: torch.autograd.functional.jacobian(net, x, vectorize=True),
        lambda net: torch.autograd.functional.hessian(lambda x: net(x).square().sum(), x, vectorize=True),
    ):
        assert torch.allclose(derive(plugged), derive(model), rtol=1e-10)


def test_a_plugged_model_can_be_transformed():
    kernel, x = Counting(), torch.randn(2, 5)
    model = nn.Linear(5, 4)
    plugged = plug(model, kernel)
    assert torch.allclose(torch.func.vmap(plugged)(x), model(x))
    calls = len(kernel.calls)
    found = torch.func.grad(lambda x: plugged(x).sum())(x)
    assert torch.allclose(found, model.weight.sum(0).expand(2, 5))
    assert len(kernel.calls) > calls > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: plug("numpy", nn.Linear(2, 3)),
        lambda: plug(nn.Linear, "numpy"),
        lambda: plug(torch.relu, "numpy"),
        lambda: unplug(3),
    ],
)
def test_what_is_no_model_is_named(call):
    with pytest.raises(UsageError, match=r"expected an object of a class of torch\.nn's modules|kernel Linear"):
        call()
