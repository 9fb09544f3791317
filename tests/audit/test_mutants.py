"""A sample of the mutants; ``matmulbench audit --only verification`` runs all of it."""

import pytest

from matmulbench.audit.mutants import mutants
from matmulbench.audit.verification import audit_verification
from matmulbench.dtypes import USUAL
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification.kernel import KernelUnderTest
from matmulbench.verification.search import randomised

pytestmark = pytest.mark.timeout(900)  # all are examined before the first test
RIGHT = ("pass", "normwise")
SAMPLE = [
    "wrong_extent",
    "shorter_extent",
    "unchecked_panels",
    "last_k_doubled",
    "transposed_result",
    "k_tail_32",
    "row_tail",
    "above_300_columns",
    "zeros",
    "half",
    "one_element_off",
    "rows_127",
    "bits_16_at_the_suites_shape",
    "bits_23_at_the_suites_shape",
    "single_for_double_when_long",
    "nan_swallowed",
    "zeros_skipped",
    "underflow_flushed",
    "transposed_left",
    "offset_ignored",
    "alignment",
    "read_behind",
    "damages_between",
    "alias",
    "one_buffer",
    "filled_later",
    "lazy",
    "by_identity",
    "by_version",
    "by_sum",
    "call_100",
    "racy",
    "gc_watcher",
    "stack_watcher",
    "no_grad_watcher",
    "slow_clock",
    "exits",
    "memory_hog",
    "sums_in_bfloat16_for_bfloat16_long",
    "rounded_twice",
    "results_flushed",
    "int8_in_float32",
    "saturating_pairs",
    "strassen",
    "kahan",
    "random_order",
    "pairwise",
    "padded_result",
]


def test_there_are_enough_kernels_of_either_kind_and_each_says_what_it_is():
    every = mutants()
    right = mutants("right")
    assert all(mutant.expected[0] in RIGHT for mutant in right)
    assert len(every) - len(right) >= 139
    assert len(right) >= 19
    assert len({mutant.does for mutant in every}) == len(every)


@pytest.fixture(scope="module")
def rows():
    chosen = [mutant for mutant in mutants() if mutant.name in SAMPLE]
    assert len(chosen) == len(SAMPLE)
    # Large products take time, which other tests may take too: quick effort could not come to them.
    large = [mutant for mutant in chosen if {"large sizes", "full precision"} & {*mutant.expected}]
    others = [mutant for mutant in chosen if mutant not in large]
    rows = [*audit_verification("default", large)]
    with pytest.MonkeyPatch.context() as patch:  # to fill what memory a kernel may have takes long
        patch.setattr("matmulbench.verification.api._memory_limit", lambda: 2 * 2**30)
        rows += audit_verification("quick", others)
    return {check.check: check for check in rows}


@pytest.mark.timeout(600)  # the first waits for all
@pytest.mark.parametrize("name", SAMPLE)
def test_it_is_judged_for_what_it_is(rows, name):
    assert rows[name].passed, f"{rows[name].required} expected, got {rows[name].got}"


@pytest.mark.parametrize("spec", [*(rung.name for rung in LADDER), *(mutant.spec for mutant in mutants("right"))])
def test_no_right_kernel_fails_on_random_cases(spec):
    for dtype in USUAL:
        kernel = KernelUnderTest(spec, load_kernel(spec), dtype)
        for case in randomised(kernel, 30, 0.3):
            kernel.check(case)
