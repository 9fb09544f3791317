import doctest
from itertools import count, islice

from matmulbench.training import loop


class Counting:
    """A net whose loss is what it was given."""

    def __init__(self):
        self.seen = []

    def step(self, x, y, rate):
        self.seen.append((x, y, rate))
        return x


def test_each_epoch_takes_its_own_batches_in_their_order():
    net = Counting()
    assert list(loop.train(net, lambda epoch: [(10 * epoch + i, -i) for i in (1, 2)], 0.5, range(2))) == [1, 2, 11, 12]
    assert net.seen[0] == (1, -1, 0.5)


def test_who_asks_for_no_further_loss_ends_the_training():
    net = Counting()
    assert list(islice(loop.train(net, lambda epoch: [(epoch, 0)], 0.5, count()), 3)) == [0, 1, 2]
    assert len(net.seen) == 3


def test_the_example_learns_its_line():
    found = doctest.testmod(loop)
    assert found.attempted
    assert not found.failed
