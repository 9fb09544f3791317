"""Kernels that fail in one rank of a data-parallel training alone, in its tenth product and after."""

import ctypes
import os
import signal

import torch
import torch.distributed as dist

_calls = 0


def _on_rank_1(act):
    global _calls
    if dist.is_initialized() and dist.get_rank() == 1:
        _calls += 1
        if _calls > 200:  # after those by which its cost is learnt
            act()


def crashes(a, b):
    _on_rank_1(lambda: ctypes.string_at(2**64 - 8))
    return a @ b


def ends(a, b):
    _on_rank_1(lambda: os._exit(3))
    return a @ b


def raises(a, b):
    _on_rank_1(lambda: torch.ones(2) @ torch.ones(3))
    return a @ b


def stops(a, b):
    _on_rank_1(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    return a @ b


def coarse(a, b):
    """Be off by a hundredth, in one rank."""
    return (a @ b) * (1.01 if dist.is_initialized() and dist.get_rank() == 1 else 1)
