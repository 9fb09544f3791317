import os
import platform
import subprocess
import sys

import pytest

from matmulbench.results.machine import describe_machine


def test_a_farther_cache_is_larger() -> None:
    machine = describe_machine()
    l2, l3 = machine["l2_cache"], machine["l3_cache"]
    assert l2 is None or l2 >= 2**16
    assert l2 is None or l3 is None or l3 > l2


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Haswell is an x86 processor")
def test_the_processor_that_openblas_has_in_mind_is_named() -> None:
    code = "from matmulbench.results.machine import library_versions; print(library_versions().get('openblas'))"
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if done.stdout.strip() == "None":
        pytest.skip("this numpy has another BLAS")
    assert done.stdout.strip().endswith(", kernels for Haswell")
