"""What a stage of the robust recipe learns from: augmented views of drawn images, made while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lesion_train.augment import Augmentation, augment, measure_colors
from lesion_train.fit import Batches, Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AugmentedDataset:
    """Training images of which every epoch draws and varies its own."""

    pixels: NDArray[np.uint8]
    """(N, H, W, 3), RGB."""
    labels: NDArray[np.int64]
    """(N,), class indices."""
    weights: NDArray[np.float64]
    """(N,), how likely each image is drawn; they sum to 1."""
    size: int
    """Side S of the views, pixels."""
    count: int
    """Views per epoch."""
    augmentation: Augmentation
    colors: NDArray[np.float32] | None = None
    """(M, 2, 3), of other images to borrow from, as `measure_colors` gives them."""

    def draw(self, rng: np.random.Generator) -> Examples:
        """One epoch: float32 (count, S, S, 3) views, each made when it is read, and their labels."""
        drawn = rng.choice(len(self.labels), self.count, p=self.weights)
        return Examples(_Drawn(self, drawn, rng.integers(2**63, size=self.count)), self.labels[drawn])

    def batches(self, batch_size: int, rng: np.random.Generator) -> Batches:
        """One epoch."""
        return self.draw(rng).batches(batch_size)


@dataclass(frozen=True)
class _Drawn:
    """Looks like an array; every view depends on its own seed alone, so threads may make them in any order."""

    views: AugmentedDataset
    drawn: NDArray[np.int64]
    seeds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, positions: Any) -> NDArray[np.float32]:
        source, size = self.views.pixels, self.views.size
        config = self.views.augmentation
        pairs = zip(self.drawn[positions], self.seeds[positions], strict=True)
        colors = self.views.colors
        views = [
            augment(source[index], size, config, np.random.default_rng(seed), colors) for index, seed in pairs
        ]
        return np.stack(views).astype(np.float32)


def sample_colors(
    pixels: NDArray[np.uint8], weights: NDArray[np.float64], count: int, seed: int
) -> NDArray[np.float32]:
    """Colors of images (N, H, W, 3), drawn as training draws them, (count, 2, 3)."""
    drawn = np.sort(np.random.default_rng(seed).choice(len(weights), count, p=weights))
    return np.stack([measure_colors(pixels[index]) for index in drawn])


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize square images (N, S, S, 3) to (N, size, size, 3)."""
    if pixels.shape[1] == size:
        return pixels
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in pixels])
