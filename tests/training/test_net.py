from itertools import pairwise

import pytest
import torch
from torch import nn

from matmulbench.training import net as nets

ROWS = 7


def parameters(*layers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n_in, n_out, generator=generator).double(), torch.randn(n_out, generator=generator).double())
        for n_in, n_out in pairwise(layers)
    ]


def torch_loss(loss, prediction, target):
    function = {"mse": nn.functional.mse_loss, "bce": nn.functional.binary_cross_entropy}
    return function.get(loss, nn.functional.cross_entropy)(prediction, target)


def data(loss, n_in, n_out):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, n_in, generator=generator).double()
    if loss == "cross-entropy":
        return x, torch.randint(n_out, (ROWS,), generator=generator)
    return x, torch.randint(2, (ROWS, n_out), generator=generator).double()


@pytest.mark.parametrize(
    ("layers", "activation", "output", "loss"),
    [
        ((6, 5, 1), "sigmoid", "sigmoid", "bce"),
        ((6, 5, 3), "relu", None, "cross-entropy"),
        ((6, 5, 1), "relu", None, "mse"),
        ((6, 5, 4, 3), "sigmoid", None, "cross-entropy"),
        ((6, 1), "relu", "sigmoid", "bce"),
    ],
)
def test_every_gradient_is_autograds(layers, activation, output, loss):
    x, y = data(loss, layers[0], layers[-1])
    given = parameters(*layers)
    net = nets.build(given, activation, output, loss, torch.matmul)
    got_loss = net.step(x.clone(), y, 0.0)

    leaves = [tensor.clone().requires_grad_() for pair in given for tensor in pair]
    out = x
    for i in range(0, len(leaves), 2):
        out = out @ leaves[i] + leaves[i + 1]
        function = output if i == len(leaves) - 2 else activation
        out = {"relu": torch.relu, "sigmoid": torch.sigmoid, None: lambda t: t}[function](out)
    want_loss = torch_loss(loss, out, y)
    want = torch.autograd.grad(want_loss, leaves)

    linears = [layer for layer in net.layers if isinstance(layer, nets.Linear)]
    got = [gradient for layer in linears for gradient in (layer.weight_gradient, layer.bias_gradient)]
    assert abs(got_loss - want_loss) <= 1e-12 * want_loss
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()


def test_a_sure_and_wrong_prediction_costs_what_torch_says():
    p, y = torch.tensor([[0.0], [1.0], [1.0]]).double(), torch.tensor([[1.0], [0.0], [1.0]]).double()
    leaf = p.clone().requires_grad_()
    want = nn.functional.binary_cross_entropy(leaf, y)
    want.backward()
    loss = nets.BCE()
    assert loss.forward(p.clone(), y) == want
    assert torch.allclose(loss.backward(), leaf.grad, rtol=1e-6)  # torch's 1e-12 is a float32's


def test_cross_entropy_of_huge_scores_is_finite():
    loss = nets.CrossEntropy()
    assert loss.forward(torch.tensor([[1e4, -1e4]]), torch.tensor([1])) == 2e4
    assert loss.backward().tolist() == [[1.0, -1.0]]


def test_the_step_goes_against_the_gradient():
    net = nets.build([(torch.tensor([[2.0]]), torch.tensor([1.0]))], "relu", None, "mse", torch.matmul)
    loss = net.step(torch.tensor([[3.0]]), torch.tensor([[5.0]]), 0.1)  # predicts 7: error 2, gradient 4
    (layer,) = net.layers
    assert loss == 4
    assert layer.weight.item() == pytest.approx(2 - 0.1 * 4 * 3)
    assert layer.bias.item() == pytest.approx(1 - 0.1 * 4)


def test_neither_data_nor_given_parameters_are_touched():
    given = parameters(6, 5, 3)
    x, y = data("cross-entropy", 6, 3)
    before = [tensor.clone() for tensor in (x, y, *given[0], *given[1])]
    net = nets.build(given, "relu", None, "cross-entropy", torch.matmul)
    net.step(x, y, 0.5)
    net.step(x, y, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, *given[0], *given[1]), strict=True))


def test_every_product_goes_through_the_kernel_and_the_first_layer_has_two():
    shapes = []

    def matmul(a, b):
        shapes.append((tuple(a.shape), tuple(b.shape)))
        return a @ b

    x, y = data("cross-entropy", 6, 3)
    nets.build(parameters(6, 5, 3), "relu", None, "cross-entropy", matmul).step(x, y, 0.1)
    assert shapes == [((7, 6), (6, 5)), ((7, 5), (5, 3)), ((3, 7), (7, 5)), ((7, 3), (3, 5)), ((5, 7), (7, 6))]
