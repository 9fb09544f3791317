"""Write a run's ladder into a README, between two marks, so that its figures are never typed by hand."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from matmulbench.errors import UsageError
from matmulbench.isolation.system import quoted
from matmulbench.report.queries import ladder_chart, ladders
from matmulbench.report.tables import ladder_table
from matmulbench.results.folder import Results

BEGIN, END = "<!-- matmulbench:begin -->", "<!-- matmulbench:end -->"


def splice(readme: Path, results: Results) -> bool:
    """Put the ladder and its chart between the marks of ``readme``.

    Returns
    -------
    bool
        whether the file changed.

    Raises
    ------
    UsageError
        if the file cannot be read or lacks the marks.
    """
    try:
        text = readme.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"file {readme}: {getattr(error, 'strerror', f'it is not UTF-8: {error}')}") from None
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or (text.count(BEGIN), text.count(END)) != (1, 1):
        raise UsageError(f"file {readme}: expected one line {BEGIN} and, below it, one line {END}")
    ends = "\r\n" if "\r\n" in text else "\n"
    block = f"\n{_block(readme, results)}\n".replace("\n", ends)
    spliced = f"{before}{BEGIN}{block}{END}{after}"
    if spliced == text:
        return False
    readme.write_bytes(spliced.encode())
    return True


def _block(readme: Path, results: Results) -> str:
    folder = Path(os.path.relpath(results.path.resolve(), readme.resolve().parent)).as_posix()
    pictured = f"{quote(folder)}/charts"
    table = ladder_table(results).brief()
    found = [ladder for ladder in ladders(results.measurements) if ladder.timed]
    pictures = [
        f"![Time of one product, {each.title}]({pictured}/{ladder_chart(each, results)}.svg)" for each in found[:1]
    ]
    machine, versions = results.run["machine"], results.run["versions"]
    openblas = f" (OpenBLAS {versions['openblas']})" if "openblas" in versions else ""
    parts = [
        *pictures,
        f"{table.title}, on {machine['cores']} cores of {machine['cpu']}; torch {versions['torch']}, "
        f"numpy {versions['numpy']}{openblas}.",
        table.markdown(),
        *(f"{note}." for note in table.notes),
        f"Made by `matmulbench report {quoted(folder)} --splice {quoted(readme.name)}`.",
    ]
    return "\n\n".join(parts)
