"""Bootstrap intervals: how far a figure would move with other images of the same kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RESAMPLES = 1000
SMALLEST_CLASS = 20
"""Lesions that each class needs; below it an interval would say more than is known."""


def interval(
    statistic: Callable[[NDArray[np.int64]], Any],
    truth: NDArray[np.int64],
    lesions: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Any:
    """95 % interval of a statistic, from lesions drawn again with replacement within each class.

    Args:
        statistic: takes indices of images; gives a number, or a list of them.
        truth: (N,) class indices.
        lesions: (N,) numbers of the lesions; the images of one come together, since they are no more independent
            than that. None: each image is a lesion of its own.

    Returns:
        `[low, high]`, or a list of them for a list; None where a class has fewer than `SMALLEST_CLASS` lesions.
    """
    classes = _images_by_lesion(truth, np.arange(len(truth)) if lesions is None else lesions)
    if len(classes) < 2 or min(map(len, classes)) < SMALLEST_CLASS:
        return None
    rng = np.random.default_rng(seed)

    def draw() -> NDArray[np.int64]:
        return np.concatenate([found[i] for found in classes for i in rng.integers(len(found), size=len(found))])

    values = np.array([statistic(draw()) for _ in range(RESAMPLES)], float)
    bounds = np.nanpercentile(values, (2.5, 97.5), axis=0).T
    return bounds.tolist()


def _images_by_lesion(truth: NDArray[np.int64], lesions: NDArray[np.int64]) -> list[list[NDArray[np.int64]]]:
    """For each class, the indices of the images of each lesion."""
    classes = []
    for label in np.unique(truth):
        images = np.flatnonzero(truth == label)
        images = images[np.argsort(lesions[images], kind="stable")]
        _, starts = np.unique(lesions[images], return_index=True)
        classes.append(np.split(images, starts[1:]))
    return classes
