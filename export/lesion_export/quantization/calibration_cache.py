"""Cache of what int8 needs before a calibration method is chosen, so that a second export is quick."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from lesion_edge import __version__, atomic
from lesion_edge.console import say
from lesion_export.quantization.calibrate import Histogram, collect_histograms
from lesion_export.quantization.equalize import equalize
from lesion_export.quantization.gptq import RoundedModel, round_weights
from lesion_export.quantization.qdq import stays_float

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

STATISTICS_IMAGES = 96
"""How many of the images serve to even out channels and to round weights."""


@dataclass(frozen=True)
class CalibrationCache:
    """A float model with even channels and rounded weights, and the values of its activations."""

    rounded: RoundedModel
    histograms: dict[str, Histogram]


def prepare(model: onnx.ModelProto, pixels: NDArray[np.uint8], seed: int, cache: Path) -> CalibrationCache:
    """Even out channels, round weights and count activations, or read all this from an earlier export.

    Args:
        model: float, of `lesion_export.convert`.
        pixels: uint8 (N, S, S, 3) RGB, training images.
        cache: folder that holds the result, safe to delete; one that cannot be written to only costs time.
    """
    key = _key(model, pixels, seed)
    path = cache / f"int8-{key[:16]}.npz"
    if prepared := _load(path, key):
        say(f"channel ranges, rounded weights and activation ranges from {path}")
        return prepared
    statistics = pixels[:STATISTICS_IMAGES]
    rounded = round_weights(equalize(model, statistics), statistics, seed)
    leave_out = {node.output[0] for node in model.graph.node if stays_float(node)} - {_network_input(model.graph)}
    prepared = CalibrationCache(rounded, collect_histograms(rounded.model, pixels, leave_out))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _save(path, key, prepared)
        say(f"cache for a next export, safe to delete: {path}")
    except OSError as error:
        say(f"cannot keep {path} for a next export: {error.strerror}")
    return prepared


def _network_input(graph: onnx.GraphProto) -> str:
    """Tensor that the first convolution takes; it is quantized although its producer stays float."""
    return str(next(node for node in graph.node if node.op_type == "Conv").input[0])


def _key(model: onnx.ModelProto, pixels: NDArray[np.uint8], seed: int) -> str:
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    digest.update(pixels.tobytes())
    digest.update(json.dumps([seed, __version__, *map(version, ("numpy", "onnx", "onnxruntime"))]).encode())
    return digest.hexdigest()


def _save(path: Path, key: str, prepared: CalibrationCache) -> None:
    scales, histograms = prepared.rounded.scales, prepared.histograms
    with atomic.replacing(path) as stream:
        np.savez(
            stream,
            key=key,
            model=np.frombuffer(prepared.rounded.model.SerializeToString(), np.uint8),
            weights=list(scales),
            scales=np.concatenate(list(scales.values())),
            sizes=[len(scale) for scale in scales.values()],
            activations=list(histograms),
            bounds=[(histogram.low, histogram.high) for histogram in histograms.values()],
            counts=[histogram.counts for histogram in histograms.values()],
        )


def _load(path: Path, key: str) -> CalibrationCache | None:
    import onnx

    try:
        with np.load(path) as saved:
            if str(saved["key"]) != key:
                return None
            scales = np.split(saved["scales"], np.cumsum(saved["sizes"])[:-1])
            return CalibrationCache(
                RoundedModel(
                    onnx.load_from_string(saved["model"].tobytes()),
                    dict(zip(saved["weights"].tolist(), scales, strict=True)),
                ),
                {
                    name: Histogram(float(low), float(high), counts)
                    for name, (low, high), counts in zip(
                        saved["activations"].tolist(), saved["bounds"], saved["counts"], strict=True
                    )
                },
            )
    except Exception:  # missing, damaged, or of another version: computed again
        return None
