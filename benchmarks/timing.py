"""Times of several functions taken in turns, and Markdown tables: what the benchmarks share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def time_in_turns(
    functions: Mapping[str, Callable[[int], object]], rounds: int, warm_up: int = 5
) -> dict[str, list[float]]:
    """Time each function once a round, so that a slow moment of the machine hits all of them.

    Args:
        functions: name to function; it takes the number of the round, which is negative while warming up.
        rounds: how many are counted.
        warm_up: how many go before.

    Returns:
        Name to milliseconds, (rounds,).
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in functions}
    for index in range(-warm_up, rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function(index)
            if index >= 0:
                milliseconds[name].append((time.perf_counter() - start) * 1000)
    return milliseconds


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown table; numbers are to be formatted already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
