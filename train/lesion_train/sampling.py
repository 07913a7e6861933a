"""Sampling of an epoch: neither how common a class is nor where an image comes from may tell the class."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from lesion_train.sources import assign_source, lesion_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_train.run import Sample


def sampling_weights(
    samples: Sequence[Sample], source_exponent: float, diagnosis_exponent: float = 1
) -> NDArray[np.float64]:
    """Probability of each sample to be drawn; they sum to 1.

    In each source, every class is drawn equally often, and in a diagnosis every lesion, however often it is shown.

    Args:
        source_exponent: a source's share goes with its number of lesions to this power: below 1, a small one from
            another camera counts for more than its size.
        diagnosis_exponent: the same for diagnoses of a class in a source; 1 draws all lesions of a class alike.
    """
    sources, lesions = assign_source(samples), lesion_keys(samples)
    cells: dict[tuple[str, int, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (sample, source, lesion) in enumerate(zip(samples, sources, lesions, strict=True)):
        cells[source, sample.label, sample.diagnosis or ""][lesion].append(index)
    source_lesions: dict[str, int] = defaultdict(int)
    class_share: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for (source, label, _), groups in cells.items():
        source_lesions[source] += len(groups)
        class_share[source][label] += len(groups) ** diagnosis_exponent
    weights = np.zeros(len(samples))
    for (source, label, _), groups in cells.items():
        of_class = source_lesions[source] ** source_exponent / len(class_share[source])
        of_diagnosis = of_class * len(groups) ** diagnosis_exponent / class_share[source][label]
        for members in groups.values():
            weights[members] = of_diagnosis / len(groups) / len(members)
    return np.asarray(weights / weights.sum())
