"""ONNX models run over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_edge.console import progress_bar
from lesion_edge.cpu import available_cpus
from lesion_edge.session import open_session


def graph_outputs(
    graph: Any, pixels: NDArray[np.uint8], name: str, outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """Some outputs (N, …) of an `onnx.ModelProto` in ONNX Runtime on the CPU."""
    session = open_session(graph.SerializeToString(), threads=available_cpus())
    with progress_bar(name, len(pixels)) as advance:
        return in_batches(lambda batch: session.run(outputs, {"image": batch}), pixels, advance)


def graph_logits(graph: Any, pixels: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Logits (N, K) of an `onnx.ModelProto` in ONNX Runtime on the CPU."""
    return graph_outputs(graph, pixels, name, ["logits"])[0]


def in_batches(function: Any, pixels: NDArray[np.uint8], advance: Any, size: int = 8) -> list[NDArray[np.float32]]:
    """Results of a function over images, batch by batch; it gives a list of arrays (N, …)."""
    results = []
    for start in range(0, len(pixels), size):
        results.append(function(pixels[start : start + size]))
        advance(len(results[-1][0]))
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]
