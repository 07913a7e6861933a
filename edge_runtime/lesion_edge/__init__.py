"""Classifies dermoscopy images on an offline device with ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesion_edge.classifier import Classifier as Classifier
    from lesion_edge.errors import LesionEdgeError as LesionEdgeError
    from lesion_edge.prediction import Prediction as Prediction

__version__ = "0.2.0"
__all__ = ["Classifier", "LesionEdgeError", "Prediction", "__version__"]


def __getattr__(name: str) -> Any:
    # NumPy and Pillow load only when a name is used, so that `--help` stays quick.
    if name == "Classifier":
        from lesion_edge.classifier import Classifier

        return Classifier
    if name == "Prediction":
        from lesion_edge.prediction import Prediction

        return Prediction
    if name == "LesionEdgeError":
        from lesion_edge.errors import LesionEdgeError

        return LesionEdgeError
    raise AttributeError(f"module 'lesion_edge' has no attribute '{name}'")
