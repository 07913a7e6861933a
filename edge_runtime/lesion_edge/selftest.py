"""The golden self-test: does this device answer as the machine did on which the bundle was released?

The images are made by integer arithmetic, the same everywhere; the manifest holds the logits they gave. They go
the whole way from file content to logits, so a fault in decoding, resizing, colour order or weights shows.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lesion_edge.errors import LesionEdgeError
from lesion_edge.preprocess import Resize, load_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lesion_edge.classifier import Classifier

TOLERANCES = {"int8": 1e-3, "fp32": 1e-2, "fp16": 5e-2}
"""Largest difference per variant; float sums are taken in another order on another device, int8 sums are exact."""


@dataclass(frozen=True)
class SelfTest:
    """Outcome of a self-test."""

    difference: float
    """Largest |Δlogit| to what the manifest expects, or |Δ| of the outlier score, relative where above 1."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """False also where an output is not a number."""
        return bool(self.difference <= self.tolerance)


def self_test(classifier: Classifier) -> SelfTest:
    """Run the golden images through a loaded bundle and compare.

    Raises:
        LesionEdgeError: the bundle holds no expected answers.
    """
    manifest = classifier.manifest
    expected = manifest.variants[classifier.variant].self_test
    if not expected:
        raise LesionEdgeError(f"the bundle has no self-test for {classifier.variant}: export it again")
    outputs = [classifier.run(pixels) for pixels in golden_pixels(manifest.image_size, manifest.resize)]
    differences = []
    for name in [name for name in ("logits", "outlier") if name in outputs[0]]:
        found = np.concatenate([output[name] for output in outputs])
        wanted = np.array(expected.get(name), np.float32)
        if found.shape != wanted.shape:
            raise LesionEdgeError("the bundle's self-test is of another version: export it again")
        # The score of what is far from all lesions is large, and so is its rounding.
        unit = np.maximum(np.abs(wanted), 1) if name == "outlier" else np.float32(1)
        differences.append(float((np.abs(found - wanted) / unit).max()))
    return SelfTest(float(np.max(differences)), float(expected["tolerance"]))


def format_result(classifier: Classifier, outcome: SelfTest) -> str:
    """Result of a self-test in one line."""
    return (
        f"{classifier.variant} on {classifier.device}: {'passed' if outcome.passed else 'FAILED'}, "
        f"largest difference {outcome.difference:.2g}, at most {outcome.tolerance:g}"
    )


def golden_pixels(image_size: int, resize: Resize) -> Iterator[NDArray[np.uint8]]:
    """What the device makes of each golden image: uint8 (1, S, S, 3), RGB."""
    for image in golden_images():
        yield load_pixels(image, image_size, resize)[None]


def golden_images() -> list[bytes]:
    """PNG files: colour ramps, a lesion-like blot with fine texture, and one small image to be enlarged."""
    images = []
    for height, width in ((480, 640), (450, 301), (61, 97)):
        y, x = np.mgrid[:height, :width].astype(np.int64)
        texture = (x * 7919 + y * 104729 + x * y * 31) % 41 - 20
        ramps = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
        skin, blot = np.array([224, 172, 150]), np.array([92, 48, 60])
        distance = ((3 * x - width) * height) ** 2 + ((2 * y - height) * width) ** 2
        inside = (distance + texture * width * height * 900 < (width * height) ** 2 // 3)[..., None]
        colours = np.where(inside, blot, skin) + ramps // 8 + texture[..., None]
        image = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
        content = io.BytesIO()
        image.save(content, "PNG", compress_level=1)
        images.append(content.getvalue())
    return images
