"""The parent's side of a training: children run it, and a kernel that takes its child down loses only its row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matmulbench.errors import UsageError
from matmulbench.isolation import Host
from matmulbench.results.schema import Status, TrainingRow
from matmulbench.training.tasks import find_task

_SILENCE = 30.0  # seconds, at least, before a child that says nothing is taken for dead


def train_kernels(
    host: Host,
    task: str,
    specs: Sequence[str],
    baseline: str = "torch",
    budget_s: float = 20.0,
    seed: int = 0,
    data_dir: str | None = None,
    on_progress: Callable[[str], None] = lambda kernel: None,
    **options: Any,
) -> list[tuple[TrainingRow, dict[str, Any]]]:
    """Train ``task`` with each kernel in a child of ``host`` and return a row, and more about it, for each.

    Parameters
    ----------
    task, options
        as :func:`~matmulbench.training.tasks.find_task` takes them; or, with a colon in it, a model of one's own
        and its ``lr``, as :func:`~matmulbench.training.own_model.load_model` does.
    specs, baseline
        kernels, and the one that speedups are quoted against, which takes part in any case.
    budget_s
        seconds that it may take, about, when no kernel crashes.
    on_progress
        hears the name of each kernel whose turn it is.

    Returns
    -------
    The rows of the baseline if it was not named, of each kernel in the order given, and of ``torch.nn``; with each,
    what :func:`~matmulbench.training.accounting.train_task` returns beside it.

    Raises
    ------
    UsageError
        if task, model or option cannot be used, or the data cannot be read.
    """
    if ":" not in task:
        find_task(task, **options)
    everyone = list(dict.fromkeys(specs if baseline in specs else [baseline, *specs]))
    left = list(everyone)
    lost: dict[str, tuple[TrainingRow, dict[str, Any]]] = {}
    while True:
        said: dict[str, str] = {}

        def listen(message: tuple[str, str], said: dict[str, str] = said) -> None:
            kind, content = message
            said[kind] = content
            if kind == "kernel":
                on_progress(content)

        outcome = host.call(
            "matmulbench.training.accounting:train_task",
            task, left, baseline, budget_s, seed, data_dir, options,
            silence_limit=max(_SILENCE, budget_s),
            listen=listen,
        )  # fmt: skip
        if "refused" in said:
            raise UsageError(said["refused"])
        if outcome.status is Status.OK:
            found = {row["kernel"]: (TrainingRow(**row), extra) for row, extra in outcome.value}
            break
        guilty = said.get("kernel")
        if guilty not in left:  # nobody's fault: whatever it is, it will be the same again
            found = {spec: (_lost(task, spec, outcome.status, outcome.reason), {}) for spec in left}
            break
        left.remove(guilty)
        lost[guilty] = (_lost(task, guilty, outcome.status, outcome.reason), {})
    results = [(found | lost)[spec] for spec in everyone]
    results += [pair for spec, pair in found.items() if spec not in everyone]
    for row, _ in results:
        row.threads = host.threads
    return results


def _lost(task: str, spec: str, status: Status, reason: str | None) -> TrainingRow:
    return TrainingRow(task, spec, 0, status=status, reason=reason)
