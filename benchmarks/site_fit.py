"""What does a fit to a site gain? Half of a source's lesions to fit, the other half to judge, in many splits.

    python benchmarks/site_fit.py LABELED... [--model BUNDLE] [--splits 10] [--target-sensitivity 0.9]

LABELED is a folder with class-named folders or a CSV file, as for `lesion-infer --fit-site`; take a source that
the model has never seen. Sensitivity and specificity are those of answered images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lesion_edge import Classifier
from lesion_edge.labeled import classify_sample, find_labeled_images
from lesion_edge.prediction import OUTLIER_LIMIT
from lesion_edge.site import move
from lesion_edge.site_fit import FIGURES, Parameters, Sample, figures, fit


def judge(sample: Sample, parameters: Parameters) -> list[float]:
    """`FIGURES` of a sample."""
    p = move(sample.probability, parameters.temperature, parameters.offset)
    answered = np.ones(len(p), bool)
    if sample.outlier is not None and parameters.outlier_limit is not None:
        answered = sample.outlier <= parameters.outlier_limit
    # Each image by itself: no intervals over lesions are needed for a mean over splits.
    values = figures(sample.is_positive, p, p >= parameters.threshold, answered, np.arange(len(p)))
    return [values[name]["value"] for name in FIGURES]


def main() -> None:
    """Print one table per source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labeled", nargs="+")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--target-sensitivity", type=float, default=0.9)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.model, "cpu")
    threshold = classifier.manifest.variants[classifier.variant].threshold
    shipped = Parameters(1.0, 0.0, 0.5 if threshold is None else threshold, OUTLIER_LIMIT)
    for source in arguments.labeled:
        images = find_labeled_images([source], classifier.manifest.class_names)
        sample, _ = classify_sample(classifier, images)
        report(source, sample, shipped, lambda part: fit(part, arguments.target_sensitivity), arguments.splits)


def report(
    source: str, sample: Sample, shipped: Parameters, fit_part: Callable[[Sample], Parameters], splits: int
) -> None:
    """Print the means over all splits, with their standard deviations."""
    lesions = np.unique(sample.lesions)
    before, after = [], []
    for seed in range(splits):
        chosen = np.random.default_rng(seed).permutation(lesions)[: len(lesions) // 2]
        to_fit = np.isin(sample.lesions, chosen)
        half = sample.part(np.flatnonzero(~to_fit))
        before.append(judge(half, shipped))
        after.append(judge(half, fit_part(sample.part(np.flatnonzero(to_fit)))))
    positives = int(sample.is_positive.sum())
    print(f"{source}: {positives} of {len(sample.lesions)} images positive, {len(lesions)} lesions")
    print(f"| | bundle | site, mean of {splits} splits |\n|---|---|---|")
    for name, *columns in zip(FIGURES, zip(*before, strict=True), zip(*after, strict=True), strict=True):
        cells = (f"{np.mean(column):.3f} ± {np.std(column):.3f}" for column in columns)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
