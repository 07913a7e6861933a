"""Training of one stage of a recipe, with a checkpoint after every epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import atomic, metrics
from lesion_edge.console import progress_bar, say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.parallel import ordered_map
from lesion_train.run import differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKERS = 2
"""Threads that prepare batches while the network trains."""
LEAST_PROBABILITY = 1e-7
"""Lower bound of the right class's probability in the loss, as in Keras."""


@dataclass(frozen=True)
class Batches:
    """Batches of one epoch, read one at a time, so that the examples may be larger than memory."""

    examples: Examples
    order: NDArray[np.int64]
    """(N,), indices of the examples."""
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        batch = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return np.asarray(self.examples.inputs[batch]), self.examples.labels[batch]


@dataclass(frozen=True)
class Examples:
    """Inputs and labels of a split."""

    inputs: Any
    """(N, …), float32: an array, perhaps memory-mapped, or what is indexed like one."""
    labels: NDArray[np.int64]
    """(N,), class indices."""
    sources: NDArray[np.str_] | None = None
    """(N,), where each comes from: the ROC AUC that is watched is then the mean of those of the sources."""

    def batches(self, batch_size: int, rng: np.random.Generator | None = None) -> Batches:
        """All examples once, in an order drawn from `rng` or as they lie."""
        count = len(self.labels)
        return Batches(self, np.arange(count) if rng is None else rng.permutation(count), batch_size)


@dataclass(frozen=True)
class Stage:
    """Phase of the training with its own trainable layers and its own optimiser."""

    index: int
    """Place among the stages of the recipe, from 1: random order and checkpoints go by it."""
    name: str
    """Name in the history and the plots."""
    model: Any
    """Compiled Keras model from the examples' inputs to probabilities."""
    train: Any
    """`Examples`, or anything else with their `batches`."""
    validation: Any
    epochs: int
    batch_size: int
    averaged: bool = False
    """Whether the optimiser's running average of the weights is evaluated and kept as the best."""
    positive_index: int | None = None
    """Class whose ROC AUC on the validation split the history notes."""
    best_by: str | None = None
    """Column of the history, the larger the better: the stage ends with the weights of its best epoch."""


@dataclass
class Checkpoint:
    """State of a training and the identity of what it is trained on; saved after every epoch."""

    file: Path
    identity: dict[str, Any]
    """Digests of data and initial weights, and the hyperparameters: what a resumed training must share."""
    stage: int = 0
    """Index of the stage that was trained last; 0 before the first epoch."""
    epoch: int = 0
    """Finished epochs of that stage."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch: stage, epoch, loss, accuracy, val_loss, val_accuracy."""

    def save(self, model: Any) -> None:
        """Write the state together with the model's and its optimiser's variables, in one step."""
        names = ("identity", "stage", "epoch", "history")
        state = json.dumps({name: getattr(self, name) for name in names})
        arrays = {f"v{index}": np.asarray(value) for index, value in enumerate(_variables(model))}
        with atomic.replacing(self.file) as stream:
            np.savez(stream, allow_pickle=False, state=np.array(state), **arrays)

    def restore(self, model: Any) -> None:
        """Set the model's and its optimiser's variables to the saved ones."""
        with np.load(self.file) as saved:
            for index, variable in enumerate(_variables(model)):
                variable.assign(saved[f"v{index}"])

    def keep_best(self, stage: Stage) -> None:
        """Write the weights beside the state if the last epoch is the best of its stage."""
        if stage.best_by is None:
            return
        scores = [row[stage.best_by] for row in self.history[-self.epoch :]]
        if scores[-1] == max(scores):
            with averaged_weights(stage):
                arrays = {f"v{index}": value for index, value in enumerate(stage.model.get_weights())}
            with atomic.replacing(self._best) as stream:
                np.savez(stream, allow_pickle=False, **arrays)

    def restore_best(self, stage: Stage) -> None:
        """Set the weights to those of the stage's best epoch."""
        if stage.best_by is not None:
            with np.load(self._best) as saved:
                stage.model.set_weights([saved[f"v{index}"] for index in range(len(saved.files))])

    @property
    def key(self) -> str:
        """Short digest of the identity, for the names of files that belong to it."""
        return hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:12]

    @property
    def _best(self) -> Path:
        return self.file.with_name("best.npz")

    @classmethod
    def load(cls, file: Path, identity: dict[str, Any]) -> Checkpoint:
        """Read the state, or start a new one where there is no file.

        Raises:
            LesionEdgeError: the file belongs to another training.
        """
        if not file.exists():
            return cls(file, identity)
        with np.load(file) as saved:
            checkpoint = cls(file, **json.loads(str(saved["state"])))
        if names := differences(checkpoint.identity, identity):
            raise LesionEdgeError(f"{file} was trained with other {', '.join(names)}: resume with the same ones")
        return checkpoint


def fit_stage(stage: Stage, progress: Checkpoint, seed: int) -> None:
    """Train a stage to its last epoch, from where `progress` left off.

    The order of the images depends only on seed, stage and epoch, so a resumed run sees what an
    uninterrupted one would have seen.
    """
    if progress.stage > stage.index:
        return
    stage.model.optimizer.build(stage.model.trainable_variables)
    if progress.stage == stage.index:
        progress.restore(stage.model)
    else:
        progress.stage, progress.epoch = stage.index, 0
    validation = stage.validation.batches(stage.batch_size)
    for epoch in range(progress.epoch + 1, stage.epochs + 1):
        name = f"{stage.name}, epoch {epoch}/{stage.epochs}"
        batches = stage.train.batches(stage.batch_size, np.random.default_rng([seed, stage.index, epoch]))
        with progress_bar(name, len(batches)) as advance:
            logs = _fit_epoch(stage, batches, validation, advance)
        progress.epoch = epoch
        progress.history.append({"stage": stage.name, "epoch": epoch, **logs})
        progress.keep_best(stage)
        progress.save(stage.model)
        say(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in logs.items()))
    progress.restore_best(stage)


def _fit_epoch(stage: Stage, train: Batches, validation: Batches, advance: Any) -> dict[str, float]:
    """Train on all batches, one call each, and evaluate the validation split; returns the means."""
    totals: dict[str, float] = {}
    for inputs, labels in ordered_map(train.__getitem__, range(len(train)), WORKERS):
        for name, mean in stage.model.train_on_batch(inputs, labels, return_dict=True).items():
            totals[name] = totals.get(name, 0) + float(mean) * len(labels) / len(train.order)
        advance(1)
    with averaged_weights(stage):
        batches = (validation[index][0] for index in range(len(validation)))
        probabilities = np.concatenate([stage.model.predict_on_batch(inputs) for inputs in batches])
    targets = validation.examples.labels
    right = np.clip(probabilities[np.arange(len(targets)), targets], LEAST_PROBABILITY, 1)
    totals["val_accuracy"] = float((probabilities.argmax(axis=1) == targets).mean())
    totals["val_loss"] = float(-np.log(right).mean())
    if (index := stage.positive_index) is not None:
        totals |= watched_auc(targets == index, probabilities[:, index], validation.examples.sources)
    return totals


def watched_auc(
    is_positive: NDArray[np.bool_], score: NDArray[np.float32], sources: NDArray[np.str_] | None
) -> dict[str, float]:
    """ROC AUC, all arguments (N,); with sources, the mean and the lowest of those that show both classes.

    Over all images at once, a network also scores by telling sources with many malignant lesions from others.
    """
    names: list[str] = [] if sources is None else np.unique(sources).tolist()
    aucs = [metrics.roc_auc(is_positive[sources == name], score[sources == name]) for name in names]
    aucs = [auc for auc in aucs if not np.isnan(auc)]
    if not aucs:
        return {"val_auc": metrics.roc_auc(is_positive, score)}
    return {"val_auc": float(np.mean(aucs)), "val_auc_lowest": min(aucs)}


@contextmanager
def averaged_weights(stage: Stage) -> Iterator[None]:
    """Running average of the weights in the model while the block runs."""
    import keras

    if not stage.averaged:
        yield
        return
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(stage.model)
    swap.on_test_begin()
    yield
    swap.on_test_end()


def _variables(model: Any) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]
