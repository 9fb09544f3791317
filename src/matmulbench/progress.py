"""What the command is doing, on standard error: a bar in a terminal, else one plain line for each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from matmulbench.streams import tell


class Say(Protocol):
    """Hears what is about to be done, and about how many seconds that takes where it is known."""

    def __call__(self, text: str, seconds: float = 0.0, /) -> None:
        """Take note of the next step."""
        ...


@contextmanager
def progress(quiet: bool = False, total_s: float | None = None) -> Iterator[Say]:
    """Show step by step what is done, and with ``total_s`` about how long is left; warnings stay on the screen."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.text import Text

    console = Console(stderr=True)
    if quiet or not console.is_interactive:
        yield (lambda text, seconds=0.0: None) if quiet else tell
        return
    step_s, step_start = 0.0, monotonic()

    class Time(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text(f"{task.elapsed or 0:.0f} s")
            left = task.total - task.completed - min(monotonic() - step_start, step_s)
            return Text(f"about {max(left, 0):.0f} s left")

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), Time())
    # Twice a second: the bar must not take the processor from what is being timed.
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as bar:
        task = bar.add_task("start", total=total_s)

        def advance(text: str, seconds: float = 0.0, /) -> None:
            nonlocal step_s, step_start
            if text.startswith("warning: "):
                bar.console.print(text, markup=False, highlight=False)
                return
            bar.update(task, advance=step_s, description=text)
            step_s, step_start = seconds, monotonic()

        yield advance
