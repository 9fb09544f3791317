"""Draw the rooms of the source and how they import each other: ``python docs/house.py`` writes the picture.

A room is a package or a file at the top of ``src/matmulbench``; its text is the first sentence of its docstring. An
arrow is an import, left out where a way of other arrows says the same. Rows are as deep as the longest way to them.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

SOURCE = Path(__file__).parents[1] / "src" / "matmulbench"
PICTURE = Path(__file__).parent / "explanation" / "house.svg"
_BOX, _LANE, _GAP, _HEIGHT, _ROW, _MARGIN = 198, 10, 12, 84, 120, 8  # pixels
Graph = dict[str, set[str]]


def imported(tree: ast.Module) -> set[str]:
    """Return what a file imports of the package, also inside functions and for types alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names |= {f"{package}{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("matmulbench.")}


def read(source: Path = SOURCE) -> tuple[Graph, dict[str, str]]:
    """Return which rooms each room imports, and what each says it is."""
    imports: Graph = defaultdict(set)
    said = {}
    for path in sorted(source.rglob("*.py")):
        room, *inside = path.relative_to(source).with_suffix("").parts
        if room.startswith("__"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        if inside in ([], ["__init__"]):
            said[room] = re.split(r"(?<=\.)\s", ast.get_docstring(tree) or "")[0].replace("`", "")
        imports[room] |= {name.split(".")[1] for name in imported(tree)} - {room}
    return {room: imports[room] & said.keys() for room in said}, said


def reduced(imports: Graph) -> Graph:
    """Return the imports without those that a longer way implies.

    Raises
    ------
    graphlib.CycleError
        if rooms import each other in a circle.
    """
    reached: Graph = {}
    for room in TopologicalSorter(imports).static_order():  # from the ground up
        reached[room] = imports[room].union(*(reached[other] for other in imports[room]))
    return {room: {x for x in below if not any(x in reached[y] for y in below)} for room, below in imports.items()}


def _storeys(arrows: Graph) -> dict[str, int]:
    """Return the row of each room: above all that it imports, and near to what imports it where more rooms do."""
    storey: dict[str, int] = {}
    order = list(TopologicalSorter(arrows).static_order())
    for room in order:
        storey[room] = 1 + max((storey[other] for other in arrows[room]), default=-1)
    for room in reversed(order):
        above = [storey[other] for other in arrows if room in arrows[other]]
        if len(above) > len(arrows[room]):
            storey[room] = min(above) - 1
    return storey


def _placed(arrows: Graph) -> tuple[dict[str, tuple[float, int]], dict[tuple[str, str], list[str]]]:
    """Return the middle and the row of rooms, and of the lanes in which long arrows pass rows; and each arrow's way."""
    storey = _storeys(arrows)
    rows: dict[int, list[str]] = defaultdict(list)
    for room in arrows:
        rows[storey[room]].append(room)
    ways = {}
    for upper, below in arrows.items():
        for lower in sorted(below):
            between = range(storey[upper] - 1, storey[lower], -1)
            ways[upper, lower] = [upper, *(f"{upper} {lower} {row}" for row in between), lower]
            for row in between:
                rows[row].append(f"{upper} {lower} {row}")
    joined = defaultdict(list)
    for way in ways.values():
        for one, other in pairwise(way):
            joined[one].append(other)
            joined[other].append(one)
    place: dict[str, tuple[float, int]] = {}
    for _ in range(24):  # each is drawn towards the middle of what it is joined with, as Sugiyama, Tagawa & Toda do
        for row, names in rows.items():
            near = {
                name: [place[other][0] for other in joined[name] if other in place] or [place.get(name, (0, 0))[0]]
                for name in names
            }
            names.sort(key=lambda name: sum(near[name]) / len(near[name]))
            widths = [_LANE if " " in name else _BOX for name in names]
            x = -(sum(widths) + _GAP * (len(names) - 1)) / 2
            for name, width in zip(names, widths, strict=True):
                place[name] = x + width / 2, row
                x += width + _GAP
    return place, ways


def draw(imports: Graph, said: dict[str, str]) -> str:
    """Return the picture as SVG; each arrow has the two rooms as its ``data-import``."""
    place, ways = _placed(reduced(imports))
    top = max(row for _, row in place.values())
    half = max(abs(x) for x, _ in place.values()) + _BOX / 2 + _MARGIN
    size = f"{2 * half:.0f} {(top + 1) * _ROW - (_ROW - _HEIGHT) + 2 * _MARGIN:.0f}"

    def corner(name: str) -> tuple[float, float]:
        x, row = place[name]
        return x + half, (top - row) * _ROW + _MARGIN

    parts = []
    for (upper, lower), way in ways.items():
        x, y = corner(upper)
        path = f"M{x:.0f} {y + _HEIGHT:.0f}"
        for name in way[1:]:
            x_next, y_next = corner(name)
            middle = y + _HEIGHT + (_ROW - _HEIGHT) / 2
            path += f"C{x:.0f} {middle:.0f} {x_next:.0f} {middle:.0f} {x_next:.0f} {y_next:.0f}"
            path += "" if name == lower else f"v{_HEIGHT}"
            x, y = x_next, y_next
        parts.append(f'<path data-import="{upper} {lower}" d="{path}" marker-end="url(#end)"/>')
    for room in imports:
        x, y = corner(room)
        lines = textwrap.wrap(said[room], 31)
        text = "".join(f'<tspan x="{x:.0f}" dy="15">{escape(line)}</tspan>' for line in lines)
        parts.append(f'<rect x="{x - _BOX / 2:.0f}" y="{y:.0f}" width="{_BOX}" height="{_HEIGHT}" rx="4"/>')
        parts.append(f'<text x="{x:.0f}" y="{y + 17:.0f}"><tspan class="room">{room}</tspan>{text}</text>')
    drawing = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">\n'
        "<title>The rooms of the source: each imports only from those below it</title>\n"
        "<style>text{font:12px sans-serif;text-anchor:middle;fill:#444}.room{font:bold 15px monospace;fill:#111}"
        "path{fill:none;stroke:#888;stroke-width:1.3}rect{fill:#eef3f8;stroke:#7a93ab}</style>\n"
        '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#888;stroke:none"/></marker>\n'
        f'<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>\n{drawing}\n</svg>\n'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(*read()), "utf-8")
