"""A progress bar with rate and time left, on standard error and only where a person is watching."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress_bar(description: str, total: int | Callable[[], int] | None) -> Iterator[Callable[[int], None]]:
    """Show how far a slow part has come; yields a function that takes the steps just finished.

    Args:
        description: what is being done.
        total: number of steps, None where nobody knows, or a function that counts them while the bar runs.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn

    class RateColumn(TextColumn):
        def __init__(self) -> None:
            super().__init__("")

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f}/s")

    from rich.text import Text

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn()
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), redirect_stdout=False, transient=True
    ) as bar:
        task = bar.add_task(description, total=None if callable(total) else total)
        if callable(total):
            import threading

            threading.Thread(target=lambda: bar.update(task, total=total()), daemon=True).start()
        yield lambda steps: bar.advance(task, steps)
