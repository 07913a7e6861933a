"""Is OpenVINO faster with the same model, quantized by its own tool (NNCF)?

    pip install openvino nncf onnxruntime .
    python benchmarks/openvino_int8.py BUNDLE IMAGES [--rounds 100]

One thread, batch 1. Every round times each of them once on the same decoded image. IMAGES also calibrate NNCF.
"""

from __future__ import annotations

import argparse
import itertools
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

CALIBRATION_IMAGES = 200


def main() -> None:
    """Print the median time of each and its ratio to ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()

    manifest = load_manifest(arguments.bundle)
    files = itertools.islice(find_images([str(arguments.images)]), CALIBRATION_IMAGES)
    images = [load_pixels(file, manifest.image_size, manifest.resize)[None] for file in files]
    int8, fp32 = (
        open_session(read_variant(arguments.bundle, manifest, name), threads=1) for name in ("int8", "fp32")
    )
    functions = {
        "ours, int8": lambda image: int8.run(["probabilities"], {"image": image}),
        "ours, fp32": lambda image: fp32.run(["probabilities"], {"image": image}),
        "OpenVINO, NNCF int8": openvino_function(arguments.bundle / manifest.variants["fp32"].file, images),
    }

    def on_images(function: Callable[[Any], object]) -> Callable[[int], object]:
        return lambda index: function(images[index % len(images)])

    times = time_in_turns({name: on_images(function) for name, function in functions.items()}, arguments.rounds)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    rows = [[name, f"{value:.1f}", f"{value / medians['ours, int8']:.2f}"] for name, value in medians.items()]
    print(markdown_table(["", "p50 ms", "to ours, int8"], rows))


def openvino_function(graph: Path, images: list[Any]) -> Any:
    """The float graph quantized by NNCF, as a function of one uint8 batch."""
    import nncf
    import openvino

    core = openvino.Core()
    quantized = nncf.quantize(core.read_model(graph), nncf.Dataset(images))
    model = core.compile_model(quantized, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"})
    probabilities = model.output("probabilities")
    return lambda image: model([image])[probabilities]


if __name__ == "__main__":
    main()
