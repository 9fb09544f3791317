from matmulbench.results.machine import describe_machine


def test_a_farther_cache_is_larger() -> None:
    machine = describe_machine()
    l2, l3 = machine["l2_cache"], machine["l3_cache"]
    assert l2 is None or l2 >= 2**16
    assert l2 is None or l3 is None or l3 > l2
