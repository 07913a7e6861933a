"""Linear probes: what the network's last features tell about an image's source, beside its class.

Features that tell the source well let its camera stand for a class (Alain and Bengio 2016, arXiv:1610.01644).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_train.features import predict_batches
from lesion_train.model import feature_extractor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_train.recipe import TrainingResult

MAX_IMAGES = 2000
"""Validation images that are probed at most, drawn at random: more take minutes and change the second decimal."""
FOLDS = 5
"""Of the cross-validation; a target with fewer lesions is not probed."""
REGULARISATION = 0.01
"""Inverse strength, scikit-learn's `C`: there are about as many features as images."""


def probe_sources(trained: TrainingResult) -> dict[str, dict[str, Any]]:
    """Probes of the pooled last features on the validation split, for `source` and `class`.

    Returns:
        What `linear_probe` returns for each; empty where the data do not name two sources with enough lesions.
    """
    split = trained.data.splits["validation"]
    named = np.flatnonzero([bool(sample.source) for sample in split.samples])
    if len(named) > MAX_IMAGES:
        named = np.sort(np.random.default_rng(0).choice(named, MAX_IMAGES, replace=False))
    samples = [split.samples[index] for index in named]
    sources = [str(sample.source) for sample in samples]
    lesions = [sample.group or sample.file for sample in samples]
    if len(_probed(sources, lesions)) < 2:
        return {}
    features = predict_batches(feature_extractor(trained.model, ["avg_pool"]), split.pixels[named])
    classes = [trained.data.class_names[sample.label] for sample in samples]
    probes = {
        name: linear_probe(features, targets, lesions)
        for name, targets in (("source", sources), ("class", classes))
    }
    return {name: probe for name, probe in probes.items() if probe is not None}


def linear_probe(
    features: NDArray[np.float32], targets: Sequence[str], lesions: Sequence[str]
) -> dict[str, Any] | None:
    """Balanced accuracy of a logistic regression, cross-validated so that no lesion lies on both sides.

    Args:
        features: (N, C).
        targets: what is told from them, one per image.
        lesions: groups, one per image.

    Returns:
        `balanced_accuracy` (mean recall of the targets), `chance` (that of guessing), `targets` and `images`; None
        with fewer than two targets of at least `FOLDS` lesions.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = _probed(targets, lesions)
    if len(names) < 2:
        return None
    index = [i for i, target in enumerate(targets) if target in names]
    expected, groups = np.array(targets)[index], np.array(lesions)[index]
    predicted = cross_val_predict(
        make_pipeline(
            StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000)
        ),
        features[index],
        expected,
        groups=groups,
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0),
    )
    return {
        "balanced_accuracy": float(balanced_accuracy_score(expected, predicted)),
        "chance": 1 / len(names),
        "targets": names,
        "images": len(index),
    }


def probe_sentence(probes: dict[str, dict[str, Any]]) -> str:
    """One sentence for the end of a training."""
    told = " and ".join(
        f"the {name} with a balanced accuracy of {probe['balanced_accuracy']:.2f} (chance {probe['chance']:.2f})"
        for name, probe in probes.items()
    )
    return f"a linear probe of the last features tells {told}"


def _probed(targets: Sequence[str], lesions: Sequence[str]) -> list[str]:
    """Targets with at least `FOLDS` lesions, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for target, lesion in zip(targets, lesions, strict=True):
        groups[target].add(lesion)
    return sorted(target for target, members in groups.items() if len(members) >= FOLDS)
