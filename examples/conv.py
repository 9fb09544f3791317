"""A small convolutional net that learns to read scikit-learn's digits, 8x8 pixels each.

``matmulbench trace examples/conv.py:make`` lists the products of its training step: a convolution is one operator, so
that kernels only have the two linear layers.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

BATCH = 64


def make() -> tuple[nn.Module, nn.Module, list[tuple[Tensor, Tensor]]]:
    """Return model, loss and batches."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8), from 0 to 1
    y = torch.tensor(digits.target)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    whole = len(x) - len(x) % BATCH
    return model, nn.CrossEntropyLoss(), list(zip(x[:whole].split(BATCH), y[:whole].split(BATCH), strict=True))
