"""Robust recipe: for images of clinics and cameras that are not in the training data.

Most of ResNet50 learns, on balanced draws of strongly varied images.
The ingredients: `sampling` (what is drawn), `augment` (how it is varied), and `RobustConfig`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import cpu
from lesion_edge.console import say
from lesion_train.augmented_dataset import AugmentedDataset, sample_colors, shrink
from lesion_train.features import cached_features
from lesion_train.fit import Examples, Stage, fit_stage
from lesion_train.model import (
    build_model,
    feature_extractor,
    fold_norms,
    freeze_base,
    init_batchnorm_statistics,
    require_layers,
    submodel_after,
    unfold_norms,
    unfreeze_final_layers,
)
from lesion_train.optimizer import compile_model, learning_rate_schedule
from lesion_train.outlier_score import fit_outlier_score, pool_and_predict
from lesion_train.recipe import TrainingData, TrainingResult, load_training_data, start_or_resume, timed
from lesion_train.sampling import sampling_weights
from lesion_train.sources import assign_source, choose_evenly, drop_single_class_sources, one_image_per_lesion

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesion_train.dataset import Dataset
    from lesion_train.robust_config import RobustConfig
    from lesion_train.run import TrainConfig

STEP_COST = 4
"""Time of a training step, views included, to that of a forward pass: as measured on two cores."""
STRIDE = 32
"""Pixels of the image per place of the last feature map; smaller sizes are multiples of it."""


def train_robust(settings: TrainConfig[RobustConfig], work: Path) -> TrainingResult:
    """Train the robust way; `work` folder for what a resumed run needs.

    Raises:
        LesionEdgeError: the data, the weights or a layer's name cannot be used.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "split and resize"):
        size = max(settings.config.cached_size, settings.image_size)
        data = load_training_data(settings, work, size, partial(select_samples, config=settings.config))
    return fit_robust(settings, data, work, seconds)


def select_samples(dataset: Dataset, config: RobustConfig) -> Dataset:
    """Leave out what would teach the camera, and judge every validation lesion by one image."""
    if not config.keep_single_class_sources:
        dataset, sentences = drop_single_class_sources(dataset)
        for sentence in sentences:
            say(sentence)
    return replace(dataset, validation=one_image_per_lesion(dataset.validation))


def fit_robust(
    settings: TrainConfig[RobustConfig], data: TrainingData, work: Path, seconds: dict[str, float]
) -> TrainingResult:
    """Train the robust way on decoded images.

    Args:
        data: the training split at the cached size, the validation split at the image size.
        work: folder for what a resumed run needs.
        seconds: receives the wall time of each step.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    config = settings.config
    weights = draw_probabilities(data, config)
    train, validation = training_examples(settings, data, weights)
    model = build_learning_model(settings, data)
    progress = start_or_resume(settings, data, model, work)
    model = prepare_base(model, settings, data)
    if not progress.stage:
        minutes = estimate_minutes(model, train, len(validation.labels), config)
        say(f"fine-tuning takes about {minutes:.0f} minutes")
    with timed(seconds, "frozen stage"):
        freeze_base(model)
        head_views = replace(train, count=min(config.head_samples, train.count))
        features = compute_head_features(model, head_views, validation, settings.seed, work, progress.key)
        fit_stage(head_stage(model, features, data, config), progress, settings.seed)
    with timed(seconds, "fine-tuned stage"):
        fit_stage(fine_tuning_stage(model, train, validation, data, config), progress, settings.seed)

    with timed(seconds, "evaluation"):
        finished = finish_model(model, settings, data, weights)
        validation_pixels = data.splits["validation"].pixels
        pooled, probabilities = pool_and_predict(finished, validation_pixels, config.outlier_score.layer)
    with timed(seconds, "outlier score"):
        outlier_score = fit_outlier_score(
            finished,
            data.splits["train"].pixels,
            pooled,
            settings.image_size,
            config.outlier_score,
            config.augmentation,
            settings.seed,
        )
    return TrainingResult(finished, data, {"validation": probabilities}, progress.history, seconds, outlier_score)


def draw_probabilities(data: TrainingData, config: RobustConfig) -> NDArray[np.float64]:
    """Probability of each training image to be drawn, (N,); they sum to 1."""
    samples = data.splits["train"].samples
    if not config.balanced:
        return np.full(len(samples), 1 / len(samples))
    return sampling_weights(samples, config.source_exponent, config.diagnosis_exponent)


def training_examples(
    settings: TrainConfig[RobustConfig], data: TrainingData, weights: NDArray[np.float64]
) -> tuple[AugmentedDataset, Examples]:
    """Balanced views of the training split, and what is watched of the validation split, at their size."""
    config = settings.config
    size = settings.image_size
    if config.train_size_ratio != 1:
        size = _whole_strides(config.train_size_ratio * settings.image_size)
    train = AugmentedDataset(
        data.splits["train"].pixels,
        data.labels("train"),
        weights,
        size,
        config.samples_per_epoch,
        config.augmentation,
        sample_colors(data.splits["train"].pixels, weights, config.borrowed_colors, settings.seed),
    )
    return train, watched_examples(data, size, config.watched_images, settings.seed)


def watched_examples(data: TrainingData, size: int, per_class: int, seed: int) -> Examples:
    """Validation images at `size`, at most `per_class` of each class in each source, so that all count alike."""
    samples = data.splits["validation"].samples
    chosen = choose_evenly(samples, per_class, seed)
    pixels = shrink(data.splits["validation"].pixels[chosen], size)
    return Examples(pixels, data.labels("validation")[chosen], np.array(assign_source(samples))[chosen])


def head_stage(model: Any, features: dict[str, Examples], data: TrainingData, config: RobustConfig) -> Stage:
    """Stage in which the head learns alone, on the frozen base's features."""
    head = compile_model(submodel_after(model, after="avg_pool"), config.head_learning_rate, config)
    positive_index = data.class_names.index(data.positive_class)
    return Stage(
        1,
        "frozen",
        head,
        features["train"],
        features["validation"],
        config.head_epochs,
        config.batch_size,
        positive_index=positive_index,
    )


def fine_tuning_stage(
    model: Any, train: AugmentedDataset, validation: Examples, data: TrainingData, config: RobustConfig
) -> Stage:
    """Stage in which most of the base learns."""
    unfreeze_final_layers(model, config.first_trainable_layer)
    compile_model(model, learning_rate_schedule(config), config)
    return Stage(
        2,
        f"fine-tuned at {train.size}",
        model,
        train,
        validation,
        config.epochs,
        config.batch_size,
        averaged=True,
        positive_index=data.class_names.index(data.positive_class),
        best_by="val_auc",
    )


def finish_model(
    model: Any, settings: TrainConfig[RobustConfig], data: TrainingData, weights: NDArray[np.float64]
) -> Any:
    """Model for export: the same weights in float32 and at one size, corrected to the data's class prior."""
    config = settings.config
    finished = build_model(settings.image_size, len(data.class_names), "none", config.hidden_units)
    if config.fold_batchnorm:
        unfold_norms(model, finished)
    else:
        finished.set_weights(model.get_weights())
    correct_class_prior(finished, data.labels("train"), weights)
    return finished


def build_learning_model(settings: TrainConfig[RobustConfig], data: TrainingData) -> Any:
    """Build the network for any image size, with mixed precision where the machine is faster with it."""
    import keras

    config = settings.config
    before = keras.config.dtype_policy()
    fast = bool(keras.distribution.list_devices("gpu")) or cpu.has_bfloat16()
    keras.config.set_dtype_policy("mixed_bfloat16" if fast else "float32")
    try:
        model = build_model(None, len(data.class_names), settings.weights, config.hidden_units)
    finally:
        keras.config.set_dtype_policy(before)
    require_layers(
        model, [name for name in (config.first_trainable_layer, config.outlier_score.layer) if name != "none"]
    )
    return model


def prepare_base(model: Any, settings: TrainConfig[RobustConfig], data: TrainingData) -> Any:
    """Statistics for a base without ImageNet weights, and batch normalisation inside the convolutions."""
    config = settings.config
    if settings.weights == "none":
        images = data.splits["train"].pixels[: config.batchnorm_images]
        init_batchnorm_statistics(model, images, config.random_branch_scale)
    return fold_norms(model) if config.fold_batchnorm else model


def compute_head_features(
    model: Any, train: AugmentedDataset, validation: Examples, seed: int, work: Path, key: str
) -> dict[str, Examples]:
    """Run the frozen base once over drawn views, for the head to learn from alone.

    A head that fits the base already spares it first steps in random directions (Kumar et al. 2022,
    arXiv:2202.10054).

    Args:
        key: of the checkpoint; features of another one are not used.
    """
    extractor = feature_extractor(model, ["avg_pool"])
    features = {}
    for name, examples in (("train", train.draw(np.random.default_rng(seed))), ("validation", validation)):
        (pooled,) = cached_features(extractor, examples.inputs, [f"{name}-pooled"], work, key)
        features[name] = Examples(pooled, examples.labels, examples.sources)
    return features


def correct_class_prior(model: Any, labels: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    """Correct probabilities from the classes as they were drawn to the classes as common as they are.

    Adds the logarithm of the ratio to the logits' bias (Elkan 2001, "The foundations of cost-sensitive learning").

    Args:
        labels: (N,), class indices of the training images.
        weights: (N,), how likely each was drawn; they sum to 1.
    """
    logits = model.get_layer("logits")
    kernel, bias = logits.get_weights()
    common = np.bincount(labels) / len(labels)
    logits.set_weights([kernel, bias + np.log(common / np.bincount(labels, weights))])


def estimate_minutes(model: Any, train: AugmentedDataset, validation_images: int, config: RobustConfig) -> float:
    """Time of the fine-tuned stage, from that of one forward pass."""
    batch = np.zeros((config.batch_size, train.size, train.size, 3), np.float32)
    model.predict_on_batch(batch)
    start = time.perf_counter()
    model.predict_on_batch(batch)
    forward = (time.perf_counter() - start) / config.batch_size
    return config.epochs * (STEP_COST * train.count + validation_images) * forward / 60


def _whole_strides(size: float) -> int:
    return STRIDE * max(1, round(size / STRIDE))
