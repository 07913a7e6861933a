"""Measures the range of every activation on training images; the int8 scales follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesion_export.onnx_graph import iterate_tensors

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from lesion_train.run import Sample

BINS = 2048
BATCH = 4
Ranges = dict[str, tuple[float, float]]
"""Tensor name to the smallest and largest value that int8 shall represent."""


@dataclass(frozen=True)
class Histogram:
    """Histogram of one activation over all calibration images."""

    low: float
    high: float
    counts: NDArray[np.int64]
    """(BINS,), equal bins between low and high."""


def choose_samples(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """Draw samples, the same number of every class as far as there are so many."""
    rng = np.random.default_rng(seed)
    labels = np.array([sample.label for sample in samples])
    classes = np.unique(labels)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[: -(-count // len(classes))] for label in classes]
    return [samples[index] for index in sorted(np.concatenate(chosen))]


def collect_histograms(
    model: onnx.ModelProto, pixels: NDArray[np.uint8], leave_out: set[str]
) -> dict[str, Histogram]:
    """Run the float model over images and count the values of every activation.

    Args:
        pixels: uint8 (N, S, S, 3), RGB.
        leave_out: outputs of nodes that stay float.
    """
    names = [node.output[0] for node in model.graph.node if node.output[0] not in leave_out]
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for activations in iterate_tensors(model, pixels, names, "activation ranges", BATCH):
        for name, values in zip(names, activations, strict=True):
            low[name], high[name] = min(low[name], values.min()), max(high[name], values.max())
    for activations in iterate_tensors(model, pixels, names, "activation counts", BATCH):
        for name, values in zip(names, activations, strict=True):
            width = (high[name] - low[name]) / BINS or 1.0
            index = np.minimum(((values.ravel() - low[name]) / width).astype(np.int32), BINS - 1)
            counts[name] += np.bincount(index, minlength=BINS)
    return {name: Histogram(float(low[name]), float(high[name]), counts[name]) for name in names}


def _min_max(histogram: Histogram) -> tuple[float, float]:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, fraction: float = 0.999999) -> tuple[float, float]:
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    return float(edges[np.searchsorted(below, 1 - fraction)]), float(edges[1 + np.searchsorted(below, fraction)])


def _mse(histogram: Histogram) -> tuple[float, float]:
    """The share of the range with the least squared rounding and clipping error."""
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2

    def error(share: float) -> float:
        low, step = histogram.low * share, (histogram.high - histogram.low) * share / 255 or 1.0
        rounded = np.clip(np.round((centres - low) / step), 0, 255) * step + low
        return float((histogram.counts * (rounded - centres) ** 2).sum())

    share = min(np.linspace(0.3, 1.0, 36), key=error)
    return histogram.low * share, histogram.high * share


METHODS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
}


def ranges_by(method: str, histograms: dict[str, Histogram]) -> Ranges:
    """The range of every activation by one of `METHODS`."""
    return {name: METHODS[method](histogram) for name, histogram in histograms.items()}
