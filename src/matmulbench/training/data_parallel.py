"""Data-parallel training: each rank learns from its part of a batch's rows, then the ranks average their gradients.

The rows of a batch are divided among the ranks as evenly as possible. The mean loss of the batch, and its gradient, are
the means of the parts' weighted by their rows: but for rounding, all ranks together take the step that one process
takes with the whole batch. The ranks are processes, on one host or a host each, that talk through
``torch.distributed``'s gloo (Li et al., PVLDB 13(12), 2020).
"""

# ruff: noqa: D102  # TrainingProblem says what each method does

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import timedelta
from itertools import accumulate
from time import perf_counter
from urllib.parse import urlsplit

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from matmulbench.ladder import Kernel
from matmulbench.training.net import MLP, Linear
from matmulbench.training.problem import Problem
from matmulbench.training.trainers import ManualTrainer, ModuleTrainer, TaskProblem
from matmulbench.workload import fair_parts


class RankProblem(TaskProblem):
    """One rank's part of a task: it learns from its own rows of each batch, and averages gradients with the others."""

    def __init__(self, problem: Problem, rank: int, ranks: int) -> None:
        parts = fair_parts(problem.rows, ranks)
        last = list(accumulate(parts))[rank]
        super().__init__(replace(problem, part=slice(last - parts[rank], last)))
        self.share = self.problem.own_rows / problem.rows
        self.communication_s: list[float] = []  # of each step: to average, and to wait for the slowest

    def begin(self, kernel: Kernel) -> ManualTrainer:
        trainer = super().begin(kernel)
        trainer.net = _AveragingMLP(trainer.net, self)
        return trainer

    def begin_plain(self) -> ModuleTrainer:
        trainer = super().begin_plain()
        model = DistributedDataParallel(trainer.model)

        def weighted(buffer: Tensor) -> torch.futures.Future[Tensor]:
            work = dist.all_reduce(buffer.mul_(self.share), async_op=True)
            found: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
            return found

        # Its own hook would give all ranks the same weight, whatever their rows.
        model.register_comm_hook(None, lambda _, bucket: weighted(bucket.buffer()))
        trainer.model = model
        return trainer

    def average(self, gradients: list[Tensor]) -> None:
        """Replace gradients by their mean over the rows of all ranks, in one message."""
        start = perf_counter()
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).mul_(self.share)
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        self.communication_s.append(perf_counter() - start)


class _AveragingMLP(MLP):
    """A net whose gradients are averaged over the ranks before they are used."""

    def __init__(self, net: MLP, problem: RankProblem) -> None:
        super().__init__(net.layers, net.loss)
        self.problem = problem

    def update(self, rate: float) -> None:
        layers = [layer for layer in self.layers if isinstance(layer, Linear)]
        self.problem.average([each for layer in layers for each in (layer.weight_gradient, layer.bias_gradient)])
        super().update(rate)


def join(problem: TaskProblem, rank: int, ranks: int, meeting: str, patience_s: float) -> RankProblem:
    """Meet the other ranks at the URL ``meeting``, and return this one's part of the problem.

    A rank that waits longer than ``patience_s`` for another gives up, with an error of gloo's.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = _interface_to(urlsplit(meeting).hostname or "127.0.0.1")
    patience = timedelta(seconds=patience_s)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks, timeout=patience)
    return RankProblem(problem.problem, rank, ranks)


def _interface_to(host: str) -> str:
    """Return the network interface that leads to a host: by default gloo looks up this one's name, which may have none.

    Raises
    ------
    OSError
        if none does.
    """
    family, _, _, _, address = socket.getaddrinfo(host, 1)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        line.connect(address)  # sends nothing
        own = line.getsockname()[0]
    known = psutil.net_if_addrs().items()
    return str(next(name for name, found in known if any(each.address.partition("%")[0] == own for each in found)))
