"""The roof is one, and the calibration loop is steady work."""

import pytest

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.measurement.cells import compile_seconds, measure_cells, measure_roof
from matmulbench.measurement.fma import CHAINS, flop_per_iteration, vector_bits
from matmulbench.measurement.roof import Roof
from matmulbench.workload import Workload


def test_the_roof_is_the_lower_of_peak_and_bandwidth_times_intensity() -> None:
    roof = Roof("float32", 1, fma_gflops=100.0, bandwidth_gbs=10.0, call_floor_s=0.0)
    compute, memory = Workload(1024, 1024, 1024), Workload(1000, 1, 1)
    assert roof.gflops(compute) == 100
    assert roof.gflops(memory) == pytest.approx(10 * memory.intensity)


def test_float64_vectors_hold_half_as_many() -> None:
    assert flop_per_iteration(32) == 2 * flop_per_iteration(64) == 2 * CHAINS * vector_bits() // 32


def test_no_kernel_beats_the_roof_by_more_than_noise() -> None:
    with Host(1) as host:
        roof = measure_roof(host, "float64")
        (cell,) = measure_cells(host, Workload(512, 512, 512, dtype="float64"), [], BASELINE, 0.3, roof)
        assert roof.call_floor_s < 1e-6
        assert cell.row.roof_percent < 115


def test_compilation_is_found_where_it_happens() -> None:
    with Host(1) as host:
        compiled, library = (compile_seconds(host, spec, "float32") for spec in ("numba", "row-slice"))
        assert compiled
        assert compiled > 0.1
        assert library is not None
        assert library < compiled
        assert compile_seconds(host, "nowhere:matmul", "float32") is None
