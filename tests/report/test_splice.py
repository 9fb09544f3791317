import re
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


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}"])
def test_missing_marks_are_named_with_the_file(quick: Results, tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(readme))):
        splice(readme, quick)
    assert readme.read_text() == text


def test_an_absent_file_is_named(quick: Results, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.md"):
        splice(tmp_path / "absent.md", quick)
