"""Shows where the network looked: the class-activation map over the image.

The map is that of the positive class, scaled to its own maximum; an image without any trace of it stays plain.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lesion_edge.errors import ImageError
from lesion_edge.preprocess import Resize, load_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesion_edge.classifier import Prediction

LONGEST_SIDE = 1024
"""Pixels of an overlay; a smaller image keeps its size."""

COLOURS = np.array([(0, 255, 200), (0, 140, 255), (50, 0, 255)], float)
"""RGB from little to much: turquoise to blue, which neither skin nor lesions are."""
OPACITY = 0.6
"""At the map's maximum; nothing is transparent altogether."""


def heat_map(cam: NDArray[np.float32]) -> Image.Image:
    """Colour a class-activation map (h, w), 0 or more, as RGBA of the same size."""
    strength = cam / max(float(cam.max()), 1e-12)
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(strength, stops, COLOURS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack([*channels, strength * 255 * OPACITY], axis=-1).round().astype(np.uint8))


def seen_part(width: int, height: int, resize: Resize) -> tuple[float, float, float, float]:
    """Which part of an image the network's square shows: left, top, right, bottom in pixels.

    With `pad` the square reaches beyond the image.
    """
    if resize == "squash":
        return 0, 0, width, height
    side = min(width, height) if resize == "crop" else max(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def overlay(image: Image.Image, cam: NDArray[np.float32], resize: Resize) -> Image.Image:
    """Lay a class-activation map over an RGB image of any size; the result has the image's size."""
    left, top, right, bottom = (round(edge) for edge in seen_part(*image.size, resize))
    heat = heat_map(cam).resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR)
    layer = Image.new("RGBA", image.size)
    layer.paste(heat, (left, top))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


class HeatmapWriter:
    """Writes an overlay per image into a folder, under the image's path below what the paths have in common."""

    def __init__(self, folder: Path, paths: Sequence[str], resize: Resize) -> None:
        self._folder = folder
        self._resize = resize
        whole = [os.path.abspath(path) for path in paths if path != "-"]
        folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in whole]
        try:
            # A list may name images anywhere.
            self._root = os.path.commonpath(folders) if "-" not in paths else os.path.abspath(os.sep)
        except ValueError:  # several drives
            self._root = ""

    def place(self, path: str) -> Path:
        """Where the overlay of an image goes."""
        whole = os.path.abspath(path)
        below = os.path.relpath(whole, self._root) if self._root else os.path.splitdrive(whole)[1].lstrip(os.sep)
        return self._folder / f"{below}.png"

    def write(self, prediction: Prediction) -> Prediction:
        """Write the overlay of a prediction that has a map; hands the prediction on.

        Raises:
            OSError: it cannot be written.
        """
        if prediction.cam is not None:
            try:
                image = load_image(prediction.path, LONGEST_SIDE)
            except ImageError:  # it has vanished since; its answer stands
                return prediction
            place = self.place(prediction.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            overlay(image, prediction.cam, self._resize).save(place, format="PNG")
        return prediction
