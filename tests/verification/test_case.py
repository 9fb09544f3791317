import re

import numpy as np
import pytest
import torch

from matmulbench.dtypes import DTYPES, as_array
from matmulbench.errors import UsageError
from matmulbench.verification.case import EXACT, LAYOUT_LETTERS, VALUES, Case, arrange


@pytest.mark.parametrize("letter", LAYOUT_LETTERS)
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (0, 3), (3, 0)])
def test_each_layout_has_the_values_it_was_given(letter, shape):
    values = np.arange(12, dtype="float32")[: shape[0] * shape[1]].reshape(shape)
    if letter == "X":
        values = np.broadcast_to(values[:1], shape).copy()
    if letter == "Y":
        values = np.broadcast_to(values[:, :1], shape).copy()
    tensor = arrange(values, letter)
    assert tuple(tensor.shape) == shape
    assert np.array_equal(tensor.numpy(), values)


def test_layouts_differ_in_their_strides():
    values = np.ones((3, 4), "float32")
    views = [arrange(values, letter) for letter in LAYOUT_LETTERS]
    assert len({(view.stride(), view.storage_offset()) for view in views}) == len(LAYOUT_LETTERS)


def test_what_lies_between_is_nan():
    view = arrange(np.ones((3, 4), "float32"), "O")
    everything = torch.empty(0).set_(view.untyped_storage())
    assert int(everything.isnan().sum()) == everything.numel() - 12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", EXACT)
@pytest.mark.parametrize("layout", ["NN", "YN", "XY"])
def test_integer_sums_are_representable_in_any_order(dtype, values, layout):
    a, b = (as_array(operand).astype(float) for operand in Case(9, 300, 7, layout, dtype, values).operands())
    assert (a == np.round(a)).all()
    assert (np.abs(a.astype(float)) @ np.abs(b.astype(float))).max() <= 2 ** DTYPES[dtype].sum_digits


@pytest.mark.parametrize("values", VALUES)
def test_a_case_can_be_made_again(values):
    case = Case(4, 9, 3, "TC", "float64", values, seed=3)
    for once, again in zip(case.operands(), case.operands(), strict=True):
        assert torch.equal(once, again)


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("2x2x1:TN", Case(2, 2, 1, "TN", "float32", "integers", 0)),
        ("0x3x1", Case(0, 3, 1, "NN", "float32", "integers", 0)),
        ("5x7x3:XO,float64,normal,12", Case(5, 7, 3, "XO", "float64", "normal", 12)),
        ("1x1x1,3", Case(1, 1, 1, "NN", "float32", "integers", 3)),
    ],
)
def test_a_case_has_a_short_text_that_makes_it_again(text, case):
    assert Case.parse(text) == case
    assert case.text == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("2x2", "MxKxN"),
        ("2x2x1:T", "'2x2x1:T'"),
        ("2x2x1:TQ", "letter"),
        ("2x2x1,flot32", "'flot32'"),
        ("2x2x1,", "''"),
    ],
)
def test_what_is_no_case_is_named(text, named):
    with pytest.raises(UsageError, match=re.escape(named)):
        Case.parse(text)
