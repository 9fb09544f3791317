"""The report above several machines: kernel by machine, who wins where, and whether the order of kernels changes."""

from __future__ import annotations

from itertools import combinations

from matmulbench.report.formatting import NOTHING, count, known, percent, seconds, worded
from matmulbench.report.page import Section, page
from matmulbench.report.queries import Ladder, Row, in_order, labels, ladders, said_of
from matmulbench.report.table import Column, Table
from matmulbench.results.folder import FleetResults

ByMachine = dict[str, Ladder]


def render(results: FleetResults) -> str:
    """Return the page as HTML, with a link to each machine's own."""
    machines = []
    for name, run in results.machines.items():
        about = run.run["machine"]
        address = run.path.resolve().relative_to(results.path.resolve()).as_posix() + "/report.html"
        machines.append((name, address, f"{about['cpu']}, {about.get('cores', '?')} cores"))
    kernels = [_kernel_table(by, results.baseline) for by in by_workload(results).values()]
    sections = [
        Section("winners", "Who wins where", tables=[winners_table(results)]),
        Section("kernels", "Kernel by machine", tables=kernels),
        Section("differences", "What differs", tables=[differences_table(results)]),
    ]
    return page("fleet.html", "several machines", sections, sentences=sentences(results), machines=machines)


def by_workload(results: FleetResults) -> dict[str, ByMachine]:
    """Return for each workload, dtype and thread count its ladder on each machine that has times for it."""
    found: dict[str, ByMachine] = {}
    for name, run in results.machines.items():
        for ladder in ladders(run.measurements):
            if ladder.timed:
                found.setdefault(ladder.title, {})[name] = ladder
    return found


def sentences(results: FleetResults) -> list[str]:
    """Say on how many products the order of kernels changes from machine to machine, and how."""
    workloads, label = by_workload(results), labels(results.measurements["kernel"])
    moved = {title: changes for title, by in workloads.items() if (changes := order_changes(by, results.baseline))}
    machines = count(len(results.machines), "machine")
    if len(results.machines) == 1:
        return [f"{machines}: {', '.join(results.machines)}."]
    if not moved:
        return [f"{machines}: on no product does the order of kernels change, as far as the intervals tell."]
    found = [f"{machines}: the order of kernels changes on {len(moved)} of {count(len(workloads), 'product')}."]
    for title, changes in moved.items():
        one, other, here, there = changes[0]
        more = f", and {count(len(changes) - 1, 'other pair')}" if changes[1:] else ""
        found.append(f"{title}: {label[one]} is before {label[other]} on {here}, behind it on {there}{more}.")
    return found


def order_changes(by: ByMachine, baseline: str) -> list[tuple[str, str, str, str]]:
    """List pairs of kernels with a machine on which the first is clearly faster, and one on which the second is.

    Clearly: their 95 % intervals have nothing in common.
    """
    intervals = {name: _intervals(ladder, baseline) for name, ladder in by.items()}

    def before(one: str, other: str) -> list[str]:
        return [name for name, of in intervals.items() if {one, other} <= of.keys() and of[one][1] < of[other][0]]

    pairs = combinations(in_order(kernel for of in intervals.values() for kernel in of), 2)
    return [
        (one, other, here[0], there[0])
        for one, other in pairs
        if (here := before(one, other)) and (there := before(other, one))
    ]


def winners_table(results: FleetResults) -> Table:
    """Return the fastest kernel of each product on each machine, with those that are not clearly slower."""
    label, baseline, rows = labels(results.measurements["kernel"]), results.baseline, []
    workloads = by_workload(results)
    settings = {title.partition(" · ")[2] for title in workloads}
    for title, by in workloads.items():
        row: Row = {"product": title if len(settings) > 1 else title.partition(" · ")[0]}
        for name, ladder in by.items():
            best = min(ladder.timed, key=lambda each: each["median_s"])
            intervals = _intervals(ladder, baseline)
            mine = intervals.get(best["kernel"])
            near = [one for one, span in intervals.items() if mine and one != best["kernel"] and span[0] <= mine[1]]
            row[name] = " or ".join([label[best["kernel"]], *(label[each] for each in near)])
        changes = order_changes(by, baseline)
        if len(results.machines) > 1:
            row["order"] = f"changes ({len(changes)})" if changes else "the same"
        rows.append(row)
    columns = [
        Column("product", "product"),
        *(Column(name, name) for name in results.machines),
        Column("order", "order"),
    ]
    order = ("order: the pairs of kernels that clearly change places",) if len(results.machines) > 1 else ()
    notes = ("or: their 95 % intervals overlap", *order)
    title = ", ".join(["The fastest kernel", *(settings if len(settings) == 1 else ())])
    return Table(title, columns, rows, notes)


def differences_table(results: FleetResults) -> Table:
    """Return what of machine and library versions is not the same everywhere."""
    facts: dict[str, dict[str, str]] = {}
    for name, run in results.machines.items():
        for part in ("machine", "versions"):
            for fact, value in run.run[part].items():
                facts.setdefault(fact.replace("_", " "), {})[name] = str(value)
    names = list(results.machines)
    rows = [{"fact": fact, **of} for fact, of in facts.items() if len({of.get(name) for name in names}) > 1]
    return Table("Machines and versions", [Column("", "fact"), *(Column(name, name) for name in names)], rows)


def _kernel_table(by: ByMachine, baseline: str) -> Table:
    kernels = in_order(row["kernel"] for ladder in by.values() for row in ladder.rows)
    label = labels([*kernels, baseline])
    rows: dict[str, Row] = {kernel: {"label": label[kernel]} for kernel in kernels}
    for name, ladder in by.items():
        for row in ladder.rows:
            rows[row["kernel"]] |= {name: row["median_s"], f"{name}, said": _figures(row, baseline)}
    columns = [Column(name, name, worded, f"{name}, said") for name in by]
    note = f"time, % of that machine's roof, against {label[baseline]}"
    return Table(next(iter(by.values())).title, [Column("kernel", "label"), *columns], list(rows.values()), (note,))


def _figures(row: Row, baseline: str) -> str:
    said = said_of(row, baseline)
    if not known(row["median_s"]):
        return said
    figures = seconds(row["median_s"], row["extrapolated"]), percent(row["roof_percent"], of=100), said
    return ", ".join(each for each in figures if each != NOTHING)


def _intervals(ladder: Ladder, baseline: str) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each kernel's time, in units of the baseline's: paired, so that drift is out of it.

    Where the baseline has no time, in seconds.
    """
    found = {}
    for row in ladder.timed:
        paired = ladder.row(baseline) is not None
        low, high = (
            known(row[key]) for key in (("speedup_ci_low", "speedup_ci_high") if paired else ("ci_low_s", "ci_high_s"))
        )
        if paired and row["kernel"] == baseline:
            found[row["kernel"]] = (1.0, 1.0)
        elif low and high:
            found[row["kernel"]] = (1 / high, 1 / low) if paired else (low, high)
    return found
