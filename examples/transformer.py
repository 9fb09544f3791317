"""A small transformer that learns to predict the next character of Python's own reference manual.

``matmulbench trace examples/transformer.py:make`` lists the products of its training step.
"""

from pydoc_data.topics import topics

import torch
from torch import Tensor, nn

WIDTH, HEADS, BLOCKS, LENGTH, BATCH, BATCHES = 64, 4, 2, 64, 16, 50


class Attention(nn.Module):
    """Causal self-attention, its two products written as products."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.join = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each of (batch, length, WIDTH) gathers from itself and those before it."""
        heads = self.project(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads  # (batch, HEADS, length, WIDTH / HEADS) each
        scores = query @ key.mT / (WIDTH / HEADS) ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.join((weights @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two layers for each character alone."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(WIDTH), Attention())
        self.think = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, length, WIDTH) with what was learnt about each character added."""
        x = x + self.attention(x)
        return x + self.think(x)


class Transformer(nn.Module):
    """From characters (batch, length) to scores of the next one (batch, characters, length)."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH) / 10)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.predict = nn.Linear(WIDTH, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores."""
        scores: Tensor = self.predict(self.blocks(self.embed(x) + self.places))
        return scores.mT


def make() -> tuple[nn.Module, nn.Module, list[tuple[Tensor, Tensor]]]:
    """Return model, loss and batches."""
    torch.manual_seed(0)
    text = topics["assignment"] + topics["class"]
    alphabet = sorted(set(text))
    numbers = torch.tensor([alphabet.index(character) for character in text])
    windows = numbers.unfold(0, LENGTH + 1, 1)
    chosen = windows[torch.randint(len(windows), (BATCHES, BATCH))]
    return Transformer(len(alphabet)), nn.CrossEntropyLoss(), [(each[:, :-1], each[:, 1:]) for each in chosen]
