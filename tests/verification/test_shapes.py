from matmulbench.verification import EFFORTS
from matmulbench.verification.shapes import AWKWARD, grid


def test_every_pair_of_awkward_sizes_meets_in_each_pair_of_dimensions():
    cases = list(grid("float32"))
    sizes = [size for size in AWKWARD if size]
    for x in sizes:
        for y in sizes:
            assert any((case.m, case.k) == (x, y) for case in cases)
            assert any((case.k, case.n) == (x, y) for case in cases)
            assert any((case.m, case.n) == (x, y) for case in cases)


def test_all_combinations_are_there_when_asked_for():
    assert {(case.m, case.k, case.n) for case in grid("float32", EFFORTS["thorough"])} >= {
        (m, k, n) for m in AWKWARD for k in AWKWARD for n in AWKWARD
    }
