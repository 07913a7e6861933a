"""Which faults does `lesion-infer --self-test` catch? Plants each in a copy of a bundle, or in the preprocessing.

    python benchmarks/selftest_faults.py BUNDLE [--flips 10]

A flipped bit is caught by the file's digest whenever a graph is loaded. To see what the logits alone would catch,
the digest in the manifest is made to fit.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from PIL import Image

from lesion_edge import selftest
from lesion_edge.classifier import Classifier
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import FILE_NAME, manifest_text
from lesion_edge.preprocess import load_pixels


def resized(method: Image.Resampling) -> Callable[..., Any]:
    """A preprocessing that resizes by another method."""
    return lambda content, size, resize: np.asarray(
        Image.open(io.BytesIO(content)).convert("RGB").resize((size, size), method)
    )


PREPROCESSING: dict[str, Callable[..., Any]] = {
    "colours swapped (BGR)": lambda *given: np.ascontiguousarray(load_pixels(*given)[..., ::-1]),
    "resize: nearest": resized(Image.Resampling.NEAREST),
    "resize: bicubic": resized(Image.Resampling.BICUBIC),
    "resize: Lanczos": resized(Image.Resampling.LANCZOS),
    "centre crop, not squash": lambda content, size, resize: load_pixels(content, size, "crop"),
    "mirrored": lambda *given: np.ascontiguousarray(load_pixels(*given)[:, ::-1]),
    "one grey level brighter": lambda *given: np.minimum(load_pixels(*given), 254) + np.uint8(1),
}


def main() -> None:
    """Print one row per fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--flips", type=int, default=10, help="weights per bit")
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.bundle, "cpu")
    print("| fault | planted | caught |\n|---|---|---|")
    print(f"| none | 1 | {int(not selftest.self_test(classifier).passed)} |")
    for name, fault in PREPROCESSING.items():
        with mock.patch.object(selftest, "load_pixels", fault):
            print(f"| {name} | 1 | {int(not selftest.self_test(classifier).passed)} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(arguments.bundle, Path(folder) / "bundle"))
        print(
            f"| bit of the file flipped | {arguments.flips} | {flipped_in_file(copy, arguments.flips)} |",
            flush=True,
        )
        for bit in range(8):
            caught = flipped_in_weights(arguments.bundle, copy, bit, arguments.flips)
            print(f"| bit {bit} of a weight, digest made to fit | {arguments.flips} | {caught} |", flush=True)


def flipped_in_file(copy: Path, count: int) -> int:
    """How many of `count` single flipped bits, anywhere in the file, are refused."""
    path, rng, caught = copy / "int8.onnx", np.random.default_rng(0), 0
    content = path.read_bytes()
    for place in rng.integers(0, len(content), count):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :])
        try:
            Classifier.load(copy, "cpu")
        except LesionEdgeError:
            caught += 1
    path.write_bytes(content)
    return caught


def flipped_in_weights(bundle: Path, copy: Path, bit: int, count: int) -> int:
    """How many of `count` flips of this bit in one int8 weight the logits show."""
    rng, caught = np.random.default_rng(bit), 0
    for _ in range(count):
        graph = onnx.load(bundle / "int8.onnx")
        kernels = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
        tensor = kernels[rng.integers(len(kernels))]
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.view(np.uint8).reshape(-1)[rng.integers(values.size)] ^= np.uint8(1 << bit)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        content = graph.SerializeToString()
        record = json.loads((copy / FILE_NAME).read_text(encoding="utf-8"))
        del record["digest"]
        record["variants"]["int8"].update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        (copy / "int8.onnx").write_bytes(content)
        (copy / FILE_NAME).write_text(manifest_text(record), encoding="utf-8")
        caught += not selftest.self_test(Classifier.load(copy, "cpu", variant="int8")).passed
    return caught


if __name__ == "__main__":
    main()
