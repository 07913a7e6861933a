"""Sampling of an epoch: neither how common a class is nor where an image comes from may tell the class."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_train.run import Sample


def sampling_weights(samples: Sequence[Sample], source_exponent: float) -> NDArray[np.float64]:
    """Probability of each sample to be drawn; they sum to 1.

    In each source, every class is drawn equally often, and in a class every lesion, however many images show it.

    Args:
        source_exponent: a source's share goes with its number of lesions to this power: below 1, a small one from
            another camera counts for more than its size.
    """
    sources = assign_source(samples)
    lesions: dict[str, dict[int, dict[str, list[int]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for index, (sample, source) in enumerate(zip(samples, sources, strict=True)):
        lesions[source][sample.label][_lesion(sample, index)].append(index)
    weights = np.zeros(len(samples))
    for classes in lesions.values():
        share = sum(map(len, classes.values())) ** source_exponent / len(classes)
        for groups in classes.values():
            for members in groups.values():
                weights[members] = share / len(groups) / len(members)
    return np.asarray(weights / weights.sum())


def assign_source(samples: Sequence[Sample]) -> list[str]:
    """Source that each sample counts for.

    A lesion that several sources show counts for the largest of them. A source without lesions of some class
    counts for the smallest that has all: alone, it would teach that its camera means one class.
    """
    sizes = Counter(sample.source or "" for sample in samples)
    keys = [_lesion(sample, index) for index, sample in enumerate(samples)]
    home: dict[str, str] = {}
    for key, sample in zip(keys, samples, strict=True):
        source = sample.source or ""
        home[key] = max(home.get(key, source), source, key=lambda name: (sizes[name], name))
    lesions = Counter(home.values())
    classes: dict[str, set[int]] = defaultdict(set)
    for key, sample in zip(keys, samples, strict=True):
        classes[home[key]].add(sample.label)
    count = len({sample.label for sample in samples})
    complete = [name for name in classes if len(classes[name]) == count]
    smallest = min(complete, key=lambda name: (lesions[name], name), default="")
    return [home[key] if not complete or home[key] in complete else smallest for key in keys]


def _lesion(sample: Sample, index: int) -> str:
    return sample.group or f"\0{index}"
