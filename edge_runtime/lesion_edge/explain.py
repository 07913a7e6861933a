"""Heat maps: the class-activation map over the image.

The map is that of the positive class, scaled to its own maximum; an image without any trace of it stays plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lesion_edge.errors import ImageError
from lesion_edge.mirror import Mirror
from lesion_edge.preprocess import Resize, load_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesion_edge.prediction import Prediction

LONGEST_SIDE = 1024
"""Longest side of an overlay, pixels; a smaller image keeps its size."""

COLORS = np.array([(0, 255, 200), (0, 140, 255), (50, 0, 255)], float)
"""RGB from little to much: turquoise to blue, which neither skin nor lesions are."""
OPACITY = 0.6
"""At the map's maximum; nothing is transparent altogether."""


def heat_map(cam: NDArray[np.float32]) -> Image.Image:
    """RGBA image of a class-activation map (h, w), 0 or more, at the size of the map."""
    strength = cam / max(float(cam.max()), 1e-12)
    stops = np.linspace(0, 1, len(COLORS))
    channels = [np.interp(strength, stops, COLORS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack([*channels, strength * 255 * OPACITY], axis=-1).round().astype(np.uint8))


def visible_box(width: int, height: int, resize: Resize) -> tuple[float, float, float, float]:
    """Region of an image that the network's square input shows: left, top, right, bottom in pixels.

    With `pad` the square reaches beyond the image.
    """
    if resize == "squash":
        return 0, 0, width, height
    side = min(width, height) if resize == "crop" else max(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def overlay(image: Image.Image, cam: NDArray[np.float32], resize: Resize) -> Image.Image:
    """Blend a class-activation map (h, w) over an RGB image; the result has the size of the image."""
    left, top, right, bottom = (round(edge) for edge in visible_box(*image.size, resize))
    heat = heat_map(cam).resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR)
    layer = Image.new("RGBA", image.size)
    layer.paste(heat, (left, top))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


class HeatmapWriter:
    """Writer of one overlay per image into a folder, which mirrors the folders of the images."""

    def __init__(self, folder: Path, paths: Sequence[str], resize: Resize) -> None:
        self._mirror = Mirror(folder, paths)
        self._resize = resize

    def write(self, prediction: Prediction) -> Prediction:
        """Write the overlay of a prediction that has a map, and return the prediction.

        Raises:
            OSError: it cannot be written.
        """
        if prediction.cam is not None:
            try:
                image = load_image(prediction.path, LONGEST_SIDE)
            except ImageError:  # it has vanished since; its answer stands
                return prediction
            file = self._mirror.file_of(prediction.path, ".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            overlay(image, prediction.cam, self._resize).save(file, format="PNG")
        return prediction
