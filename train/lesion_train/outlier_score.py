"""Out-of-distribution score from intermediate features, one number per image.

Two questions about the mean of an inner feature map, because neither answers for both kinds of image:
far from all lesions (a cat, a page of text)? Mahalanobis distance (Lee et al. 2018, arXiv:1807.03888), its small
directions taken together as a residual. Or skin without a lesion, which lies between lesions? A linear
discriminant against generated skin.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import atomic
from lesion_edge.errors import LesionEdgeError
from lesion_train.augment import Augmentation, augment
from lesion_train.augmented_dataset import shrink
from lesion_train.config import COUNT, NOT_NEGATIVE, SHARE
from lesion_train.features import predict_batches
from lesion_train.model import feature_extractor, submodel_after
from lesion_train.skin import draw_skin

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAME = "outlier_score.npz"


@dataclass(frozen=True)
class OutlierScoreConfig:
    """Hyperparameters of the fit."""

    layer: str = "conv4_block6_out"
    """Keras' name of the layer: early enough not to have forgotten what tells no lesions apart."""
    directions: int = field(default=64, metadata=COUNT)
    """Principal directions with a variance of their own; the others share one."""
    training_images: int = field(default=600, metadata={"low": 2})
    """Lesions that the score is fitted on, each plain and augmented."""
    skin_images: int = field(default=150, metadata=COUNT)
    """Generated skins that the score is fitted on."""
    variance_floor: float = field(default=0.05, metadata=NOT_NEGATIVE)
    """Term added to each direction's variance, in units of their mean."""
    acceptance_rate: float = field(default=0.9925, metadata=SHARE)
    """Share of the validation lesions that each of the two questions lets pass."""


@dataclass(frozen=True)
class OutlierScore:
    """Fitted score: larger for what is less like a lesion, 1 being the limit of the fit."""

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
    """()."""
    layer: str
    """Keras' name of the layer whose feature map is looked at."""

    def score(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score of the mean of the feature map, (N, C) to (N,)."""
        centred = np.sqrt(np.maximum(pooled, 0)) - self.mean
        distance = self.residual * (centred**2).sum(axis=1) + (centred @ self.directions) ** 2 @ self.weights
        return np.asarray(np.maximum(distance, centred @ self.probe + self.probe_bias), np.float32)

    def refused_share(self, pooled: NDArray[np.float32]) -> float:
        """Share of images above the limit, 0 to 1."""
        return float((self.score(pooled) > 1).mean())

    def save(self, run: Path) -> None:
        """Write `outlier_score.npz` of a run folder."""
        with atomic.replacing(run / FILE_NAME) as stream:
            np.savez(stream, allow_pickle=False, **asdict(self))

    @classmethod
    def load(cls, run: Path) -> OutlierScore | None:
        """Read `outlier_score.npz` of a run folder; None where the recipe fits no score.

        Raises:
            LesionEdgeError: it is damaged.
        """
        path = run / FILE_NAME
        if not path.exists():
            return None
        try:
            with np.load(path) as saved:
                arrays = {entry.name: saved[entry.name] for entry in fields(cls) if entry.name != "layer"}
                loaded = cls(**arrays, layer=str(saved["layer"]))
            channels, directions = loaded.directions.shape
        except Exception as error:  # NumPy raises many types on a file that is no archive
            raise LesionEdgeError(f"{path} is damaged: {error!r}") from None
        shapes = [value.shape for value in arrays.values()]
        if shapes != [(channels,), (channels, directions), (directions,), (), (channels,), ()]:
            raise LesionEdgeError(f"{path} is damaged: its arrays have the shapes {shapes}")
        return loaded


def fit_outlier_score(
    model: Any,
    train: NDArray[np.uint8],
    validation: NDArray[np.float32],
    size: int,
    config: OutlierScoreConfig,
    augmentation: Augmentation,
    seed: int,
) -> OutlierScore:
    """Fit both questions on training images and their limits on validation lesions.

    Args:
        model: the trained classifier, for images of `size`.
        train: uint8 (N, S, S, 3), RGB.
        validation: pooled features of the validation images, (M, C).
        size: side of the network's input, pixels.
    """
    rng = np.random.default_rng(seed)
    subset = np.asarray(
        train[np.sort(rng.choice(len(train), min(config.training_images, len(train)), replace=False))]
    )
    varied = np.stack([augment(image, size, augmentation, rng) for image in subset])
    lesions, _ = pool_and_predict(model, np.concatenate([shrink(subset, size), varied]), config.layer)
    skins = np.stack([draw_skin(rng, size) for _ in range(config.skin_images)])
    skin, _ = pool_and_predict(model, skins, config.layer)
    return fit_score(lesions, skin, validation, config)


def fit_score(
    lesions: NDArray[np.float32],
    skin: NDArray[np.float32],
    validation: NDArray[np.float32],
    config: OutlierScoreConfig,
) -> OutlierScore:
    """Fit on pooled features, each (N, C): a normal distribution of lesions, its small directions alike.

    The probe is the linear discriminant between lesions and skin under that distribution's covariance.
    """
    lesions, skin, validation = (
        np.sqrt(np.maximum(features, 0), dtype=np.float64) for features in (lesions, skin, validation)
    )
    mean = lesions.mean(axis=0)
    variances, vectors = (values[..., ::-1] for values in np.linalg.eigh(np.cov(lesions, rowvar=False)))
    # Fewer images than channels leave directions without any variance.
    variances = variances + config.variance_floor * variances.mean()
    count = min(config.directions, len(variances) // 2)
    directions, residual = vectors[:, :count], 1 / variances[count:].mean()
    weights = 1 / variances[:count] - residual
    difference = skin.mean(axis=0) - mean
    probe = residual * difference + directions @ (weights * (difference @ directions))

    centred = validation - mean
    distance = residual * (centred**2).sum(axis=1) + (centred @ directions) ** 2 @ weights
    far = np.quantile(distance, config.acceptance_rate)
    typical, skinlike = np.quantile(centred @ probe, (0.5, config.acceptance_rate))
    span = skinlike - typical
    return OutlierScore(
        mean=np.asarray(mean, np.float32),
        directions=np.asarray(directions, np.float32),
        weights=np.asarray(weights / far, np.float32),
        residual=np.asarray(residual / far, np.float32),
        probe=np.asarray(probe / span, np.float32),
        probe_bias=np.asarray(-typical / span, np.float32),
        layer=config.layer,
    )


def pool_and_predict(
    model: Any, pixels: NDArray[np.uint8], layer: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the classifier once over images (N, S, S, 3) RGB.

    Returns:
        Mean over the feature map of `layer`, (N, C), and probabilities, (N, K).
    """
    import keras

    extractor = feature_extractor(model, [layer, "avg_pool"])
    feature_map, last = extractor.outputs
    pooled = keras.layers.GlobalAveragePooling2D()(feature_map)
    both = keras.layers.Concatenate()([pooled, submodel_after(model, after="avg_pool")(last)])
    values = predict_batches(keras.Model(extractor.inputs, both), pixels)
    return values[:, : pooled.shape[-1]], values[:, pooled.shape[-1] :]
