"""The ReFrame test in ``examples/reframe``, with ReFrame's local scheduler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "reframe"


@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("reframe"), reason="needs ReFrame (pip install ReFrame-HPC)")
def test_a_nodes_figures_stand_in_the_performance_log(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["reframe", "-c", str(EXAMPLE), "-S", "workload=64x64x64", "-r", "--prefix", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names, row = (line.split("|") for line in next(tmp_path.glob("perflogs/**/*.log")).read_text().splitlines())
    logged = dict(zip(names, row, strict=True))
    assert logged["result"] == "pass"
    assert float(logged["rate_value"]) > 0
    assert 0 < float(logged["roof_value"]) < 150
