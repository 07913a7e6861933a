"""Trains one stage of a recipe, epoch by epoch, so that an interrupted run loses at most one epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.command import say
from lesion_edge.progress import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """What a stage learns from or is watched on."""

    inputs: NDArray[Any]
    """(N, …), float32; may be memory-mapped."""
    labels: NDArray[np.int64]
    """(N,), class indices."""


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own trainable layers and its own optimiser."""

    name: str
    model: Any
    """Compiled Keras model from the examples' inputs to probabilities."""
    train: Examples
    validation: Examples
    epochs: int
    batch_size: int


@dataclass
class Progress:
    """What has been trained so far; saved after every epoch."""

    file: Path
    stage: str = ""
    epoch: int = 0
    """Finished epochs of that stage."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch: stage, epoch, loss, accuracy, val_loss, val_accuracy."""

    def save(self, model: Any) -> None:
        """Write the state together with the model's and its optimiser's variables, in one step."""
        state = json.dumps({"stage": self.stage, "epoch": self.epoch, "history": self.history})
        arrays = {f"v{index}": np.asarray(value) for index, value in enumerate(_variables(model))}
        unfinished = self.file.with_suffix(".unfinished")
        with unfinished.open("wb") as stream:
            np.savez(stream, allow_pickle=False, state=np.array(state), **arrays)
        unfinished.replace(self.file)

    def restore(self, model: Any) -> None:
        """Set the model's and its optimiser's variables to the saved ones."""
        with np.load(self.file) as saved:
            for index, variable in enumerate(_variables(model)):
                variable.assign(saved[f"v{index}"])

    @classmethod
    def load(cls, file: Path) -> Progress:
        """Read the state, or start a new one where there is no file."""
        if not file.exists():
            return cls(file)
        with np.load(file) as saved:
            return cls(file, **json.loads(str(saved["state"])))


def fit_stage(stage: Stage, progress: Progress, seed: int) -> None:
    """Train a stage to its last epoch, from where `progress` left off.

    The order of the images depends only on seed, stage and epoch, so a resumed run sees what an
    uninterrupted one would have seen.
    """
    if any(row["stage"] == stage.name for row in progress.history) and progress.stage != stage.name:
        return
    stage.model.optimizer.build(stage.model.trainable_variables)
    if progress.stage == stage.name:
        progress.restore(stage.model)
    else:
        progress.stage, progress.epoch = stage.name, 0
    validation = _batches(stage.validation, np.arange(len(stage.validation.labels)), stage.batch_size)
    steps = -(-len(stage.train.labels) // stage.batch_size)
    for epoch in range(progress.epoch + 1, stage.epochs + 1):
        name = f"{stage.name}, epoch {epoch}/{stage.epochs}"
        rng = np.random.default_rng([seed, epoch, *stage.name.encode()])
        order = rng.permutation(len(stage.train.labels))
        with progress_bar(name, steps) as advance:
            logs = _fit_epoch(stage, _batches(stage.train, order, stage.batch_size), validation, advance)
        progress.epoch = epoch
        progress.history.append({"stage": stage.name, "epoch": epoch, **logs})
        progress.save(stage.model)
        say(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in logs.items()))


def _fit_epoch(stage: Stage, train: Any, validation: Any, advance: Any) -> dict[str, float]:
    import keras

    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: advance(1))
    result = stage.model.fit(train, validation_data=validation, verbose=0, callbacks=[watch], shuffle=False)
    return {key: float(values[-1]) for key, values in result.history.items()}


def _batches(examples: Examples, order: NDArray[np.int64], batch_size: int) -> Any:
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
        """Reads one batch at a time, so that the examples may be larger than memory."""

        def __len__(self) -> int:
            return -(-len(order) // batch_size)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            chosen = order[index * batch_size : (index + 1) * batch_size]
            return np.asarray(examples.inputs[chosen]), examples.labels[chosen]

    return Batches()


def _variables(model: Any) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]
