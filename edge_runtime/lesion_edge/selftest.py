"""The golden self-test: does this device answer as the machine did on which the bundle was released?

The images are made by integer arithmetic, the same everywhere; the manifest holds what they gave, and what
decided. They go the whole way from file content to label and status, so a fault in decoding, resizing, color,
weights or class order shows, and so does another threshold.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lesion_edge.errors import LesionEdgeError
from lesion_edge.prediction import label_outputs
from lesion_edge.preprocess import Resize, load_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from lesion_edge.classifier import Classifier

TOLERANCES = {"int8": 1e-3, "fp32": 1e-2, "fp16": 5e-2}
"""Largest difference per variant; float sums are taken in another order on another device, int8 sums are exact."""


OUTPUTS = ("logits", "probabilities", "outlier")
"""Outputs of the graph that are compared; without an outlier score, the first two."""


@dataclass(frozen=True)
class SelfTest:
    """Outcome of a self-test."""

    difference: float
    """Largest |Δ| of an output to what the manifest expects; of the outlier score, relative where above 1."""
    tolerance: float
    disagreements: tuple[str, ...] = ()
    """What decides or answers otherwise than when the bundle was released, in words."""

    @property
    def passed(self) -> bool:
        """False also where an output is not a number."""
        return bool(self.difference <= self.tolerance) and not self.disagreements


def expected_answers(
    run: Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]],
    tolerance: float,
    *,
    image_size: int,
    resize: Resize,
    class_names: Sequence[str],
    positive_class: str,
    threshold: float | None,
    outlier_limit: float | None,
) -> dict[str, Any]:
    """Answers to the golden images and what decided them, for the manifest.

    Args:
        run: uint8 (1, S, S, 3) to `logits` and `probabilities` (1, K), and `outlier` (1,) where there is a score.
        tolerance: largest difference on another device; see `TOLERANCES`.
        image_size: S, and the others: as in the manifest and its variant.
    """
    outputs = _golden_outputs(run, image_size, resize)
    answers = _answers(outputs, class_names, positive_class, threshold)
    # Where the tolerance alone could turn an answer round, none is expected.
    for doubtful in (-tolerance, tolerance):
        moved = dict(outputs)
        moved["probabilities"] = outputs["probabilities"].copy()
        moved["probabilities"][:, list(class_names).index(positive_class)] += doubtful
        if "outlier" in outputs:
            moved["outlier"] = outputs["outlier"] + doubtful
        for name, values in _answers(moved, class_names, positive_class, threshold).items():
            answers[name] = [old if old == new else None for old, new in zip(answers[name], values, strict=True)]
    return {
        **{name: value.tolist() for name, value in outputs.items()},
        **answers,
        "class_names": list(class_names),
        "positive_class": positive_class,
        "resize": resize,
        "threshold": threshold,
        "outlier_limit": outlier_limit,
        "tolerance": tolerance,
    }


def self_test(classifier: Classifier) -> SelfTest:
    """Run the golden images through a loaded bundle and compare, with the bundle's own threshold.

    Raises:
        LesionEdgeError: the bundle holds no expected answers.
    """
    manifest, variant = classifier.manifest, classifier.manifest.variants[classifier.variant]
    expected = variant.self_test
    if not expected:
        raise LesionEdgeError(f"the bundle has no self-test for {classifier.variant}: export it again")
    outputs = _golden_outputs(classifier.run, manifest.image_size, manifest.resize)
    difference, tolerance = largest_difference(outputs, expected), float(expected["tolerance"])
    present: dict[str, Any] = {
        "class_names": list(manifest.class_names),
        "positive_class": manifest.positive_class,
        "resize": manifest.resize,
        "threshold": variant.threshold,
        "outlier_limit": variant.outlier_limit,
    }
    # Where the outputs differ already, it is not the answers that are wrong.
    if difference <= tolerance:
        current = _answers(outputs, manifest.class_names, manifest.positive_class, variant.threshold)
        for name, answers in current.items():
            # None where the tolerance could turn the answer round, see `expected_answers`.
            present[name] = [
                answer if index >= len(expected.get(name, [])) or expected[name][index] is not None else None
                for index, answer in enumerate(answers)
            ]
    disagreements = [
        f"{name} {value}, released with {expected.get(name)}"
        for name, value in present.items()
        if value != expected.get(name)
    ]
    return SelfTest(difference, tolerance, tuple(disagreements))


def largest_difference(outputs: Mapping[str, NDArray[Any]], expected: Mapping[str, Any]) -> float:
    """Largest |Δ| of outputs to those of the release; of the outlier score, relative where above 1.

    Args:
        outputs: of N images, by the names of `OUTPUTS`.
        expected: those of the manifest for the same images.

    Raises:
        LesionEdgeError: they do not have the same outputs.
    """
    differences = []
    for name in [name for name in OUTPUTS if name in outputs or name in expected]:
        values, released = outputs.get(name, np.empty(0)), np.array(expected.get(name), np.float32)
        if values.shape != released.shape:
            raise LesionEdgeError("the bundle's self-test is of another version: export it again")
        # The score of what is far from all lesions is large, and so is its rounding.
        unit = np.maximum(np.abs(released), 1) if name == "outlier" else np.float32(1)
        differences.append(float((np.abs(values - released) / unit).max()))
    return float(np.max(differences))


def _golden_outputs(
    run: Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]], image_size: int, resize: Resize
) -> dict[str, NDArray[Any]]:
    outputs = [run(pixels) for pixels in golden_pixels(image_size, resize)]
    return {name: np.concatenate([output[name] for output in outputs]) for name in OUTPUTS if name in outputs[0]}


def _answers(outputs: dict[str, NDArray[Any]], *rule: Any) -> dict[str, list[str | None]]:
    """`labels` after the threshold, also of an image that is refused, and `statuses`."""
    probabilities = {"probabilities": outputs["probabilities"]}
    return {
        "labels": [prediction.label for prediction in label_outputs(probabilities, *rule)],
        "statuses": [prediction.status for prediction in label_outputs(outputs, *rule)],
    }


def format_result(classifier: Classifier, outcome: SelfTest) -> str:
    """Result of a self-test in one line."""
    return (
        f"{classifier.variant} on {classifier.device}: {'passed' if outcome.passed else 'FAILED'}, "
        f"largest difference {outcome.difference:.2g}, at most {outcome.tolerance:g}"
        + "".join(f"; {disagreement}" for disagreement in outcome.disagreements)
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
