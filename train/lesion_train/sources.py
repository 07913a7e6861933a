"""Source (camera, clinic, collection) of each sample, and sources that would teach the camera, not the lesion."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_train.dataset import Dataset
    from lesion_train.run import Sample


def assign_source(samples: Sequence[Sample]) -> list[str]:
    """Source that each sample counts for: a lesion that several sources show counts for the largest of them."""
    sizes = Counter(sample.source or "" for sample in samples)
    keys = lesion_keys(samples)
    assigned: dict[str, str] = {}
    for key, sample in zip(keys, samples, strict=True):
        source = sample.source or ""
        assigned[key] = max(assigned.get(key, source), source, key=lambda name: (sizes[name], name))
    return [assigned[key] for key in keys]


def lesion_keys(samples: Sequence[Sample]) -> list[str]:
    """Name of each sample's lesion: its group, or a name of its own."""
    return [sample.group or f"\0{index}" for index, sample in enumerate(samples)]


def drop_single_class_sources(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """Leave out sources that, after lesions are assigned, show one class only: their camera would mean that class.

    Returns:
        The data set without them, and one sentence for each of them.

    Raises:
        LesionEdgeError: nothing of some class would remain.
    """
    sources = assign_source([*dataset.train, *dataset.validation])
    classes: dict[str, set[int]] = defaultdict(set)
    for source, sample in zip(sources, [*dataset.train, *dataset.validation], strict=True):
        classes[source].add(sample.label)
    dropped = sorted(source for source in classes if len(classes[source]) == 1)
    if not dropped:
        return dataset, []
    boundary = len(dataset.train)
    train = [s for s, source in zip(dataset.train, sources[:boundary], strict=True) if source not in dropped]
    validation = [
        s for s, source in zip(dataset.validation, sources[boundary:], strict=True) if source not in dropped
    ]
    for split in (train, validation):
        if {sample.label for sample in split} != set(range(len(dataset.class_names))):
            raise LesionEdgeError(
                f"sources of one class only ({', '.join(dropped)}) would teach the camera, and without them a "
                "class is missing: add images of their other class, or --set keep_single_class_sources=true"
            )
    counts = Counter(sources)
    sentences = [
        f"source '{name}' is left out: its {counts[name]} images of lesions that no larger source shows are all "
        f"'{dataset.class_names[min(classes[name])]}', so that its camera would come to mean that class "
        "(--set keep_single_class_sources=true keeps it)"
        for name in dropped
    ]
    return replace(dataset, train=train, validation=validation), sentences


def one_image_per_lesion(samples: Sequence[Sample]) -> list[Sample]:
    """First image of each lesion (of each class, where a group is a patient), in the given order."""
    first: dict[tuple[str, int], Sample] = {}
    for key, sample in zip(lesion_keys(samples), samples, strict=True):
        first.setdefault((key, sample.label), sample)
    return list(first.values())


def choose_evenly(samples: Sequence[Sample], per_class: int, seed: int) -> NDArray[np.int64]:
    """Sorted indices of at most `per_class` random samples of each class of each source."""
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, (source, sample) in enumerate(zip(assign_source(samples), samples, strict=True)):
        cells[source, sample.label].append(index)
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(cells[cell])[:per_class] for cell in sorted(cells)]))
