"""Factories of models, as users write them: good ones and others."""

import collections
import os
import random
import threading
import warnings

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # everyone's name for it
from torch import nn
from torch.nn.utils import parametrizations, weight_norm


class Attentive(nn.Module):
    """Batched inputs of rank 3, a layer without bias, and products that are no linear layer's."""

    def __init__(self):
        super().__init__()
        self.q, self.v, self.out = nn.Linear(8, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        q = self.q(x)
        return self.out((torch.softmax(q @ x.transpose(1, 2), -1) @ self.v(x)).mean(1))


def good():
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(40, 3, 8), torch.randint(2, (40,)))
    return Attentive(), nn.CrossEntropyLoss(), torch.utils.data.DataLoader(data, batch_size=4)


def articles():
    model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    return model, nn.CrossEntropyLoss(), [(torch.randn(64, 784), torch.randint(10, (64,))) for _ in range(10)]


def net():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def batches(*rows):
    return [(torch.randn(n, 8), torch.randint(3, (n,))) for n in rows or (6,) * 5]


class Around(nn.Module):
    """A net with something done before it, which takes the module and x."""

    def __init__(self, before=lambda module, x: x):
        super().__init__()
        self.before, self.net = before, net()

    def forward(self, x):
        return self.net(self.before(self, x))


def around(before):
    return Around(before), nn.CrossEntropyLoss(), batches()


# --- that do not do the same twice ---------------------------------------------------------------------


def dropout():
    return nn.Sequential(nn.Dropout(0.5), net()), nn.CrossEntropyLoss(), batches()


def numpys_noise():
    return around(lambda _, x: x + torch.from_numpy(np.random.randn(*x.shape)).to(x.dtype))  # noqa: NPY002


def pythons_coin():
    return around(lambda _, x: x if random.random() < 0.5 else -x)


def unforeseeable():
    return around(lambda _, x: x * (1 + os.urandom(1)[0] / 255))


def made_by_chance():
    torch.seed()
    return net(), nn.CrossEntropyLoss(), batches()


# --- that float64 ends, or that remember ---------------------------------------------------------------


def casts():
    return around(lambda _, x: x.float())


def class_weights():
    weighted = nn.NLLLoss(torch.tensor([1.0, 2.0, 5.0]))
    return nn.Sequential(net(), nn.LogSoftmax(1)), lambda out, y: weighted(out, y), batches()


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out, self.state = nn.LSTMCell(8, 6), nn.Linear(6, 3), None

    def forward(self, x):
        state = self.state or (torch.zeros(len(x), 6), torch.zeros(len(x), 6))
        self.state = self.cell(x, tuple(each.detach() for each in state))
        return self.out(self.state[0])


def stateful():
    return Cell(), nn.CrossEntropyLoss(), batches()


def mixed():
    def half(module, x):
        with torch.autocast("cpu", torch.bfloat16):
            return module.extra(x).float()

    made = around(half)
    made[0].extra = nn.Linear(8, 8)
    return made


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x).float()


def autocast():
    return Half(), nn.CrossEntropyLoss(), batches()


def convolutional():
    return nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3)), *around(None)[1:]


# --- of other forms ------------------------------------------------------------------------------------


def in_place():
    return around(lambda _, x: x.sub_(0.1).div_(0.3))


def keeps():
    def keep(module, x):
        module.kept = [{"activation": module.net[0](x)}]
        return x

    made = around(keep)
    made[0](made[2][0][0])
    return made


def locked():
    made = around(lambda _, x: x)
    made[0].lock = threading.Lock()
    return made


def normed():
    model = nn.Sequential(weight_norm(nn.Linear(8, 6)), nn.ReLU(), parametrizations.weight_norm(nn.Linear(6, 3)))
    return model, nn.CrossEntropyLoss(), batches()


class Routed(nn.Module):
    """A mixture of experts: how many rows each sees is found on the way."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 2), nn.ModuleList(nn.Linear(8, 3) for _ in range(2))

    def forward(self, x):
        share = self.gate(x).softmax(-1)
        chosen, out = share.argmax(-1), x.new_zeros(len(x), 3)
        for i, expert in enumerate(self.experts):
            rows = chosen == i
            out[rows] = expert(x[rows]) * share[rows, i : i + 1]
        return out


def routed():
    return Routed(), nn.CrossEntropyLoss(), batches()


def ragged():
    return net(), nn.CrossEntropyLoss(), batches(6, 5, 6, 1)


class Named(nn.Module):
    """Takes its inputs by name and gives its loss, if it is given labels."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, ids, labels=None):
        out = self.out(self.embed(ids).mean(1))
        return out if labels is None else {"logits": out, "loss": F.cross_entropy(out, labels)}


def dicts(name="labels"):
    return [{"ids": torch.randint(9, (6, 4)), name: torch.randint(3, (6,))} for _ in range(3)]


def own_loss():
    return Named(), None, dicts()


def loss_of_output():
    return Named(), lambda out: out["loss"], dicts()


def penalised():
    model = net()

    def loss(out, y):
        return F.cross_entropy(out, y) + 0.1 * sum(each.square().sum() for each in model.parameters())

    return model, loss, batches()


def penalised_for_good(made=[]):  # noqa: B006  # the same model each time
    made[:] = made or penalised()
    return made


def dict_and_target():
    return Named(), nn.CrossEntropyLoss(), dicts("target")


def dict_in_a_pair():
    return Named(), nn.CrossEntropyLoss(), [({"ids": batch["ids"]}, batch["labels"]) for batch in dicts()]


def two_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, scale):
            return self.net(x * scale)

    return Two(), nn.CrossEntropyLoss(), [(x, torch.ones(1), y) for x, y in batches()]


def autoencoder():
    return nn.Linear(8, 8), nn.MSELoss(), [x for x, _ in batches()]


def scripted():
    return torch.jit.script(net()), nn.CrossEntropyLoss(), batches(6, 7, 8)


class Graph(nn.Module):
    """A layer of a graph whose edges are a sparse buffer."""

    def __init__(self, edges):
        super().__init__()
        self.register_buffer("edges", edges)
        self.layer = nn.Linear(8, 3)

    def forward(self, x):
        return self.layer(torch.sparse.mm(self.edges, x))


def graph():
    return Graph((torch.rand(6, 6) < 0.3).float().to_sparse_coo()), nn.CrossEntropyLoss(), batches()


def graph_by_rows():
    return Graph((torch.rand(6, 6) < 0.3).float().to_sparse_csr()), nn.CrossEntropyLoss(), batches()


def endless():
    def forever():
        while True:
            yield batches(6)[0]

    return net(), nn.CrossEntropyLoss(), forever()


class _Warning(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        warnings.warn("an old way to do it", stacklevel=1)
        with warnings.catch_warnings():  # Python forgets what it has shown
            return self.net(x)


def warns():
    print("epoch 1: all is well")
    return _Warning(), nn.CrossEntropyLoss(), batches()


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.full((8,), i / 20), i % 3


def workers():
    loader = torch.utils.data.DataLoader(Rows(), batch_size=8, shuffle=True, num_workers=2)
    return net(), nn.CrossEntropyLoss(), loader, lambda parameters: torch.optim.AdamW(parameters, lr=0.01)


def fixed_rows():
    def add(module, x):
        return x + module.state

    made = around(add)
    made[0].state = torch.zeros(6, 8)
    return made


# --- of something else ---------------------------------------------------------------------------------


def no_batches():
    return nn.Linear(2, 1), nn.MSELoss(), []


def half():
    return nn.Linear(2, 1).half(), nn.MSELoss(), [(torch.ones(1, 2).half(), torch.ones(1, 1).half())]


def two():
    return nn.Linear(2, 1), nn.MSELoss()


def nothing():
    net()


def loss_class():
    return net(), nn.CrossEntropyLoss, batches()


def broken():
    raise RuntimeError("no data today")


def raises():
    raise KeyError("weights")


def batches_end():
    return net(), nn.CrossEntropyLoss(), (batches()[0] for n in range(2) if 1 / n)


def leaves():
    raise SystemExit(3)


def needs_another():
    import not_installed  # noqa: F401


def no_products():
    return nn.BatchNorm1d(2), nn.MSELoss(), [(torch.ones(3, 2), torch.ones(3, 2))]


def only_convolution():
    return nn.Conv1d(1, 1, 1), nn.MSELoss(), [(torch.ones(2, 1, 3), torch.ones(2, 1, 3))]


def unfit():
    return nn.Linear(2, 1), nn.MSELoss(), [(torch.ones(3, 5), torch.ones(3, 1))]


def vector_loss():
    return nn.Linear(2, 1), nn.MSELoss(reduction="none"), [(torch.ones(3, 2), torch.ones(3, 1))]


def frozen():
    return net().requires_grad_(False), nn.CrossEntropyLoss(), batches()


def steps_on_nothing():
    return net(), nn.CrossEntropyLoss(), batches(), lambda parameters: torch.optim.SGD([], 0.1)


def steps_on_another():
    other = net()
    return net(), nn.CrossEntropyLoss(), batches(), lambda parameters: torch.optim.SGD(other.parameters(), 0.1)


def needs_closure():
    return net(), nn.CrossEntropyLoss(), batches(), torch.optim.LBFGS


def made_optimizer():
    model = net()
    return model, nn.CrossEntropyLoss(), batches(), torch.optim.SGD(model.parameters(), 0.1)


class _FrozenEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        self.encoder.eval()
        with torch.no_grad():
            features = self.encoder(x)
        return self.head(features.mean(1))


def frozen_encoder():
    torch.manual_seed(0)
    return _FrozenEncoder(), nn.functional.cross_entropy, [(torch.randn(4, 5, 8), torch.randint(0, 3, (4,)))]


def empty_buffer():
    """A buffer that only says where the model is."""
    model = net()
    model.register_buffer("place", torch.empty(0), persistent=False)
    return model, nn.CrossEntropyLoss(), batches(12, 12)


class _Bank(nn.Module):
    """Keeps what it has seen, in a buffer that grows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)
        self.register_buffer("bank", torch.zeros(1, 3))

    def forward(self, x):
        out = self.layer(x)
        self.bank = torch.cat([self.bank, out.detach()])
        return out + self.bank.mean(0)


def bank():
    return _Bank(), nn.CrossEntropyLoss(), batches(*[6] * 12)


class _Annealed(nn.Module):
    """Does something else after so many calls, which nothing but the calls decide."""

    def __init__(self):
        super().__init__()
        self.layer, self.more, self.calls = nn.Linear(8, 3), nn.Linear(3, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.more(self.layer(x)) if self.calls > 6 else self.layer(x)


def annealed():
    return _Annealed(), nn.CrossEntropyLoss(), batches(*[6] * 100)  # more than a turn of steps


def bad_label():
    every = batches(*[6] * 20)
    every[7][1][3] = 9
    return net(), nn.CrossEntropyLoss(), every


def uneven():
    return net(), nn.CrossEntropyLoss(), batches(*[3, 12] * 10)


class _Compiled(nn.Module):
    """Compiles a part of itself."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 4), torch.compile(nn.Linear(4, 3))

    def forward(self, x):
        return self.second(self.first(x))


def compiled_in_part():
    return _Compiled(), nn.CrossEntropyLoss(), batches(12, 12)


class _CompiledAtTheTop(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    @torch.compile(dynamic=True)
    def forward(self, x):
        return self.net(x)


def compiled_at_the_top():
    return _CompiledAtTheTop(), nn.CrossEntropyLoss(), batches(12, 12)


class _Scheduled(torch.optim.SGD):
    def __init__(self, parameters):
        super().__init__(parameters, 0.1)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self, 0.5)

    def step(self, closure=None):
        super().step(closure)
        self.schedule.step()


def scheduled():
    return [net(), nn.CrossEntropyLoss(), batches(), _Scheduled]


class _Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.net = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64)), net()

    def forward(self, x):
        return self.net((x.to(self.weight.dtype) @ self.weight).abs())


def complex_numbers():
    return _Complex(), nn.CrossEntropyLoss(), batches(12, 12)


def muon():
    def factory(parameters):
        return torch.optim.Muon([each for each in parameters if each.dim() == 2])

    return net(), nn.CrossEntropyLoss(), batches(12, 12), factory


def more_threads():
    torch.set_num_threads(torch.get_num_threads() + 1)
    return good()


class _Encoding(collections.UserDict):
    """What tokenizers return."""


def encodings():
    model, loss, every = dict_and_target()
    return model, loss, [_Encoding(one) for one in every]


def arrays():
    return net(), nn.CrossEntropyLoss(), [(x.numpy(), y.numpy()) for x, y in batches(12, 12)]


def data_set():
    return net(), nn.CrossEntropyLoss(), torch.utils.data.TensorDataset(torch.ones(3, 2))


def loss_first():
    return nn.CrossEntropyLoss(), net(), batches()


def batches_second():
    return net(), batches(), F.cross_entropy


def batches_last():
    return net(), F.cross_entropy, torch.optim.SGD, batches()


async def asynchronous():
    return good()


def needs_arguments(hidden):
    return good()
