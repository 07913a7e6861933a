"""Knows lesions from other images by the network's own features, in one number per image.

Two questions about the mean of an inner feature map, because neither answers for both kinds of image:
far from all lesions (a cat, a page of text)? Mahalanobis distance (Lee et al. 2018, arXiv:1807.03888), its small
directions taken together as a residual. Or skin without a lesion, which lies between lesions? A linear
discriminant against generated skin.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_train.augment import augment
from lesion_train.augmented_dataset import shrink
from lesion_train.features import predict_batches
from lesion_train.model import feature_extractor, submodel_after
from lesion_train.skin import draw_skin

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LAYER = "conv4_block6_out"
"""Early enough not to have forgotten what tells no lesions apart."""
DIRECTIONS = 64
"""Principal directions with a variance of their own."""
FITTED, SKINS = 600, 150
"""Training images (each plain and augmented) and generated skins that the score is fitted on."""
VARIANCE_FLOOR = 0.05
"""Added to each direction's variance, in units of their mean."""
ACCEPTANCE_RATE = 0.9925
"""Share of the validation lesions that each of the two questions lets pass."""


@dataclass(frozen=True)
class Outliers:
    """What the score is computed from; a score above 1 is no lesion."""

    mean: NDArray[np.float32]
    """(C,), of the square roots of lesions' features."""
    directions: NDArray[np.float32]
    """(C, D), orthonormal."""
    weights: NDArray[np.float32]
    """(D,), of the squared coordinates along them, less the residual's."""
    residual: NDArray[np.float32]
    """(), weight of the squared length."""
    probe: NDArray[np.float32]
    """(C,), towards skin without a lesion."""
    probe_bias: NDArray[np.float32]

    def score(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score of the mean of the feature map, (N, C) to (N,); 1 is the limit."""
        centred = np.sqrt(np.maximum(pooled, 0)) - self.mean
        distance = self.residual * (centred**2).sum(axis=1) + (centred @ self.directions) ** 2 @ self.weights
        return np.asarray(np.maximum(distance, centred @ self.probe + self.probe_bias), np.float32)

    def refused(self, pooled: NDArray[np.float32]) -> float:
        """Share of images that the score calls no lesion, 0 to 1."""
        return float((self.score(pooled) > 1).mean())

    def save(self, file: Path) -> None:
        """Write the arrays, and the layer they are about."""
        np.savez(file, allow_pickle=False, layer=LAYER, **asdict(self))


def fit_outliers(
    model: Any, train: NDArray[np.uint8], validation: NDArray[np.float32], size: int, seed: int
) -> Outliers:
    """Fit both questions on training images, and their limits on validation lesions.

    Args:
        model: the trained classifier, for images of `size`.
        train: uint8 (N, S, S, 3), RGB.
        validation: pooled features of the validation images, (M, C).
        size: side of the network's input, pixels.
    """
    rng = np.random.default_rng(seed)
    chosen = np.asarray(train[np.sort(rng.choice(len(train), min(FITTED, len(train)), replace=False))])
    varied = np.stack([augment(image, size, rng) for image in chosen])
    lesions, _ = pool_and_predict(model, np.concatenate([shrink(chosen, size), varied]))
    skin, _ = pool_and_predict(model, np.stack([draw_skin(rng, size) for _ in range(SKINS)]))
    return fit_score(lesions, skin, validation)


def fit_score(
    lesions: NDArray[np.float32], skin: NDArray[np.float32], validation: NDArray[np.float32]
) -> Outliers:
    """Fit on pooled features, each (N, C): a normal distribution of lesions, its small directions alike.

    The probe is the linear discriminant between lesions and skin under that distribution's covariance.
    """
    lesions, skin, validation = (
        np.sqrt(np.maximum(part, 0), dtype=np.float64) for part in (lesions, skin, validation)
    )
    mean = lesions.mean(axis=0)
    variances, vectors = (part[..., ::-1] for part in np.linalg.eigh(np.cov(lesions, rowvar=False)))
    # Fewer images than channels leave directions without any variance.
    variances = variances + VARIANCE_FLOOR * variances.mean()
    count = min(DIRECTIONS, len(variances) // 2)
    directions, residual = vectors[:, :count], 1 / variances[count:].mean()
    weights = 1 / variances[:count] - residual
    difference = skin.mean(axis=0) - mean
    probe = residual * difference + directions @ (weights * (difference @ directions))

    centred = validation - mean
    distance = residual * (centred**2).sum(axis=1) + (centred @ directions) ** 2 @ weights
    far = np.quantile(distance, ACCEPTANCE_RATE)
    typical, skinlike = np.quantile(centred @ probe, (0.5, ACCEPTANCE_RATE))
    span = skinlike - typical
    arrays = (mean, directions, weights / far, residual / far, probe / span, -typical / span)
    return Outliers(*(np.asarray(array, np.float32) for array in arrays))


def pool_and_predict(model: Any, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the classifier once over images (N, S, S, 3) RGB.

    Returns:
        Mean over the feature map of LAYER, (N, C), and probabilities, (N, K).
    """
    import keras

    extractor = feature_extractor(model, [LAYER, "avg_pool"])
    feature_map, last = extractor.outputs
    pooled = keras.layers.GlobalAveragePooling2D()(feature_map)
    both = keras.layers.Concatenate()([pooled, submodel_after(model, after="avg_pool")(last)])
    values = predict_batches(keras.Model(extractor.inputs, both), pixels)
    return values[:, : pooled.shape[-1]], values[:, pooled.shape[-1] :]
