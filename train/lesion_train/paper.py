"""Recipe of the paper, step by step.

Hussain, Zia, Haider: "Deep Learning-Based Classification of Skin Lesions Using Transfer Learning with ResNet50".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lesion_edge.errors import LesionEdgeError
from lesion_train.config import COUNT, NOT_NEGATIVE, POSITIVE
from lesion_train.features import cached_features, predict_batches
from lesion_train.fit import Examples, Stage, fit_stage
from lesion_train.model import (
    BASE,
    build_model,
    feature_extractor,
    freeze_base,
    init_batchnorm_statistics,
    require_layers,
    submodel_after,
    unfreeze_final_layers,
)
from lesion_train.recipe import TrainingData, TrainingResult, load_training_data, start_or_resume, timed

if TYPE_CHECKING:
    from pathlib import Path

    from lesion_train.run import TrainConfig


@dataclass(frozen=True)
class PaperConfig:
    """Hyperparameters of the paper's recipe; a value without a source is this implementation's."""

    epochs: int = field(default=2, metadata=COUNT)
    """Epochs of each of the two stages, frozen and fine-tuned (the paper)."""
    batch_size: int = field(default=32, metadata=COUNT)
    """Images per step (Keras' default)."""
    learning_rate: float = field(default=0.001, metadata=POSITIVE)
    """Learning rate of Adam in both stages (the paper)."""
    hidden_units: int = field(default=512, metadata=COUNT)
    """Width of the dense layer before the softmax."""
    first_trainable_layer: str = "conv5_block3_1_conv"
    """First fine-tuned layer, the first convolution of a residual block.

    The paper says "the final few layers": this is the last of the sixteen blocks."""
    batchnorm_images: int = field(default=128, metadata=COUNT)
    """Training images that set the statistics of batch normalisation, without ImageNet weights only."""
    random_branch_scale: float = field(default=0.2, metadata=NOT_NEGATIVE)
    """Initial scale of each residual branch, without ImageNet weights only (after Goyal et al. 2017)."""


def train_paper(settings: TrainConfig[PaperConfig], work: Path) -> TrainingResult:
    """Train as the paper does; `work` keeps what a resumed run needs.

    Raises:
        LesionEdgeError: the data, the weights or a layer's name cannot be used.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    config = settings.config
    seconds: dict[str, float] = {}
    with timed(seconds, "split and resize"):
        data = load_training_data(settings, work)
    model = build_model(settings.image_size, len(data.class_names), settings.weights, config.hidden_units)
    last_frozen = _block_input(model, config.first_trainable_layer)
    progress = start_or_resume(settings, data, model, work)
    if settings.weights == "none":
        images = data.splits["train"].pixels[: config.batchnorm_images]
        init_batchnorm_statistics(model, images, config.random_branch_scale)
    freeze_base(model)
    with timed(seconds, "frozen features"):
        pooled, late = compute_frozen_features(model, last_frozen, data, work, progress.key)

    with timed(seconds, "frozen stage"):
        head = compile_model(submodel_after(model, after="avg_pool"), config.learning_rate)
        stage = Stage(1, "frozen", head, pooled["train"], pooled["validation"], config.epochs, config.batch_size)
        fit_stage(stage, progress, settings.seed)

    unfreeze_final_layers(model, config.first_trainable_layer)
    with timed(seconds, "fine-tuned stage"):
        final_layers = compile_model(submodel_after(model, after=last_frozen), config.learning_rate)
        stage = Stage(
            2, "fine-tuned", final_layers, late["train"], late["validation"], config.epochs, config.batch_size
        )
        fit_stage(stage, progress, settings.seed)

    probabilities = {name: predict_batches(final_layers, examples.inputs) for name, examples in late.items()}
    return TrainingResult(model, data, probabilities, progress.history, seconds)


def compute_frozen_features(
    model: Any, last_frozen: str, data: TrainingData, work: Path, key: str
) -> tuple[dict[str, Examples], dict[str, Examples]]:
    """Run the frozen base once over all images: its pooled output, and what the final layers take.

    Args:
        last_frozen: the layer of the base whose output the final layers take.
        key: of the checkpoint; features of another one are not used.
    """
    extractor = feature_extractor(model, ["avg_pool", last_frozen])
    pooled, late = {}, {}
    for name, split in data.splits.items():
        files = [f"{name}-pooled", f"{name}-late"]
        values = cached_features(extractor, split.pixels, files, work, key)
        pooled[name], late[name] = (Examples(array, data.labels(name)) for array in values)
    return pooled, late


def compile_model(model: Any, learning_rate: float) -> Any:
    """Set the paper's optimiser, loss and metric."""
    import keras

    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _block_input(model: Any, first_layer: str) -> str:
    """Name of the layer whose output a residual block takes, given the block's first convolution."""
    require_layers(model, [first_layer])
    if not first_layer.endswith("_1_conv"):
        raise LesionEdgeError(f"first_trainable_layer={first_layer} is not the first convolution of a block")
    return str(model.get_layer(BASE).get_layer(first_layer).input._keras_history.operation.name)
