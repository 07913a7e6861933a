"""Bootstrap intervals: how far a figure would move with other images of the same kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RESAMPLES = 1000
SMALLEST_CLASS = 20
"""Images that each class needs; below it an interval would say more than is known."""


def interval(statistic: Callable[[NDArray[np.int64]], Any], truth: NDArray[np.int64], seed: int = 0) -> Any:
    """95 % interval of a statistic, from images drawn again with replacement within each class.

    Args:
        statistic: takes indices (N,) of images; gives a number, or a list of them.
        truth: (N,) class indices.

    Returns:
        `[low, high]`, or a list of them for a list; None where a class has fewer than `SMALLEST_CLASS` images.
    """
    members = [np.flatnonzero(truth == label) for label in np.unique(truth)]
    if len(members) < 2 or min(map(len, members)) < SMALLEST_CLASS:
        return None
    rng = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(np.concatenate([rng.choice(group, len(group)) for group in members]))
            for _ in range(RESAMPLES)
        ],
        float,
    )
    bounds = np.nanpercentile(values, (2.5, 97.5), axis=0).T
    return bounds.tolist()
