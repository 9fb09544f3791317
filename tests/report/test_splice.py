import re
from dataclasses import replace
from pathlib import Path

import pytest

from matmulbench.errors import UsageError
from matmulbench.report import write_report
from matmulbench.report.splice import BEGIN, END, splice
from matmulbench.results.folder import Results


def test_the_ladder_goes_between_the_marks_once(quick: Results) -> None:
    readme = quick.path.parent / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert splice(readme, quick)
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "| triple-loop |" in text
    assert "`matmulbench report run --splice README.md`" in text
    assert not splice(readme, quick)
    assert readme.read_text() == text


def test_the_ends_of_lines_stay_as_they_are(quick: Results) -> None:
    readme = quick.path.parent / "README.md"
    readme.write_bytes(f"before\r\n{BEGIN}\r\nold\r\n{END}\r\nafter\r\n".encode())
    assert splice(readme, quick)
    text = readme.read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n") > 10
    assert not splice(readme, quick)


def test_the_chart_that_is_named_exists(small: Results) -> None:
    write_report(small.path)
    readme = small.path.parent / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    splice(readme, small)
    chart = re.search(r"\]\((.*?\.svg)\)", readme.read_text())
    assert chart
    assert (readme.parent / chart[1]).is_file()


def test_a_folder_with_a_space_is_quoted(quick: Results) -> None:
    there = quick.path.rename(quick.path.with_name("run (2)"))
    readme = there.parent / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    splice(readme, replace(quick, path=there))
    assert "(run%20%282%29/charts/" in readme.read_text()
    assert "`matmulbench report 'run (2)' --splice README.md`" in readme.read_text()


def test_a_file_that_is_no_text_is_named(quick: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes(f"caf\xe9\n{BEGIN}\n{END}\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"README\.md: it is not UTF-8"):
        splice(readme, quick)


@pytest.mark.parametrize(
    "text",
    ["", BEGIN, END, f"{END}\n{BEGIN}", f"`{BEGIN}`\nmine\n{BEGIN}\n{END}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"],
)
def test_missing_marks_are_named_with_the_file(quick: Results, tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(readme))):
        splice(readme, quick)
    assert readme.read_text() == text


def test_an_absent_file_is_named(quick: Results, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.md"):
        splice(tmp_path / "absent.md", quick)
