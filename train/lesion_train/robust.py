"""The robust recipe: for images of clinics and cameras that are not in the training data.

All of ResNet50 learns, on balanced draws of strongly varied pictures, first small and then at full size.
Each ingredient is a function or a constant here, in `sampling` or in `augment`; docs/robust.md says what each gained.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lesion_edge.command import say
from lesion_train import precision
from lesion_train.augment import augment
from lesion_train.features import cached_features, predict_batches
from lesion_train.fit import Examples, Progress, Stage, batches_of, fit_stage
from lesion_train.model import BASE, build_model, feature_extractor, freeze_base, rest_of_model, settle_random_base, unfreeze_final_layers
from lesion_train.paper import HIDDEN_UNITS, SETTLING_IMAGES, Trained, load_split, name_left_out, resize_images, timed
from lesion_train.sampling import draw_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesion_train.pixels import Decoded
    from lesion_train.run import Settings

EPOCHS = 4
BATCH_SIZE = 32
STORED_SIDE = 200
"""Training pictures are kept at this size, pixels, for crops to come out of."""
HEAD_EPOCHS, HEAD_RATE = 8, 0.001
SIZES = (0.625, 1.0)
"""Side of the pictures in each fine-tuned stage, as a part of the image size (progressive resizing)."""
EPOCH_VIEWS = (5000, 3000)
"""Pictures drawn for one epoch of each fine-tuned stage."""
RATES = ((1e-4, 5e-5), (5e-5, 1e-6))
"""Learning rate at the start and the end of each fine-tuned stage."""
WEIGHT_DECAY = 1e-4
AVERAGING = 0.99
"""Share of the old in the running average of the weights, per step; an epoch ends on the average."""
FIRST_LEARNING_LAYER = "conv1_conv"


@dataclass(frozen=True)
class Views:
    """Augmented views of drawn pictures, made one batch at a time."""

    pixels: NDArray[np.uint8]
    """(N, H, W, 3), RGB."""
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    """(N,), how likely each is drawn."""
    size: int
    """Side of the views, pixels."""
    count: int
    """Views per epoch."""

    def batches(self, batch_size: int, rng: np.random.Generator) -> Any:
        """One epoch: a `keras.utils.PyDataset` of float32 (B, size, size, 3) and labels."""
        drawn = rng.choice(len(self.labels), self.count, p=self.weights)
        views = _Drawn(self, drawn, rng.integers(2**63, size=self.count))
        return batches_of(Examples(views, self.labels[drawn]), np.arange(self.count), batch_size, workers=2)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Drawn:
    """Views of one epoch, each made when it is asked for; looks like float32 (count, size, size, 3)."""

    views: Views
    drawn: NDArray[np.int64]
    seeds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, positions: Any) -> NDArray[np.float32]:
        chosen = np.arange(len(self.drawn))[positions]
        views = (
            augment(self.views.pixels[self.drawn[i]], self.views.size, np.random.default_rng(self.seeds[i]))
            for i in chosen
        )
        return np.stack(list(views)).astype(np.float32)


def train_robust(settings: Settings, work: Path) -> Trained:
    """Train the robust way; `work` keeps what a resumed run needs.

    Raises:
        LesionEdgeError: the data or the weights cannot be used.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    seconds: dict[str, float] = {}
    with timed(seconds, "split and resize"):
        dataset = load_split(settings)
        parts = resize_images(dataset, settings, work, train_size=max(STORED_SIDE, settings.image_size))
    left_out = name_left_out(dataset, parts)
    labels = {name: np.array([sample.label for sample in part.samples]) for name, part in parts.items()}
    weights = draw_weights(parts["train"].samples)
    names = dataset.class_names
    positive = names.index(settings.positive_class or ("malignant" if "malignant" in names else names[-1]))

    model = build_learning_model(settings, len(names), parts["train"])
    progress = Progress.load(work / "progress.npz")
    sizes = [32 * max(1, round(part * settings.image_size / 32)) if part < 1 else settings.image_size for part in SIZES]

    def views(size: int, count: int) -> Views:
        return Views(parts["train"].pixels, labels["train"], weights, size, count)

    def watched(size: int) -> Examples:
        return Examples(shrink(parts["validation"].pixels, size), labels["validation"])

    with timed(seconds, "frozen stage"):
        freeze_base(model)
        if not progress.stage:
            say(f"fine-tuning takes about {estimate_minutes(model, sizes, settings.epochs, len(labels['validation'])):.0f} minutes")
        train_head(model, views(sizes[0], EPOCH_VIEWS[0]), watched(sizes[0]), positive, progress, settings, work)

    unfreeze_final_layers(model, FIRST_LEARNING_LAYER)
    for size, rates, count in zip(sizes, RATES, EPOCH_VIEWS, strict=True):
        name = f"fine-tuned at {size}"
        with timed(seconds, name):
            compile_model(model, rates, settings.epochs * -(-count // BATCH_SIZE), positive)
            fit_stage(
                Stage(
                    name,
                    model,
                    views(size, count),
                    watched(size),
                    settings.epochs,
                    BATCH_SIZE,
                    callbacks=(keras.callbacks.SwapEMAWeights(),),
                    best_by="val_auc",
                ),
                progress,
                settings.seed,
            )

    with timed(seconds, "judging"):
        # The same weights in float32 and at one size: what the exporter takes.
        keras.config.set_dtype_policy("float32")
        finished = build_model(settings.image_size, len(names), "none", HIDDEN_UNITS)
        finished.set_weights(model.get_weights())
        probabilities = {"validation": predict_batches(finished, parts["validation"].pixels)}
    return Trained(finished, names, dataset.root, parts, probabilities, progress.history, left_out, seconds)


def build_learning_model(settings: Settings, classes: int, train: Decoded) -> Any:
    """Build the network for any picture size, calculating in bfloat16 where the machine does that faster."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16" if precision.has_bfloat16() else "float32")
    model = build_model(None, classes, settings.weights, HIDDEN_UNITS)
    if settings.weights == "none":
        settle_random_base(model, train.pixels[:SETTLING_IMAGES])
    return model


def train_head(
    model: Any, views: Views, watched: Examples, positive: int, progress: Progress, settings: Settings, work: Path
) -> None:
    """Train the head alone on features of one epoch's views, computed once (Kumar et al. 2022, arXiv:2202.10054).

    A head that fits the frozen base spares it large first steps in random directions.
    """
    extractor = feature_extractor(model, ["avg_pool"])
    drawn = views.batches(BATCH_SIZE, np.random.default_rng(settings.seed)).examples
    features = {}
    for name, examples in (("train", drawn), ("validation", watched)):
        (pooled,) = cached_features(extractor, examples.inputs, [f"{name}-pooled"], work, "views")
        features[name] = Examples(pooled, examples.labels)
    head = compile_model(rest_of_model(model, after="avg_pool"), (HEAD_RATE, HEAD_RATE), 1, positive)
    fit_stage(Stage("frozen", head, **features, epochs=HEAD_EPOCHS, batch_size=BATCH_SIZE), progress, settings.seed)


def compile_model(model: Any, rates: tuple[float, float], steps: int, positive: int) -> Any:
    """AdamW from one learning rate down to another, with a running average of the weights; watches the AUC."""
    import keras

    class Auc(keras.metrics.AUC):  # type: ignore[misc] # Keras has no types
        def update_state(self, truth: Any, probabilities: Any, sample_weight: Any = None) -> Any:
            truth = keras.ops.equal(keras.ops.reshape(truth, (-1,)), positive)
            return super().update_state(truth, probabilities[:, positive], sample_weight)

    rate = keras.optimizers.schedules.CosineDecay(rates[0], steps, alpha=rates[1] / rates[0])
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, use_ema=True, ema_momentum=AVERAGING)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy", Auc(num_thresholds=1000, name="auc")]
    )
    return model


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize square pictures (N, S, S, 3) to (N, size, size, 3)."""
    if pixels.shape[1] == size:
        return pixels
    return np.stack([np.asarray(Image.fromarray(picture).resize((size, size))) for picture in pixels])


def estimate_minutes(model: Any, sizes: list[int], epochs: int, watched: int) -> float:
    """Time one forward pass; a training step costs about three, and all goes with the number of pixels."""
    base = model.get_layer(BASE)
    batch = np.zeros((BATCH_SIZE, sizes[0], sizes[0], 3), np.float32)
    base.predict_on_batch(batch)
    start = time.perf_counter()
    base.predict_on_batch(batch)
    per_pixel = (time.perf_counter() - start) / batch[..., 0].size
    return sum(epochs * (3 * count + watched) * size**2 for size, count in zip(sizes, EPOCH_VIEWS, strict=True)) * per_pixel / 60
