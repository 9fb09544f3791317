import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from matmulbench.ladder import LADDER, Rung
from matmulbench.report.charts import ladder, rates, save_charts, training
from matmulbench.report.charts.style import MUTED, RC, styles
from matmulbench.report.queries import chart_name, matmul_speedup
from matmulbench.results.folder import Results, load_results
from matmulbench.workload import PRESETS, Workload

TWINS = ("work/before/kernel.py:matmul", "work/after/kernel.py:matmul")
QUICK = {
    "ladder-5x784x10", "ladder-64x784x50", "ladder-64x64x64", "ladder-256x256x256",
    "gflops-by-size", "roofline", "samples", "speedups",
    "end-to-end-digits", "step-digits", "loss-digits",
}  # fmt: skip


def write_charts(results: Results, folder: Path) -> list[Path]:
    """Save every chart; return the files."""
    return [folder / f"{chart.name}.{kind}" for chart in save_charts(results, folder) for kind in ("svg", "png")]


def test_every_chart_is_written_as_svg_and_png(quick: Results, tmp_path: Path) -> None:
    paths = write_charts(quick, tmp_path)
    assert {path.name for path in paths} == {f"{name}.{kind}" for name in QUICK for kind in ("svg", "png")}
    for path in paths:
        if path.suffix == ".svg":
            ElementTree.parse(path)
        assert path.stat().st_size > 1000


def test_of_a_models_many_products_the_largest_shapes_are_named(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", [], tasks=("digits",), kernels=("numpy", "torch"))
    for entry in run.journal:
        if "products" in entry:
            entry["products"] = [
                {
                    "which": "forward",
                    "layer": i,
                    "workload": f"4*{i // 2 + 1}x8x8",
                    "dtype": "float32",
                    "seconds": i + 1.0,
                }
                for i in range(20)
            ]
    [drawn] = [chart for chart in save_charts(run, tmp_path) if chart.name == "step-digits"]
    named = re.findall(r">(4\*\d+x8x8|other products|all else|forward 1)<", drawn.svg)
    assert named == [*(f"4*{size}x8x8" for size in range(10, 4, -1)), "other products", "all else"]


def test_a_charts_file_is_named_after_batch_and_factory(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 7, 9, "TN", batch=32)], tasks=(), kernels=("numpy", "torch"))
    assert "ladder-32x5x7x9-TN" in {chart.name for chart in save_charts(run, tmp_path)}
    assert chart_name("loss-nets/my.py:make", "float32", 1, run) == "loss-nets-my.py-make"


def test_the_same_results_give_the_same_svg(small: Results, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_charts(small, tmp_path / "a") if path.suffix == ".svg"]
    assert first == [path.read_bytes() for path in write_charts(small, tmp_path / "b") if path.suffix == ".svg"]


def test_no_label_is_clipped_and_no_two_overlap(small: Results) -> None:
    with rc_context(RC):
        for chart in (chart for room in (ladder, rates, training) for chart in room.draw(small)):
            figure = chart.figure
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            renderer = canvas.get_renderer()
            boxes: list[tuple[str, Bbox]] = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.texts]
            for axes in figure.axes:
                legend = axes.get_legend()
                texts = [
                    *axes.texts,
                    axes.xaxis.label,
                    axes.yaxis.label,
                    *(legend.get_texts() if legend else []),
                ]
                for axis in (axes.xaxis, axes.yaxis):
                    low, high = sorted(axis.get_view_interval())
                    texts += [
                        label
                        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
                        if low <= place <= high
                    ]
                boxes += [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]
            for text, box in boxes:
                inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
                assert inside, (chart.name, text, box)
            for i, (text, box) in enumerate(boxes):
                for other, beside in boxes[i + 1 :]:
                    assert not box.padded(-1).overlaps(beside.padded(-1)), (chart.name, text, other)


def test_each_chart_has_a_text_that_stands_for_it(quick: Results) -> None:
    with rc_context(RC):
        charts = {chart.name: chart for room in (ladder, rates, training) for chart in room.draw(quick)}
    assert "numpy 3.20 µs" in charts["ladder-5x784x10"].alt
    assert "FMA peak of 112 GFLOP/s" in charts["roofline"].alt
    assert all(chart.alt.endswith(".") for chart in charts.values())


def test_a_run_of_one_kernel_and_one_square_has_a_ladder_alone(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=(), kernels=("torch",), roof=False)
    assert {path.stem for path in write_charts(run, tmp_path)} == {"ladder-64x64x64", "samples"}


def test_where_no_roof_was_measured_no_panel_is_empty(make_run: Callable[..., Results], tmp_path: Path) -> None:
    squares = [Workload(64, 64, 64), Workload(256, 256, 256)]
    run = make_run(tmp_path / "run", squares, tasks=(), kernels=("numpy", "torch"), roof=False)
    run.measurements[["roof_gflops", "roof_percent"]] = None
    panels = {chart.name: len(chart.figure.axes) for chart in save_charts(run, tmp_path)}
    assert panels["ladder-64x64x64"] == panels["gflops-by-size"] == 1


def test_without_a_home_charts_are_drawn_without_a_word(small: Results, tmp_path: Path) -> None:
    script = f"from matmulbench.report import write_report; write_report({str(small.path)!r})"
    # A folder that nobody can make, whoever runs this.
    home = {"HOME": "/dev/null", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "MPLCONFIGDIR": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | home, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_an_empty_run_has_no_charts(make_run: Callable[..., Results], tmp_path: Path) -> None:
    assert write_charts(make_run(tmp_path / "run", [], tasks=(), kernels=()), tmp_path) == []


def test_a_run_in_which_nothing_worked_has_no_charts(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", PRESETS["quick"], tasks=("digits",))
    for table in ("measurements", "training"):
        run.tables[table]["status"] = "crashed"
    assert write_charts(run, tmp_path) == []


def test_several_thread_counts_have_charts_of_their_own(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=(), threads=(1, 2), kernels=("numpy", "torch"))
    names = {path.stem for path in write_charts(run, tmp_path)}
    assert names == {"ladder-64x64x64-t1", "ladder-64x64x64-t2", "samples", "roofline-t1", "roofline-t2"}


def test_the_users_kernels_are_coloured_and_the_ladder_is_muted_beside_them(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    alone = styles(make_run(tmp_path / "alone", [], tasks=(), kernels=("torch",)))
    beside = styles(make_run(tmp_path / "beside", [], tasks=(), kernels=("numpy", *TWINS, "torch")))
    assert list(beside)[:2] == list(TWINS)
    assert len({(each.colour, each.marker) for each in beside.values()}) == len(beside)
    assert {beside[kernel].colour for kernel in alone} == {MUTED}
    assert MUTED not in {each.colour for each in [*alone.values(), *map(beside.__getitem__, TWINS)]}
    assert {alone[kernel].marker == beside[kernel].marker for kernel in alone} == {True}


def test_a_ladder_with_more_rungs_than_colours_is_told_apart_by_markers(
    make_run: Callable[..., Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = tuple(Rung(f"rung-{i}", "torch_matmul", "") for i in range(4))
    for module in ("charts.style", "queries"):
        monkeypatch.setattr(f"matmulbench.report.{module}.LADDER", (*LADDER, *more))
    found = styles(make_run(tmp_path / "run", [], tasks=(), kernels=("torch",)))
    assert len({(each.colour, each.marker, str(each.line)) for each in found.values()}) == len(found) >= len(LADDER) + 4


def test_kernels_of_one_name_are_told_apart_in_every_chart(make_run: Callable[..., Results], tmp_path: Path) -> None:
    workloads = [Workload(64, 64, 64), Workload(256, 256, 256)]
    run = make_run(tmp_path / "run", workloads, tasks=("digits",), threads=(1, 2), kernels=("torch", *TWINS))
    with rc_context(RC):
        charts = {chart.name: chart.svg for room in (ladder, rates, training) for chart in room.draw(run)}
    assert len(charts) == 14
    for name, svg in charts.items():
        assert all(f">{label}</text>" in svg for label in ("before/kernel.py:matmul", "after/kernel.py:matmul")), name


def test_a_remark_claims_no_more_than_the_verdict(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=(), kernels=("einsum", "numpy", "torch"))
    table = run.measurements.set_index("kernel", drop=False)
    table.loc[["einsum", "numpy"], "speedup"] = [1.002, 1.3]
    table.loc[["einsum", "numpy"], "verdict"] = ["same", "unclear"]
    run.tables["measurements"] = table
    [svg] = [path.read_text() for path in write_charts(run, tmp_path) if path.name == "ladder-64x64x64.svg"]
    assert ">as fast</text>" in svg
    assert ">unclear</text>" in svg
    assert "faster" not in svg


def test_colours_of_the_heat_map_claim_no_more_than_the_verdict(
    make_run: Callable[..., Results], tmp_path: Path
) -> None:
    workloads = [Workload(64, 64, 64), Workload(256, 256, 256)]
    run = make_run(tmp_path / "run", workloads, tasks=(), kernels=("einsum", "numpy", "torch"))
    run.tables["measurements"]["verdict"] = "unclear"
    run.tables["measurements"]["speedup"] = 1.3
    with rc_context(RC):
        [chart] = [chart for chart in ladder.draw(run) if chart.name == "speedups"]
    assert min(min(patch.get_facecolor()) for patch in chart.figure.axes[0].patches) > 0.99, "not white"
    assert {text.get_text() for text in chart.figure.axes[0].texts} == {"unclear"}


def test_the_roofline_shows_the_best_kernel_and_the_users(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", [Workload(64, 64, 64)], tasks=(), kernels=("triple-loop", "numpy", "torch", TWINS[0])
    )
    with rc_context(RC):
        [chart] = [chart for chart in rates.draw(run) if chart.name == "roofline"]
    legend = chart.figure.axes[0].get_legend()
    assert legend
    levels = ["L1 480 GB/s, reading 400", "L2 180 GB/s, reading 150", "DRAM 24.0 GB/s, reading 20.0"]
    assert [text.get_text() for text in legend.get_texts()] == ["kernel.py:matmul", "numpy", *levels]
    ceilings = [line for line in chart.figure.axes[0].lines if line.get_label() in levels]
    for line, gbs in zip(ceilings, (480, 180, 24), strict=True):
        intensity, gflops = np.transpose(line.get_xydata())
        assert gflops == pytest.approx(gbs * intensity)
        assert gflops[-1] == pytest.approx(112), "up to the peak"


def test_a_roof_that_other_load_disturbed_is_not_drawn(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64), Workload(256, 256, 256)], tasks=(), kernels=("torch",))
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"fma_gflops"', '"disturbed": "other load: a lot", "fma_gflops"'))
    drawn = {chart.name: chart.alt for chart in rates.draw(load_results(run.path))}
    assert drawn.keys() == {"gflops-by-size"}


def test_a_decade_has_a_tick_and_the_axis_ends_at_decades(quick: Results) -> None:
    with rc_context(RC):
        chart = next(ladder.draw(quick))
        FigureCanvasAgg(chart.figure).draw()
    axes = chart.figure.axes[0]
    low, high = (round(math.log10(end)) for end in axes.get_xlim())
    ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert [round(math.log10(tick), 6) for tick in ticks] == list(range(low, high + 1))


def test_a_loss_is_shown_by_its_distance_from_the_reference(quick: Results) -> None:
    with rc_context(RC):
        [chart] = [chart for chart in training.draw(quick) if chart.name == "loss-digits"]
    curve = np.asarray(chart.figure.axes[0].lines[0].get_ydata(), float)
    losses = next(entry for entry in quick.journal if entry["table"] == "training")
    apart = np.abs(np.subtract(losses["losses"], losses["reference"]))
    assert curve[-1] == pytest.approx(apart.max())
    assert (np.diff(curve) >= 0).all()


@pytest.mark.parametrize("module", ["tables", "output", "splice", ""])
def test_only_the_charts_load_matplotlib_and_nothing_loads_torch(module: str) -> None:
    name = ".".join(filter(None, ["matmulbench.report", module]))
    code = f"import sys, {name}; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_speedup_of_products_is_the_one_that_amdahls_law_makes_the_prediction_of() -> None:
    reference = {"matmul_share": 0.2}
    assert matmul_speedup({"predicted_speedup": 1 / (0.8 + 0.2 / 4)}, reference) == pytest.approx(4)
    assert matmul_speedup({"predicted_speedup": 1.0}, reference) == pytest.approx(1)
    assert matmul_speedup({"predicted_speedup": 1.3}, reference) is None, "noise: it would take less than no time"
    assert matmul_speedup({"predicted_speedup": 1.0}, {"matmul_share": -22.6}) is None
