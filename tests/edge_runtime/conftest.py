"""A bundle that is real in everything but size: its graph looks at nothing but the mean color."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.manifest import Manifest
from lesion_edge.selftest import expected_answers
from lesion_export import bundle as bundles
from tests.edge_runtime import onnx_file

SIZE = 32
CLASSES = {2: ("benign", "malignant"), 3: ("red", "green", "blue")}
POSITIVE = {2: "malignant", 3: "red"}
# Mean RGB (0 to 255) to logits. Two classes: the redder, the more malignant; three: one per channel.
KERNELS = {
    2: np.array([[0, 0.02], [0, -0.01], [0, -0.01]], np.float32),
    3: np.eye(3, dtype=np.float32) * np.float32(0.02),
}
OUTLIER_KERNEL = np.array([0, 0, 1 / 200], np.float32)
"""Mean RGB to the outlier score: above a mean blue of 200 it is over the limit."""


def build_graph(
    classes: int = 2,
    *,
    size: int | str = SIZE,
    batch: str | int = "N",
    input_name: str = "image",
    input_type: int = onnx_file.UINT8,
    logits: int | None = None,
    cam_rank: int = 3,
    without: str | None = None,
    outlier_rank: int | None = None,
) -> bytes:
    """An ONNX file that keeps the bundle's contract, or breaks the part of it that an argument names."""
    half = [(size if isinstance(size, int) else SIZE) // 2] * 2
    constants = {
        "kernel": KERNELS[classes],
        "space": np.array([1, 2], np.int64),
        "channel": np.array([1], np.int64),
        "one": np.array([1], np.int64),
        "start": np.array([0], np.int64),
        "end": np.array([classes if logits is None else logits], np.int64),
    }
    nodes = [
        onnx_file.node("Cast", [input_name], ["levels"], to=onnx_file.FLOAT),
        onnx_file.node("ReduceMean", ["levels", "space"], ["color"], keepdims=0),
        onnx_file.node("MatMul", ["color", "kernel"], ["scores"]),
        onnx_file.node("Slice", ["scores", "start", "end", "one"], ["logits"]),
        onnx_file.node("Softmax", ["scores"], ["probabilities"], axis=1),
        onnx_file.node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        onnx_file.node("AveragePool", ["planes"], ["pooled"], kernel_shape=half, strides=half),
        onnx_file.node("ReduceMean", ["pooled", "channel"], ["cam"], keepdims=int(cam_rank == 4)),
    ]
    shapes: dict[str, onnx_file.Shape] = {
        "probabilities": [batch, classes],
        "logits": [batch, classes if logits is None else logits],
        "cam": [batch, 2, 2] if cam_rank == 3 else [batch, 1, 2, 2],
    }
    if outlier_rank is not None:
        constants["outlier_kernel"] = OUTLIER_KERNEL.reshape(-1, *[1] * (outlier_rank - 1))
        nodes.append(onnx_file.node("MatMul", ["color", "outlier_kernel"], ["outlier"]))
        shapes["outlier"] = [batch, 1][:outlier_rank]
    return onnx_file.model(
        nodes,
        [onnx_file.value_info(input_name, input_type, [batch, size, size, 3])],
        [onnx_file.value_info(name, onnx_file.FLOAT, shape) for name, shape in shapes.items() if name != without],
        constants,
    )


def write_bundle(
    folder: Path,
    classes: int = 2,
    *,
    variants: tuple[str, ...] = ("int8", "fp32"),
    threshold: float | None = None,
    graph: bytes | None = None,
    scored: bool = False,
) -> Path:
    """Write a whole bundle; every variant holds the same graph, with the outlier score if it is `scored`."""
    content = build_graph(classes, outlier_rank=1 if scored else None) if graph is None else graph
    fields: dict[str, Any] = {"temperature": 1.0, "threshold": threshold, "threshold_method": "none"}
    fields["outlier_limit"] = 1.0 if scored else None
    entries = {name: bundles.make_variant(name, content, **fields) for name in variants}
    manifest = Manifest(CLASSES[classes], POSITIVE[classes], SIZE, "squash", entries)
    folder.parent.mkdir(parents=True, exist_ok=True)
    bundles.write_bundle(folder, manifest, dict.fromkeys(variants, content), "the card")
    return folder


@pytest.fixture(scope="session")
def graph_bytes() -> Callable[..., bytes]:
    """`build_graph`."""
    return build_graph


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """`write_bundle` into a folder of this test's own."""
    return lambda *args, **options: write_bundle(tmp_path / "bundle", *args, **options)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes benign and malignant (positive): P(malignant) = 1 / (1 + exp(-(2R - G - B) / 100))."""
    return write_bundle(tmp_path_factory.mktemp("two") / "bundle")


@pytest.fixture(scope="session")
def scored_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `bundle`, and calls images with a mean blue above 200 out of distribution."""
    return write_bundle(tmp_path_factory.mktemp("scored") / "bundle", scored=True)


@pytest.fixture(scope="session")
def bundle3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes red (positive), green and blue: softmax of the mean color / 50."""
    return write_bundle(tmp_path_factory.mktemp("three") / "bundle", 3)


@pytest.fixture
def paint(tmp_path: Path) -> Callable[..., Path]:
    """Write an image of one color below this test's folder."""

    def write(name: str, color: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path, format="PNG")
        return path

    return write


def expected_by(classifier: Classifier) -> dict[str, Any]:
    """What `lesion-export` records of a bundle that answers like this one."""
    manifest, variant = classifier.manifest, classifier.manifest.variants[classifier.variant]
    return expected_answers(
        classifier.run,
        1e-3,
        image_size=manifest.image_size,
        resize=manifest.resize,
        class_names=manifest.class_names,
        positive_class=manifest.positive_class,
        threshold=variant.threshold,
        outlier_limit=variant.outlier_limit,
    )
