"""The models in ``examples/`` learn, with torch and with a kernel alike."""

from pathlib import Path

import pytest
import torch

from matmulbench import replaced, trace
from matmulbench.ladder.plugins import load_function

EXAMPLES = Path(__file__).parents[2] / "examples"
# And which share of its operators that multiply matrices a kernel can do.
MODELS = {"transformer.py:make": 1.0, "lstm.py:make": 0.6, "lstm.py:make_of_cells": 1.0, "conv.py:make": 0.6}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learned(spec: str) -> list[float]:
    """Train on all batches once; return the losses."""
    model, loss, batches = load_function(f"{EXAMPLES}/{spec}", "model")()
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


@pytest.mark.parametrize("spec", MODELS)
def test_an_example_learns_and_a_kernel_changes_nothing(spec: str) -> None:
    plain, calls = learned(spec), []
    assert sum(plain[-5:]) < 0.9 * sum(plain[:5])
    with replaced("einsum", lambda a, b, seconds: calls.append(a)):
        assert learned(spec) == pytest.approx(plain, rel=1e-3)
    assert len(calls) >= 3 * len(plain)


@pytest.mark.parametrize(("spec", "share"), MODELS.items())
def test_an_example_has_what_its_words_say(spec: str, share: float) -> None:
    found = trace(*load_function(f"{EXAMPLES}/{spec}", "model")())
    able = found["reason"] == ""
    assert able.mean() == pytest.approx(share)
