"""What the command is doing, on standard error: a bar in a terminal, else one plain line for each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from matmulbench.streams import log


@contextmanager
def show_progress(quiet: bool = False, total_s: float | None = None) -> Iterator[Callable[..., None]]:
    """Yield a function that shows what is done next, and takes about how many seconds that takes, where it is known.

    With ``total_s`` the bar shows about how long is left. Texts that begin with ``warning:`` stay on the screen.
    """
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_interactive:
        yield (lambda text, seconds=0.0: None) if quiet else log
        return
    step_s, shown = 0.0, set[str]()
    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TimeRemainingColumn() if total_s else rich.TimeElapsedColumn(),
    )
    # Twice a second: the bar must not take the processor from what is being timed.
    with rich.Progress(
        *columns, console=console, refresh_per_second=2, transient=True, speed_estimate_period=3600
    ) as bar:
        task = bar.add_task("start", total=total_s)

        def advance(text: str, seconds: float = 0.0, /) -> None:
            nonlocal step_s
            if text.startswith("warning: "):
                if text in shown:
                    return
                shown.add(text)
                bar.console.print(text, markup=False, highlight=False)
                return
            bar.update(task, advance=step_s, description=text)
            step_s = seconds

        yield advance
