"""The training loop: for each epoch, for each batch, one step.

It is a generator: it stops after each step, so that whoever asks for the next loss decides when to go on, what to time
and where to end. Nothing of that stands in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from matmulbench.training.net import MLP

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


def train(net: MLP, batches: Batches, rate: float, epochs: Iterable[int]) -> Iterator[Tensor]:
    """Train ``net`` by gradient descent; yield the loss of each step, a tensor of one number.

    Parameters
    ----------
    batches
        returns the batches of an epoch, each x (rows, n_in) and its targets y.
    rate
        the learning rate.
    epochs
        the numbers of the epochs, such as ``range(5)``.

    Examples
    --------
    >>> import torch
    >>> from matmulbench.training.net import build
    >>> net = build([(torch.zeros(1, 1), torch.zeros(1))], "relu", None, "mse", torch.matmul)
    >>> line = [(torch.tensor([[x]]), torch.tensor([[2 * x + 1]])) for x in (-1.0, 0.0, 1.0)]
    >>> losses = [float(loss) for loss in train(net, lambda epoch: line, 0.1, range(50))]
    >>> print(f"{losses[-1]:.4f}, y = {net.layers[0].weight.item():.2f} x + {net.layers[0].bias.item():.2f}")
    0.0000, y = 2.00 x + 1.00
    """
    for epoch in epochs:
        for x, y in batches(epoch):
            loss = net.step(x, y, rate)
            yield loss
