"""A small LSTM that learns to predict the next character of Python's own reference manual.

``matmulbench trace examples/lstm.py:make`` lists the products of its training step. In float32, ``nn.LSTM`` is one
operator of MKL-DNN, in which no kernel can do anything; ``make_of_cells`` makes the same of ``nn.LSTMCell``.
"""

from pydoc_data.topics import topics

import torch
from torch import Tensor, nn

WIDTH, LENGTH, BATCH, BATCHES = 64, 32, 16, 50


class Cells(nn.Module):
    """An ``nn.LSTM`` of one layer, its steps written out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Return the states (batch, length, WIDTH), and nothing in the place of the last one."""
        state, states = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            states.append(state[0])
        return torch.stack(states, 1), None


class Predictor(nn.Module):
    """From characters (batch, length) to scores of the next one (batch, characters, length)."""

    def __init__(self, characters: int, recurrent: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, WIDTH)
        self.recurrent = recurrent
        self.predict = nn.Linear(WIDTH, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores."""
        states, _ = self.recurrent(self.embed(x))
        scores: Tensor = self.predict(states)
        return scores.mT


Training = tuple[nn.Module, nn.Module, list[tuple[Tensor, Tensor]]]


def make() -> Training:
    """Return model, loss and batches, with ``nn.LSTM``."""
    torch.manual_seed(0)
    return _train(nn.LSTM(WIDTH, WIDTH, batch_first=True))


def make_of_cells() -> Training:
    """Return model, loss and batches, with ``nn.LSTMCell``."""
    torch.manual_seed(0)
    return _train(Cells())


def _train(recurrent: nn.Module) -> Training:
    text = topics["assignment"] + topics["class"]
    alphabet = sorted(set(text))
    numbers = torch.tensor([alphabet.index(character) for character in text])
    windows = numbers.unfold(0, LENGTH + 1, 1)
    chosen = windows[torch.randint(len(windows), (BATCHES, BATCH))]
    batches = [(each[:, :-1], each[:, 1:]) for each in chosen]
    return Predictor(len(alphabet), recurrent), nn.CrossEntropyLoss(), batches
