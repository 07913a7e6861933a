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
from timing import markdown_table, time_in_turns

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
    images = list(itertools.islice(find_images([str(arguments.images)]), arguments.count))
    files = list(itertools.islice(itertools.cycle(images), arguments.count))
    classifier = Classifier(arguments.bundle, device="cpu")
    session = open_session(read_variant(arguments.bundle, manifest, classifier.variant))
    pixels = [load_pixels(file, size, manifest.resize)[None] for file in files]

    def network(image: Any) -> Any:
        return session.run(["probabilities"], {"image": image})

    keras_predict = keras_function(arguments.run / "model.keras")
    ways: dict[str, tuple[Callable[[int], object], int]] = {
        "Keras `predict`": (lambda _: [keras_predict(plain_pixels(f, size)) for f in files[:10]], 10),
        "plain fp32 loop": plain_loop(arguments.bundle / manifest.variants["fp32"].file, files[:50], size),
        "plain int8 loop": plain_loop(arguments.bundle / manifest.variants["int8"].file, files[:50], size),
        "ours": (lambda _: list(classifier.predict(files)), len(files)),
        "decoding alone": (lambda _: [load_pixels(f, size, manifest.resize) for f in files], len(files)),
        "network alone": (lambda _: [network(image) for image in pixels], len(files)),
    }
    runs = time_in_turns({name: function for name, (function, _) in ways.items()}, arguments.rounds, warm_up=1)
    times = {name: [value / ways[name][1] for value in values] for name, values in runs.items()}
    single = time_in_turns(
        {
            "bare": lambda index: network(load_pixels(files[index % len(files)], size, manifest.resize)[None]),
            "predict": lambda index: list(classifier.predict([files[index % len(files)]])),
        },
        20 * arguments.rounds,
    )
    times["floor"] = [
        (decode + run) / cpus for decode, run in zip(times["decoding alone"], times["network alone"], strict=True)
    ]
    print(f"{len(files)} images, {arguments.rounds} rounds, {cpus} CPUs\n")
    rows = []
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["floor"], strict=True))
        rows.append([name, f"{statistics.median(values):.1f}", f"{ratio:.2f}"])
    print(markdown_table(["", "ms/image", "of the floor"], rows))
    bare, predict = (statistics.median(single[name]) for name in ("bare", "predict"))
    print(f"\none image: bare {bare:.2f} ms, predict {predict:.2f} ms, ratio {predict / bare:.2f}")


def plain_pixels(file: str, size: int) -> Any:
    """The image as most scripts decode it."""
    return np.asarray(Image.open(file).convert("RGB").resize((size, size)))[None]


def plain_loop(graph: Path, files: list[str], size: int) -> tuple[Callable[[int], object], int]:
    """A session as ONNX Runtime makes it by default, one image after the other."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph))
    return (
        lambda _: [session.run(["probabilities"], {"image": plain_pixels(file, size)}) for file in files],
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
