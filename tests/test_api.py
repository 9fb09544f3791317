"""The Python functions: what several dtypes say of precision."""

import pandas as pd

from matmulbench import api
from matmulbench.isolation.requests import ProductError
from matmulbench.report.tables import precision_table
from matmulbench.workload import Workload


def _rows(**seconds):
    first = {"workload": "64x64x64", "threads": 1, "kernel": "torch", "device": "cpu"}
    return pd.DataFrame([first | {"dtype": dtype, "median_s": s} for dtype, s in seconds.items()])


def test_fewer_bits_cost_precision(host):
    errors = {
        dtype: host.call(ProductError("torch", Workload(64, 300, 32, dtype=dtype)), silence_limit=60).value
        for dtype in ("float64", "float32", "float16", "bfloat16", "int8")
    }
    assert list(errors) == sorted(errors, key=errors.__getitem__)
    assert errors["float64"] < 1e-14 < errors["float32"] < 1e-6 < errors["float16"] < 1e-3 < errors["bfloat16"] < 0.01
    assert errors["int8"] < 0.03


def test_a_cliff_is_named_with_what_the_processor_has(monkeypatch):
    monkeypatch.setattr("matmulbench.results.machine.narrow_instructions", lambda: {"bfloat16": [], "int8": ["i8mm"]})
    found = api.precision(_rows(float32=1e-3, bfloat16=4e-3, int8=5e-4)).set_index("dtype")
    assert found["times"].to_dict() == {"float32": 1, "bfloat16": 4, "int8": 0.5}
    assert found["warning"].to_dict() == {
        "float32": "",
        "bfloat16": "slower than float32; the processor has no instructions for it",
        "int8": "",
    }
    shown = precision_table(found.reset_index())
    assert shown.title == "What precision buys here, 64x64x64"


def test_one_dtype_has_nothing_to_compare():
    assert not len(api.precision(_rows(float32=1e-3)))
