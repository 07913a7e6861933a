"""The paper's recipe, step by step.

Hussain, Zia, Haider: "Deep Learning-Based Classification of Skin Lesions Using Transfer Learning with ResNet50".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_train.features import cached_features, predict_batches
from lesion_train.fit import Checkpoint, Examples, Stage, fit_stage
from lesion_train.model import (
    build_model,
    feature_extractor,
    freeze_base,
    init_batchnorm_statistics,
    submodel_after,
    unfreeze_final_layers,
)
from lesion_train.recipe import TrainingResult, load_split, name_left_out, resize_images, timed
from lesion_train.run import TrainConfig, data_digest

if TYPE_CHECKING:
    from pathlib import Path

    from lesion_train.image_cache import ImageCache

EPOCHS = 2
LEARNING_RATE = 0.001
BATCH_SIZE = 32
HIDDEN_UNITS = 512
SETTLING_IMAGES = 128
LAST_FROZEN_LAYER = "conv5_block2_out"
FIRST_UNFROZEN_LAYER = "conv5_block3_1_conv"
"""The paper unfreezes "the final few" layers: here the last of the sixteen residual blocks."""


def train_paper(settings: TrainConfig, work: Path) -> TrainingResult:
    """Train as the paper does; `work` keeps what a resumed run needs.

    Raises:
        LesionEdgeError: the data or the weights cannot be used.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    seconds: dict[str, float] = {}
    with timed(seconds, "split and resize"):
        dataset, positive_class = load_split(settings)
        parts = resize_images(dataset, settings, work)
    left_out = name_left_out(dataset, parts)
    model = build_model(settings.image_size, len(dataset.class_names), settings.weights, HIDDEN_UNITS)
    if settings.weights == "none":
        init_batchnorm_statistics(model, parts["train"].pixels[:SETTLING_IMAGES])
    freeze_base(model)
    with timed(seconds, "frozen features"):
        pooled, late = compute_frozen_features(model, settings, parts, work)

    progress = Checkpoint.load(work / "progress.npz")
    with timed(seconds, "frozen stage"):
        head = compile_model(submodel_after(model, after="avg_pool"))
        stage = Stage("frozen", head, pooled["train"], pooled["validation"], settings.epochs, BATCH_SIZE)
        fit_stage(stage, progress, settings.seed)

    unfreeze_final_layers(model, FIRST_UNFROZEN_LAYER)
    with timed(seconds, "fine-tuned stage"):
        rest = compile_model(submodel_after(model, after=LAST_FROZEN_LAYER))
        stage = Stage("fine-tuned", rest, late["train"], late["validation"], settings.epochs, BATCH_SIZE)
        fit_stage(stage, progress, settings.seed)

    probabilities = {name: predict_batches(rest, examples.inputs) for name, examples in late.items()}
    return TrainingResult(
        model,
        dataset.class_names,
        positive_class,
        dataset.root,
        parts,
        probabilities,
        progress.history,
        left_out,
        seconds,
    )


def compute_frozen_features(
    model: Any, settings: TrainConfig, parts: dict[str, ImageCache], work: Path
) -> tuple[dict[str, Examples], dict[str, Examples]]:
    """Run the frozen base once over all images: its pooled output, and what the final layers take."""
    extractor = feature_extractor(model, ["avg_pool", LAST_FROZEN_LAYER])
    # A resumed run may meet changed images; the weights are already fixed by its settings.
    key = data_digest(list(parts.values()))[:12]
    pooled, late = {}, {}
    for name, part in parts.items():
        labels = np.array([sample.label for sample in part.samples])
        files = [f"{name}-pooled", f"{name}-late"]
        values = cached_features(extractor, part.pixels, files, work, key)
        pooled[name], late[name] = (Examples(array, labels) for array in values)
    return pooled, late


def compile_model(model: Any) -> Any:
    """Set the paper's optimiser, loss and the accuracy it watches."""
    import keras

    model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
