"""A stage may stop at any moment; going on with it ends where it would have ended anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.errors import LesionEdgeError
from lesion_train import fit
from lesion_train.fit import Checkpoint, Examples, Stage, fit_stage

keras = pytest.importorskip("keras")

EPOCHS = 4
SEED = 11
IDENTITY = {"data": "ab12", "weights": "cd34", "epochs": 4, "augmentation": {"gamma": (0.5, 1.5)}}


def examples(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, 5)).astype(np.float32)
    return Examples(inputs, (inputs[:, 0] + inputs[:, 1] > 0).astype(np.int64))


TRAIN, VALIDATION = examples(50, 0), examples(20, 1)


def small_model(seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(6, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(model: Any, file: Path, index: int = 1, epochs: int = EPOCHS) -> Checkpoint:
    progress = Checkpoint.load(file, IDENTITY)
    fit_stage(Stage(index, f"stage {index}", model, TRAIN, VALIDATION, epochs, batch_size=8), progress, SEED)
    return progress


def state(model: Any) -> list[NDArray[Any]]:
    """Weights and all that the optimiser remembers."""
    return [value.numpy().copy() for value in [*model.weights, *model.optimizer.variables]]


def same(first: list[NDArray[Any]], second: list[NDArray[Any]]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[NDArray[Any]], list[dict[str, Any]]]:
    """State and history after all epochs in one go."""
    model = small_model()
    progress = train(model, tmp_path_factory.mktemp("whole") / "progress.npz")
    return state(model), progress.history


def test_history_has_a_row_for_each_epoch(
    uninterrupted: tuple[list[NDArray[Any]], list[dict[str, Any]]],
) -> None:
    _, history = uninterrupted
    assert [(row["stage"], row["epoch"]) for row in history] == [("stage 1", n) for n in range(1, EPOCHS + 1)]
    assert all(set(row) == {"stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"} for row in history)
    assert history[-1]["val_loss"] < history[0]["val_loss"]


@pytest.mark.parametrize("moment", ["in the middle of epoch 2", "after epoch 2"])
def test_resumed_stage_ends_like_an_uninterrupted_one(
    moment: str,
    uninterrupted: tuple[list[NDArray[Any]], list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = "_fit_epoch" if moment.startswith("in") else "say"
    original, calls = getattr(fit, target), []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        result = original(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(fit, target, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(small_model(), tmp_path / "progress.npz")
    finished = Checkpoint.load(tmp_path / "progress.npz", IDENTITY).epoch
    assert finished == (1 if target == "_fit_epoch" else 2)

    other_start = small_model(seed=99)
    progress = train(other_start, tmp_path / "progress.npz")
    weights, history = uninterrupted
    assert same(state(other_start), weights)
    assert progress.history == history


def test_finished_stage_is_restored_and_not_trained_again(
    uninterrupted: tuple[list[NDArray[Any]], list[dict[str, Any]]], tmp_path: Path
) -> None:
    train(small_model(), tmp_path / "progress.npz")
    again = small_model(seed=99)
    assert len(train(again, tmp_path / "progress.npz").history) == EPOCHS
    assert same(state(again), uninterrupted[0])


def test_earlier_stage_is_passed_over_once_the_next_has_begun(tmp_path: Path) -> None:
    model = small_model()
    train(model, tmp_path / "progress.npz", epochs=1)
    train(model, tmp_path / "progress.npz", index=2, epochs=2)
    before = state(model)
    progress = train(model, tmp_path / "progress.npz", epochs=1)
    assert same(state(model), before)
    rows = [(row["stage"], row["epoch"]) for row in progress.history]
    assert rows == [("stage 1", 1), ("stage 2", 1), ("stage 2", 2)]


@pytest.mark.parametrize(
    ("seed", "index", "name", "alike"),
    [
        pytest.param(1, 1, "another name", True, id="not by the name shown"),
        pytest.param(2, 1, "a", False, id="by the seed"),
        pytest.param(1, 2, "a", False, id="by the stage"),
    ],
)
def test_what_the_order_of_the_images_follows(
    seed: int, index: int, name: str, alike: bool, tmp_path: Path
) -> None:
    states = []
    for order_seed, place, label in ((1, 1, "a"), (seed, index, name)):
        model = small_model()
        stage = Stage(place, label, model, TRAIN, VALIDATION, 1, batch_size=8)
        fit_stage(stage, Checkpoint(tmp_path / "progress.npz", IDENTITY), order_seed)
        states.append(state(model))
    assert same(*states) == alike


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"data": "other"}, "data", id="data"),
        pytest.param({"weights": None, "epochs": 9}, "weights, epochs", id="weights and a hyperparameter"),
        pytest.param({"augmentation": {"gamma": (1.0, 2.0)}}, "augmentation.gamma", id="field of a group"),
        pytest.param({"new": 1}, "new", id="a hyperparameter that the checkpoint does not know"),
    ],
)
def test_checkpoint_of_another_training_is_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    train(small_model(), tmp_path / "progress.npz", epochs=1)
    with pytest.raises(LesionEdgeError, match=f"was trained with other {named}: resume with the same ones$"):
        Checkpoint.load(tmp_path / "progress.npz", {**IDENTITY, **change})


def unsteady_model(seed: int = 0) -> Any:
    """Steps too large to settle: the last epoch is not the best."""
    model = small_model(seed)
    model.compile(keras.optimizers.SGD(8.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("interrupted", [False, True])
def test_stage_ends_with_the_weights_of_its_best_epoch(interrupted: bool, tmp_path: Path) -> None:
    """Also when the best epoch lay before an interruption."""
    for count in (5, 9) if interrupted else (9,):
        model, progress = unsteady_model(), Checkpoint.load(tmp_path / "progress.npz", IDENTITY)
        stage = Stage(1, "frozen", model, TRAIN, VALIDATION, count, batch_size=8, best_by="val_accuracy")
        fit_stage(stage, progress, SEED)
    reached = [row["val_accuracy"] for row in progress.history]
    assert max(reached) > reached[-1]
    best_accuracy = model.evaluate(VALIDATION.inputs, VALIDATION.labels, verbose=0)[1]
    assert best_accuracy == pytest.approx(max(reached))


def test_the_running_average_is_kept_as_the_best_and_training_goes_on_from_its_own_weights(tmp_path: Path) -> None:
    """Two epochs of one step each, where the average is half-way between the last two weights."""
    seen = []
    for epochs in (1, 2):
        model = small_model()
        optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        file = tmp_path / str(epochs) / "progress.npz"
        file.parent.mkdir()
        stage = Stage(
            1, "a", model, TRAIN, VALIDATION, epochs, len(TRAIN.labels), averaged=True, best_by="accuracy"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoint, "restore_best", lambda *_: None)
            fit_stage(stage, Checkpoint(file, IDENTITY), SEED)
        seen.append([weight.numpy().copy() for weight in model.weights])
    Checkpoint.load(file, IDENTITY).restore_best(stage)
    for first, second, best in zip(*seen, model.weights, strict=True):
        assert not np.array_equal(first, second)
        np.testing.assert_allclose(best, (first + second) / 2, rtol=1e-5, atol=1e-6)


def test_auc_is_the_mean_of_the_sources_that_show_both_classes() -> None:
    """Over all images, a score that only tells the sources apart looks good."""
    positive = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1], bool)
    score = np.array([0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 0.7, 0.9, 0.95], np.float32)
    sources = np.array(["a"] * 4 + ["b"] * 4 + ["one class"])
    assert fit.watched_auc(positive, score, None)["val_auc"] == pytest.approx(0.825)
    expected = {"val_auc": (0.5 + 2 / 3) / 2, "val_auc_lowest": 0.5}
    assert fit.watched_auc(positive, score, sources) == pytest.approx(expected)
