"""A multi-layer perceptron that learns by back-propagation, every matrix product of it done by a given kernel.

A net is a list of layers. **Forward**, each layer turns its input into its output, and the loss turns the last
output and the targets into one number. **Backward**, from the last layer to the first, each is told how the loss
changes with its output (the *gradient*, of the output's shape), notes how it changes with its own parameters, and
says how it changes with its input: the chain rule, one factor a layer. **Update**: each parameter takes a small
step against its gradient.

In letters, for a linear layer y = x W + b, where G is the gradient with respect to y:

    dL/dW = xᵀ G = (Gᵀ x)ᵀ        dL/db = the sum of G over the rows        dL/dx = G Wᵀ

so that a layer costs three matrix products a step, and the first layer, whose input needs no gradient, two
(Rumelhart, Hinton & Williams, Nature 323, 1986; Goodfellow et al., *Deep Learning*, 6.5).

Rows are samples: x is (rows, n_in), W is (n_in, n_out), b is (n_out,). A product is a fresh tensor that nobody else
holds, so what follows it works **in place**: at 50,000 rows each temporary saved is 10 MB that need not be touched.
"""

# ruff: noqa: D102  # Layer and Loss say what each method does

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from matmulbench.ladder import Kernel


class Layer(ABC):
    """One stage of a net. Either direction may overwrite the tensor that it is given."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for the input ``x``."""

    @abstractmethod
    def backward(self, gradient: Tensor) -> Tensor | None:
        """Return the loss's gradient with respect to the input, given that with respect to the output."""

    def update(self, rate: float) -> None:  # noqa: B027  # most layers have no parameters
        """Move the parameters, if there are any, by ``-rate`` times their gradients."""


class Linear(Layer):
    """y = x W + b.

    Parameters
    ----------
    weight, bias
        W (n_in, n_out) and b (n_out,); trained in place.
    matmul
        the kernel that does the three products.
    first
        whether the input is the data, which needs no gradient.
    """

    def __init__(self, weight: Tensor, bias: Tensor, matmul: Kernel, first: bool = False) -> None:
        self.weight, self.bias, self.matmul, self.first = weight, bias, matmul, first

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return self.matmul(x, self.weight).add_(self.bias)

    def backward(self, gradient: Tensor) -> Tensor | None:
        # xᵀ G, computed as its transpose: BLAS libraries are quicker at a wide result than at a tall one.
        self.weight_gradient = self.matmul(gradient.t(), self.x).t()
        self.bias_gradient = gradient.sum(0)
        return None if self.first else self.matmul(gradient, self.weight.t())

    def update(self, rate: float) -> None:
        self.weight.sub_(self.weight_gradient, alpha=rate)
        self.bias.sub_(self.bias_gradient, alpha=rate)


class ReLU(Layer):
    """y = max(x, 0); its slope is 1 where y is positive, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.relu_()
        return self.y

    def backward(self, gradient: Tensor) -> Tensor:
        # The sign of y is that slope, and the layer above is done with y.
        return gradient.mul_(self.y.sign_())


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)); its slope is y (1 - y)."""

    def forward(self, x: Tensor) -> Tensor:
        self.y = x.sigmoid_()
        return self.y

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient.mul_(self.y).mul_(1 - self.y)


class Loss(Protocol):
    """What is to become small: the mean over the rows. Either direction may overwrite the prediction."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a tensor of one number."""

    def backward(self) -> Tensor:
        """Return the loss's gradient with respect to the prediction."""


class MSE:
    """Mean squared error, for predictions and targets (rows, 1)."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.error = prediction.sub_(target)
        return self.error.square().mean()

    def backward(self) -> Tensor:
        return self.error.mul_(2 / len(self.error))


class BCE:
    """Binary cross-entropy, for probabilities and targets (rows, 1): the mean of -log(p) or -log(1 - p).

    As in ``torch.nn.BCELoss`` a logarithm is at least -100, and p (1 - p) at least 1e-12: a net that is wrong and
    quite sure of it must not divide by zero.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.p, self.y = prediction, target
        right = self.p.log().clamp_(min=-100).mul_(self.y)
        wrong = (1 - self.p).log_().clamp_(min=-100).mul_(1 - self.y)
        return -right.add_(wrong).mean()

    def backward(self) -> Tensor:
        return (self.p - self.y).div_((1 - self.p).mul_(self.p).clamp_(min=1e-12)).div_(len(self.p))


class CrossEntropy:
    """Softmax and cross-entropy in one, for scores (rows, classes) and targets (rows,), the right classes.

    The gradient is the softmax less 1 at the right class. Logarithms of the probabilities are kept, not the
    probabilities, which may underflow.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.right = target.unsqueeze(1)
        self.log_p = prediction.log_softmax(1)
        return -self.log_p.gather(1, self.right).mean()

    def backward(self) -> Tensor:
        p = self.log_p.exp_()
        p.scatter_add_(1, self.right, p.new_full((1, 1), -1).expand_as(self.right))
        return p.div_(len(p))


class MLP:
    """Layers and a loss: a net that learns."""

    def __init__(self, layers: Sequence[Layer], loss: Loss) -> None:
        self.layers, self.loss = layers, loss

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self) -> None:
        gradient: Tensor | None = self.loss.backward()
        for layer in reversed(self.layers):
            assert gradient is not None  # only the first layer gives none
            gradient = layer.backward(gradient)

    def update(self, rate: float) -> None:
        for layer in self.layers:
            layer.update(rate)

    def step(self, x: Tensor, target: Tensor, rate: float) -> Tensor:
        """Learn from the rows ``x`` (rows, n_in) and their ``target``; return the loss before the update."""
        loss = self.loss.forward(self.forward(x), target)
        self.backward()
        self.update(rate)
        return loss


ACTIVATIONS: dict[str, type[ReLU | Sigmoid]] = {"relu": ReLU, "sigmoid": Sigmoid}
LOSSES: dict[str, type[MSE | BCE | CrossEntropy]] = {"mse": MSE, "bce": BCE, "cross-entropy": CrossEntropy}


def build(
    parameters: Sequence[tuple[Tensor, Tensor]],
    activation: str,
    output: str | None,
    loss: str,
    matmul: Kernel,
) -> MLP:
    """Make a net of copies of ``parameters``, a (weight, bias) a layer, with ``activation`` between them.

    ``output`` names the activation after the last layer, if any, and ``loss`` what is to become small.
    """
    layers: list[Layer] = []
    for i, (weight, bias) in enumerate(parameters):
        if i:
            layers.append(ACTIVATIONS[activation]())
        layers.append(Linear(weight.clone(), bias.clone(), matmul, first=i == 0))
    if output:
        layers.append(ACTIVATIONS[output]())
    return MLP(layers, LOSSES[loss]())
