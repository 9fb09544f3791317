from pathlib import Path

import pytest
import torch

from matmulbench.errors import UsageError
from matmulbench.isolation import Host
from matmulbench.training.accounting import train_kernels
from matmulbench.training.custom_model import load_model, model_from_scratch

FACTORIES = Path(__file__).with_name("factories.py")
SPOILT = Path(__file__).with_name("spoilt.py")


def test_a_model_is_accounted_for_in_the_same_table():
    wrong = f"{SPOILT}:off"
    with Host() as host:
        found = train_kernels(host, f"{FACTORIES}:good", ["torch", "numpy", wrong], "torch", 4.0)
    rows = {row.kernel: row for row, _ in found}
    assert list(rows) == ["torch", "numpy", wrong, "torch.nn"]
    assert [row.status for row in rows.values()] == ["ok", "ok", "failed-verification", "ok"]
    assert rows["numpy"].steps == 10
    assert rows["numpy"].loss_deviation < 1e-5
    assert 0 < rows["numpy"].matmul_share < 1
    assert rows["numpy"].predicted_speedup > 0
    assert rows["torch.nn"].measured_speedup > 0


def test_its_products_are_found_by_watching_a_step():
    own = load_model(f"{FACTORIES}:good")
    found = [(layer, which, str(product)) for layer, which, product in own.products()]
    assert found[:3] == [(1, "forward", "12x8x8:NT"), (2, "forward", "12x8x8:NT"), (3, "forward", "4x8x2:NT")]
    assert found[3:5] == [(3, "input-gradient", "4x2x8"), (3, "weight-gradient", "2x4x8:TN")]
    assert sorted(found[5:]) == [
        (1, "weight-gradient", "8x12x8:TN"),  # x is data: no input gradient
        (2, "weight-gradient", "8x12x8:TN"),
    ]


def test_every_learner_begins_with_the_same_parameters():
    own = load_model(f"{FACTORIES}:good")
    first = [
        float(trainer.step(0)) for trainer in (own.begin(torch.matmul), own.begin_plain(), own.begin(torch.matmul))
    ]
    assert first[0] == first[2]
    assert first[0] == pytest.approx(first[1], rel=1e-6)
    assert float(own.reference().step(0)) == pytest.approx(first[0], rel=1e-6)


def test_the_articles_model_is_an_example():
    own = load_model("matmulbench.training.custom_model:model_from_scratch")
    assert len(own.products()) == 5
    assert (own.rows, own.steps) == (64, 10)
    assert model_from_scratch()[0](torch.zeros(1, 784)).shape == (1, 10)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_linear", "it has no nn.Linear"),
        ("no_batches", "at least one pair"),
        ("half", "parameters are float16; expected"),
        ("two", r"expected \(model, loss, batches\) from the factory, got tuple"),
        ("broken", "RuntimeError: no data today"),
        ("absent", "no function 'absent'"),
    ],
)
def test_a_factory_of_something_else_is_refused(factory, message):
    with pytest.raises(UsageError, match=rf"factories\.py:{factory}.*{message}"):
        load_model(f"{FACTORIES}:{factory}")


def test_a_refusal_reaches_the_parent():
    with Host() as host, pytest.raises(UsageError, match="no data today"):
        train_kernels(host, f"{FACTORIES}:broken", ["torch"], "torch", 1.0)
