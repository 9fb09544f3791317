"""The ReFrame test in ``examples/reframe``, with ReFrame's local scheduler."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "reframe"
# Beside this interpreter, as a rule: `make test` runs pytest without activating the environment.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("reframe", path=PATH), reason="needs ReFrame (pip install reframe-hpc)")
def test_a_nodes_figures_stand_in_the_performance_log(tmp_path: Path, brief_bin: Path) -> None:
    command = ["reframe", "-c", str(EXAMPLE), "-S", "workload=64x64x64", "-r", "--prefix", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{brief_bin}{os.pathsep}{PATH}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names, row = (line.split("|") for line in next(tmp_path.glob("perflogs/**/*.log")).read_text().splitlines())
    logged = dict(zip(names, row, strict=True))
    assert logged["result"] == "pass"
    assert float(logged["rate_value"]) > 0
    rows = csv.DictReader(next(tmp_path.glob("output/**/measurements.csv")).read_text().splitlines())
    row = next(row for row in rows if row["kernel"] == "numpy")
    roof = row["roof_percent"]  # empty where other programs disturbed the roof's measurement: then there is no figure
    assert logged.get("roof_value", "") == (str(float(roof)) if roof else "")
