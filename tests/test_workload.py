"""Workloads: text form, presets derived from layer sizes, operands with their layouts."""

from dataclasses import replace

import pytest

from matmulbench.errors import UsageError
from matmulbench.workload import PRESETS, USES, Workload, layer_products, workloads


@pytest.mark.parametrize("text", ["5x784x10", "50x50000x784:TN", "64x10x50:NT", "5x784x10:TT", "32*128x64x128:NT"])
def test_text_form_survives_a_round_trip(text: str) -> None:
    assert str(Workload.parse(text)) == text


def test_text_as_it_is_copied_or_typed() -> None:
    assert str(Workload.parse(" 5X784×10:tn ")) == "5x784x10:TN"


@pytest.mark.parametrize(
    "text",
    [
        "5x784", "5x784x10:XX", "0x784x10", "5*784*10", "", "-5x784x10", "5x784x10:",
        "0*5x784x10", "*5x784x10", "2*3*5x784x10",
    ],
)  # fmt: skip
def test_malformed_text_names_the_form_expected(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected MxKxN, MxKxN:LAYOUT or BATCH\*MxKxN"):
        Workload.parse(text)


def test_a_size_that_contains_a_zero_digit_is_fine() -> None:
    assert Workload.parse("50x100x10").m == 50


def test_layer_products_are_those_of_a_step_in_its_order() -> None:
    assert [(layer, which, str(product)) for layer, which, product in layer_products(50_000, (784, 50, 10))] == [
        (1, "forward", "50000x784x50"),
        (2, "forward", "50000x50x10"),
        (2, "weight-gradient", "10x50000x50:TN"),
        (2, "input-gradient", "50000x10x50:NT"),
        (1, "weight-gradient", "50x50000x784:TN"),
    ]


def test_the_standard_preset_has_no_duplicates() -> None:
    standard = workloads("standard")
    assert len(set(standard)) == len(standard)
    assert set(PRESETS["quick"]) <= set(standard)


def test_every_workload_of_a_preset_is_for_something() -> None:
    assert all(replace(workload, dtype="float32") in USES for workload in PRESETS["full"])
    assert USES[Workload.parse("50x50000x784:TN")] == "first layer, weight gradient, 50,000 rows (784-50-10)"


def test_an_unknown_preset_is_answered_with_a_near_match() -> None:
    with pytest.raises(UsageError, match="preset 'quik' is unknown: did you mean quick"):
        workloads("quik")


def test_counts() -> None:
    product = Workload(5, 784, 10)
    assert product.flop == 2 * 5 * 784 * 10
    assert product.bytes == 4 * (5 * 784 + 784 * 10 + 5 * 10)


def test_a_batch_counts_as_often_as_it_has_products() -> None:
    one, many = Workload(5, 784, 10), Workload.parse("32*5x784x10")
    assert (many.flop, many.bytes, many.intensity) == (32 * one.flop, 32 * one.bytes, one.intensity)
    assert Workload.parse("1*5x784x10") == one


@pytest.mark.parametrize("layout", ["NN", "TN", "NT", "TT"])
def test_operands_of_a_batch(layout: str) -> None:
    a, b = Workload(4, 5, 6, layout, batch=3).operands()
    assert (a.shape, b.shape) == ((3, 4, 5), (3, 5, 6))
    assert [each.mT.is_contiguous() for each in (a, b)] == [letter == "T" for letter in layout]


@pytest.mark.parametrize(("layout", "a_is_view", "b_is_view"), [("NN", 0, 0), ("TN", 1, 0), ("NT", 0, 1), ("TT", 1, 1)])
def test_layouts_are_transposed_views(layout: str, a_is_view: bool, b_is_view: bool) -> None:
    a, b = Workload(4, 5, 6, layout, "float64").operands()
    assert (a.shape, b.shape) == ((4, 5), (5, 6))
    assert (a.is_contiguous(), b.is_contiguous()) == (not a_is_view, not b_is_view)


def test_operands_follow_the_seed() -> None:
    product = Workload(2, 3, 4)
    assert product.operands(1)[0].equal(product.operands(1)[0])
    assert not product.operands(1)[0].equal(product.operands(2)[0])
