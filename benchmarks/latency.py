"""How long does one image take in Keras, fp32 and int8, one after the other in the same run?

    python benchmarks/latency.py RUN BUNDLE IMAGES [--rounds 50] [--threads 1]

Every round times each of them once on the same decoded image, so that a slow moment of the machine hits all.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.images import find_images
from lesion_edge.manifest import load_manifest, read_variant
from lesion_edge.preprocess import load_pixels
from lesion_edge.session import open_session
from timing import markdown_table, time_in_turns

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Print p50, p90 and p99 in ms, and the ratio of the medians to int8."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    manifest = load_manifest(arguments.bundle)
    files = itertools.islice(find_images([str(arguments.images)]), 50)
    images = [load_pixels(file, manifest.image_size, manifest.resize)[None] for file in files]
    functions = {"Keras": keras_function(arguments.run / "model.keras", arguments.threads)}
    for name in manifest.variants:
        content = read_variant(arguments.bundle, manifest, name)
        functions[name] = graph_function(content, arguments.threads)
        functions[f"{name} without cam"] = graph_function(without_cam(content), arguments.threads)

    def on_images(function: Callable[[Any], object]) -> Callable[[int], object]:
        return lambda index: function(images[index % len(images)])

    times = time_in_turns({name: on_images(function) for name, function in functions.items()}, arguments.rounds)
    fastest = float(np.median(times["int8" if "int8" in times else "fp32"]))
    print(f"{arguments.rounds} rounds, batch 1, {arguments.threads} threads\n")
    percentiles = {name: np.percentile(values, [50, 90, 99]) for name, values in times.items()}
    rows = [
        [name, *(f"{p:.1f}" for p in values), f"{values[0] / fastest:.2f}"] for name, values in percentiles.items()
    ]
    print(markdown_table(["", "p50 ms", "p90 ms", "p99 ms", "p50 / int8"], rows))


def graph_function(content: bytes, threads: int) -> Callable[[Any], Any]:
    """A graph in ONNX Runtime as a function of one uint8 batch."""
    session = open_session(content, threads=threads)
    return lambda image: session.run(["probabilities"], {"image": image})


def without_cam(content: bytes) -> bytes:
    """The graph without that output; ONNX Runtime drops the nodes that only it needs."""
    import onnx

    graph = onnx.load_from_string(content)
    graph.graph.output.remove(next(output for output in graph.graph.output if output.name == "cam"))
    return bytes(graph.SerializeToString())


def keras_function(path: Path, threads: int) -> Callable[[Any], Any]:
    """The Keras model as a compiled function of one uint8 batch."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = keras.models.load_model(path, compile=False)
    compiled = tf.function(lambda image: model(image, training=False))
    return lambda image: compiled(tf.cast(image, tf.float32)).numpy()


if __name__ == "__main__":
    main()
