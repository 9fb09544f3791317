"""The page on the architecture: its picture fits the imports, and what it names is there."""

import re
import runpy
from graphlib import CycleError
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
SVG = "{http://www.w3.org/2000/svg}"
house = runpy.run_path(str(ROOT / "docs" / "house.py"))


def shown(svg: str) -> tuple[set[str], set[str]]:
    """Return the rooms and the arrows of a picture."""
    tree = ElementTree.fromstring(svg)
    rooms = {span.text for span in tree.iter(f"{SVG}tspan") if span.get("class") == "room"}
    return rooms, {path.get("data-import") for path in tree.iter(f"{SVG}path")} - {None}


def test_the_picture_shows_the_rooms_and_imports_that_there_are():
    imports, _ = house["read"]()
    arrows = {f"{upper} {lower}" for upper, below in house["reduced"](imports).items() for lower in below}
    assert shown(house["PICTURE"].read_text("utf-8")) == (set(imports), arrows), "python docs/house.py draws it anew"


def test_imports_are_found_wherever_they_stand(tmp_path):
    (tmp_path / "cellar").mkdir()
    (tmp_path / "cellar" / "__init__.py").write_text('"""Deep below. And dark."""\n')
    (tmp_path / "roof.py").write_text("def f():\n    import matmulbench.cellar\n")
    (tmp_path / "attic.py").write_text("from matmulbench import cellar, roof\nfrom matmulbench.attic import f\n")
    imports, said = house["read"](tmp_path)
    assert imports == {"attic": {"cellar", "roof"}, "cellar": set(), "roof": {"cellar"}}
    assert said["cellar"] == "Deep below."
    assert shown(house["draw"](imports, said)) == ({"attic", "cellar", "roof"}, {"attic roof", "roof cellar"})


def test_a_circle_is_not_drawn():
    with pytest.raises(CycleError):
        house["reduced"]({"one": {"other"}, "other": {"one"}})


def test_the_files_to_read_first_are_there_and_take_an_hour():
    named = re.findall(r"^\d+\. `([\w/]+\.py)`", PAGE.read_text("utf-8"), re.MULTILINE)
    order = [house["SOURCE"] / name for name in named]
    assert not [str(path) for path in order if not path.is_file()]
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in order)
    assert len(order) > 8
    assert lines <= 1_700, lines
