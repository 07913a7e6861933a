"""Chooses what an epoch sees: the classes evenly, in every collection, each lesion as often as the next."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_train.dataset import Sample


def draw_weights(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Probability of each sample to be drawn; they sum to 1.

    Each class is drawn equally often. Inside a class the share of a source goes with the square root of its
    lesions, so that a small collection from another camera counts.
    A lesion counts once, however many pictures show it.
    """
    lesions: dict[tuple[int, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, sample in enumerate(samples):
        stratum = lesions[sample.label, sample.source or ""]
        stratum[sample.group or f"\0{index}"].append(index)
    weights = np.zeros(len(samples))
    for groups in lesions.values():
        for members in groups.values():
            weights[members] = len(groups) ** -0.5 / len(members)
    labels = np.array([sample.label for sample in samples])
    totals = np.bincount(labels, weights)
    return np.asarray(weights / totals[labels] / np.count_nonzero(totals))
