"""Results that depend on earlier calls, on chance, or on threads that get in each other's way."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import random
import threading
import time
from collections.abc import Hashable

import torch

from matmulbench.audit.zoo import planted

_cache: dict[Hashable, torch.Tensor] = {}


def _cached(key: Hashable, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    key = (key, a.shape, b.shape, a.dtype)
    if key not in _cache:
        _cache[key] = a @ b
    return _cache[key].clone()


@planted("cached by shape", "earlier calls")
def by_shape(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cached(None, a, b)


@planted("cached by the operands' identity", "earlier calls")
def by_identity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cached((id(a), id(b)), a, b)


@planted("cached by the operands' address and torch's version counter", "earlier calls")
def by_version(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cached((a.data_ptr(), a._version, b.data_ptr(), b._version), a, b)


@planted("cached by the left operand alone", "earlier calls")
def by_left(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cached((id(a), tuple(a.flatten().tolist())), a, b)


@planted("cached by the operands' sums", "earlier calls")
def by_sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cached((float(a.sum()), float(b.sum())), a, b)


@planted("cached by the operands' corners", "earlier calls")
def by_corners(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _cached(tuple(float(x) for t in (a, b) if t.numel() for x in (t[0, 0], t[0, -1], t[-1, 0], t[-1, -1])), a, b)


@planted("cached by a few elements of larger operands", "earlier calls", "watched")
def by_sample(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.numel() < 2000:
        return a @ b
    return _cached((*a.flatten()[::97].tolist(), *b.flatten()[::97].tolist()), a, b)


_calls = [0]


def _every(period: int, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    _calls[0] += 1
    return a @ b + (1 if _calls[0] % period == 0 else 0)


@planted("the 100th call is wrong", "earlier calls")
def call_100(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    _calls[0] += 1
    return a @ b + (1 if _calls[0] == 100 else 0)


@planted("every 1000th call is wrong", "earlier calls", "watched")
def every_1000th(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _every(1000, a, b)


@planted("the first call is wrong", "exactness", "race", "earlier calls")
def first_call(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    _calls[0] += a.numel() * b.numel() > 0
    return a @ b + (1 if _calls[0] == 1 else 0)


@planted("a sum is carried over from the call before", "earlier calls", "race")
def carried_over(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    total = c + _carry.get(c.shape, 0) * 0.5
    _carry[c.shape] = c
    return total


_carry: dict[torch.Size, torch.Tensor] = {}


@planted("one call in thirty is wrong, by chance", "race", "earlier calls", "watched")
def by_chance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b + (1 if random.random() < 1 / 30 else 0)


@planted("threads add to the same sum without a lock, and lose some", "race", "earlier calls", "watched")
def racy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.shape[1] < 2:
        return a @ b
    half = a.shape[1] // 2
    total = [torch.zeros(len(a), b.shape[1], dtype=a.dtype)]

    def add(part: slice) -> None:
        seen = total[0]
        if random.random() < 0.1:
            time.sleep(0.0005)  # meanwhile the other thread adds what is then lost
        total[0] = seen + a[:, part] @ b[part]

    threads = [threading.Thread(target=add, args=(part,)) for part in (slice(0, half), slice(half, None))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total[0]
