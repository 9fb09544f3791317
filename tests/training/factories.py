"""Factories of models, as users write them: good ones and others."""

import torch
from torch import nn


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


def no_linear():
    return nn.Conv1d(1, 1, 1), nn.MSELoss(), []


def no_batches():
    return nn.Linear(2, 1), nn.MSELoss(), []


def half():
    return nn.Linear(2, 1).half(), nn.MSELoss(), [(torch.ones(1, 2), torch.ones(1, 1))]


def two():
    return nn.Linear(2, 1), nn.MSELoss()


def broken():
    raise RuntimeError("no data today")


def raises():
    raise KeyError("weights")


def no_products():
    return nn.BatchNorm1d(2), nn.MSELoss(), [(torch.ones(3, 2), torch.ones(3, 2))]


def unfit():
    return nn.Linear(2, 1), nn.MSELoss(), [(torch.ones(3, 5), torch.ones(3, 1))]


def vector_loss():
    return nn.Linear(2, 1), nn.MSELoss(reduction="none"), [(torch.ones(3, 2), torch.ones(3, 1))]
