"""The robust recipe: for images of clinics and cameras that are not in the training data.

Most of ResNet50 learns, on balanced draws of strongly varied images.
The ingredients: `sampling` (what is drawn), `augment` (how it is varied), and the constants below.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import cpu
from lesion_edge.console import say
from lesion_train.augmented_dataset import AugmentedDataset, shrink
from lesion_train.features import cached_features
from lesion_train.fit import Checkpoint, Examples, Stage, fit_stage
from lesion_train.model import (
    build_model,
    feature_extractor,
    fold_norms,
    freeze_base,
    init_batchnorm_statistics,
    submodel_after,
    unfold_norms,
    unfreeze_final_layers,
)
from lesion_train.outlier_score import fit_outlier_score, pool_and_predict
from lesion_train.paper import HIDDEN_UNITS, SETTLING_IMAGES
from lesion_train.recipe import TrainingResult, load_split, name_left_out, resize_images, timed
from lesion_train.run import TrainConfig, data_digest
from lesion_train.sampling import sampling_weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesion_train.image_cache import ImageCache

EPOCHS = 10
BATCH_SIZE = 64
CACHED_SIZE = 200
"""Training images are kept at this size, pixels, for crops to come out of."""
HEAD_EPOCHS, HEAD_RATE = 3, 0.001
TRAIN_SIZE_RATIO = 0.9
"""Side of the images while the base learns, as a part of the image size.

Crops show lesions larger than whole images do; at a size a little smaller than what is judged, both show them
alike (Touvron et al. 2019, arXiv:1906.06423)."""
SAMPLES_PER_EPOCH = 15000
"""Images drawn for one epoch."""
FIRST_LAYER = "conv4_block1_1_conv"
"""Where the learning part of the base begins: 94 % of its weights."""
LEARNING_RATES = (1.5e-4, 1e-6)
"""Highest learning rate and that at the end."""
WARM_UP = 0.05
"""Part of the training in which the learning rate rises from a tenth of the highest."""
WEIGHT_DECAY = 1e-4
EMA_FRACTION = 0.05
"""Part of the training that the running average of the weights goes back over."""
STEP_COST = 4
"""A training step to a forward pass in time, with its views made: as the model that ships took on two cores."""
STRIDE = 32
"""Pixels of the image per place of the last feature map; smaller sizes are multiples of it."""


def train_robust(settings: TrainConfig, work: Path) -> TrainingResult:
    """Train the robust way; `work` keeps what a resumed run needs.

    Raises:
        LesionEdgeError: the data or the weights cannot be used.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    seconds: dict[str, float] = {}
    with timed(seconds, "split and resize"):
        dataset, positive_class = load_split(settings)
        parts = resize_images(dataset, settings, work, train_size=max(CACHED_SIZE, settings.image_size))
    left_out = name_left_out(dataset, parts)
    names = dataset.class_names
    positive = names.index(positive_class)
    labels = {name: np.array([sample.label for sample in part.samples]) for name, part in parts.items()}
    weights = sampling_weights(parts["train"].samples)
    size = settings.image_size if TRAIN_SIZE_RATIO == 1 else _whole_strides(TRAIN_SIZE_RATIO * settings.image_size)
    source = AugmentedDataset(parts["train"].pixels, labels["train"], weights, size, SAMPLES_PER_EPOCH)
    watched = Examples(shrink(parts["validation"].pixels, size), labels["validation"])

    model = build_learning_model(settings, len(names), parts["train"])
    progress = Checkpoint.load(work / "progress.npz")
    if not progress.stage:
        say(f"fine-tuning takes about {estimate_minutes(model, source, watched, settings.epochs):.0f} minutes")
    with timed(seconds, "frozen stage"):
        freeze_base(model)
        pooled = compute_head_features(model, source, watched, settings, parts, work)
        head = compile_model(submodel_after(model, after="avg_pool"), (HEAD_RATE, HEAD_RATE), 1)
        stage = Stage(
            "frozen", head, pooled["train"], pooled["validation"], HEAD_EPOCHS, BATCH_SIZE, positive=positive
        )
        fit_stage(stage, progress, settings.seed)

    with timed(seconds, "fine-tuned stage"):
        unfreeze_final_layers(model, FIRST_LAYER)
        compile_model(model, LEARNING_RATES, settings.epochs * -(-source.count // BATCH_SIZE))
        name = f"fine-tuned at {size}"
        stage = Stage(
            name,
            model,
            source,
            watched,
            settings.epochs,
            BATCH_SIZE,
            averaged=True,
            positive=positive,
            best_by="val_auc",
        )
        fit_stage(stage, progress, settings.seed)

    with timed(seconds, "judging"):
        # The same weights in float32 and at one size: what the exporter takes.
        finished = build_model(settings.image_size, len(names), "none", HIDDEN_UNITS)
        unfold_norms(model, finished)
        correct_class_prior(finished, labels["train"], weights)
        features, probabilities = pool_and_predict(finished, parts["validation"].pixels)
    with timed(seconds, "outliers"):
        outliers = fit_outlier_score(finished, parts["train"].pixels, features, settings.image_size, settings.seed)
    judged = {"validation": probabilities}
    return TrainingResult(
        finished, names, positive_class, dataset.root, parts, judged, progress.history, left_out, seconds, outliers
    )


def build_learning_model(settings: TrainConfig, classes: int, train: ImageCache) -> Any:
    """Build the network for any image size, with mixed precision where the machine is faster with it."""
    import keras

    before = keras.config.dtype_policy()
    fast = bool(keras.distribution.list_devices("gpu")) or cpu.has_bfloat16()
    keras.config.set_dtype_policy("mixed_bfloat16" if fast else "float32")
    try:
        model = build_model(None, classes, settings.weights, HIDDEN_UNITS)
    finally:
        keras.config.set_dtype_policy(before)
    if settings.weights == "none":
        init_batchnorm_statistics(model, train.pixels[:SETTLING_IMAGES])
    return fold_norms(model)


def compute_head_features(
    model: Any,
    source: AugmentedDataset,
    watched: Examples,
    settings: TrainConfig,
    parts: dict[str, ImageCache],
    work: Path,
) -> dict[str, Examples]:
    """Run the frozen base once over one epoch's views, for the head to learn from alone.

    A head that fits the base already spares it first steps in random directions (Kumar et al. 2022,
    arXiv:2202.10054).
    """
    extractor = feature_extractor(model, ["avg_pool"])
    key = data_digest(list(parts.values()))[:12]
    features = {}
    for name, examples in (
        ("train", source.draw(np.random.default_rng(settings.seed))),
        ("validation", watched),
    ):
        (pooled,) = cached_features(extractor, examples.inputs, [f"{name}-pooled"], work, key)
        features[name] = Examples(pooled, examples.labels)
    return features


def compile_model(model: Any, rates: tuple[float, float], steps: int) -> Any:
    """AdamW from one learning rate down to another with a running average of the weights."""
    import keras

    warm_up = int(WARM_UP * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        rates[0] / 10, steps - warm_up, alpha=rates[1] / rates[0], warmup_target=rates[0], warmup_steps=warm_up
    )
    momentum = 1 - 1 / max(1, EMA_FRACTION * steps)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, use_ema=True, ema_momentum=momentum)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def correct_class_prior(model: Any, labels: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    """Let probabilities be those of the classes as common as they are, not as often as they were drawn.

    Adds the logarithm of the ratio to the logits' bias (Elkan 2001, "The foundations of cost-sensitive learning").

    Args:
        labels: (N,), class indices of the training images.
        weights: (N,), how likely each was drawn; they sum to 1.
    """
    logits = model.get_layer("logits")
    kernel, bias = logits.get_weights()
    common = np.bincount(labels) / len(labels)
    logits.set_weights([kernel, bias + np.log(common / np.bincount(labels, weights))])


def estimate_minutes(model: Any, source: AugmentedDataset, watched: Examples, epochs: int) -> float:
    """Time one forward pass, and take the rest from it."""
    batch = np.zeros((BATCH_SIZE, source.size, source.size, 3), np.float32)
    model.predict_on_batch(batch)
    start = time.perf_counter()
    model.predict_on_batch(batch)
    forward = (time.perf_counter() - start) / BATCH_SIZE
    return epochs * (STEP_COST * source.count + len(watched.labels)) * forward / 60


def _whole_strides(size: float) -> int:
    return STRIDE * max(1, round(size / STRIDE))
