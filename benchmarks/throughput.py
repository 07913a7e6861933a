"""How long does an image of a folder take, in the usual ways, in ours, and at best?

    python benchmarks/throughput.py RUN BUNDLE IMAGES [--images 100] [--rounds 5]

Every round times each way once on the same files, from the file to the probabilities. The floor is what decoding
and the network take on one thread each, divided by the CPUs. The last lines compare a single image through
`Classifier.predict` with decoding it and calling the session.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.cpu import available_cpus
from lesion_edge.images import find_images
from lesion_edge.manifest import load_manifest, read_variant
from lesion_edge.preprocess import load_pixels
from lesion_edge.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Print ms per image and the ratio to the floor, each the median of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--images", dest="count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    manifest = load_manifest(arguments.bundle)
    size, cpus = manifest.image_size, available_cpus()
    found = itertools.islice(find_images([str(arguments.images)]), arguments.count)
    files = list(itertools.islice(itertools.cycle(list(found)), arguments.count))
    classifier = Classifier(arguments.bundle, device="cpu")
    session = open_session(read_variant(arguments.bundle, manifest, classifier.variant))
    pixels = [load_pixels(file, size, manifest.resize)[None] for file in files]

    def network(image: Any) -> Any:
        return session.run(["probabilities"], {"image": image})

    keras_predict = keras_function(arguments.run / "model.keras")
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "Keras `predict`": (lambda: [keras_predict(plain_pixels(f, size)) for f in files[:10]], 10),
        "plain fp32 loop": plain_loop(arguments.bundle / manifest.variants["fp32"].file, files[:50], size),
        "plain int8 loop": plain_loop(arguments.bundle / manifest.variants["int8"].file, files[:50], size),
        "ours": (lambda: list(classifier.predict(files)), len(files)),
        "decoding alone": (lambda: [load_pixels(f, size, manifest.resize) for f in files], len(files)),
        "network alone": (lambda: [network(image) for image in pixels], len(files)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    one: dict[str, list[float]] = {"predict": [], "bare": []}
    for index in range(-1, arguments.rounds):
        for name, (function, number) in ways.items():
            start = time.perf_counter()
            function()
            if index >= 0:
                times[name].append((time.perf_counter() - start) * 1000 / number)
        for file in files[:20]:
            start = time.perf_counter()
            network(load_pixels(file, size, manifest.resize)[None])
            middle = time.perf_counter()
            list(classifier.predict([file]))
            one["bare"].append((middle - start) * 1000)
            one["predict"].append((time.perf_counter() - middle) * 1000)

    times["floor"] = [
        (decode + run) / cpus for decode, run in zip(times["decoding alone"], times["network alone"], strict=True)
    ]
    middle_of = {name: statistics.median(values) for name, values in times.items()}
    print(f"{len(files)} images, {arguments.rounds} rounds, {cpus} CPUs\n")
    print("| | ms/image | of the floor |\n|---|---|---|")
    for name, value in middle_of.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times["floor"], strict=True))
        print(f"| {name} | {value:.1f} | {ratio:.2f} |")
    bare, predict = statistics.median(one["bare"]), statistics.median(one["predict"])
    print(f"\none image: bare {bare:.2f} ms, predict {predict:.2f} ms, ratio {predict / bare:.2f}")


def plain_pixels(file: str, size: int) -> Any:
    """The image as most scripts decode it."""
    return np.asarray(Image.open(file).convert("RGB").resize((size, size)))[None]


def plain_loop(graph: Path, files: list[str], size: int) -> tuple[Callable[[], object], int]:
    """A session as ONNX Runtime makes it by default, one image after the other."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph))
    return (
        lambda: [session.run(["probabilities"], {"image": plain_pixels(file, size)}) for file in files],
        len(files),
    )


def keras_function(path: Path) -> Callable[[Any], Any]:
    """`predict` of the Keras model."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    model = keras.models.load_model(path, compile=False)
    return lambda image: model.predict(image.astype(np.float32), verbose=0)


if __name__ == "__main__":
    main()
