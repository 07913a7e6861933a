"""The robust recipe leaves a run like any other, and goes on where it was interrupted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesion_edge import metrics
from lesion_train import robust
from lesion_train.augment import Augmentation
from lesion_train.augmented_dataset import AugmentedDataset, shrink
from lesion_train.dataset import Dataset
from lesion_train.image_cache import ImageCache
from lesion_train.optimizer import learning_rate_schedule
from lesion_train.outlier_score import OutlierScoreConfig
from lesion_train.probe import probe_sources
from lesion_train.recipe import TrainingData, TrainingResult
from lesion_train.robust_config import RobustConfig
from lesion_train.run import Sample, TrainConfig

keras = pytest.importorskip("keras")

CONFIG = RobustConfig(
    epochs=1,
    samples_per_epoch=40,
    learning_rate=1e-4,
    final_learning_rate=1e-5,
    first_trainable_layer="conv5_block3_1_conv",
    train_size_ratio=1,
    outlier_score=OutlierScoreConfig(training_images=20, skin_images=10),
)
SETTINGS = TrainConfig("", "robust", "none", 32, "squash", 0.25, 0, None, None, CONFIG)
STAGES = ["frozen", "fine-tuned at 32"]


def interrupt(*_: Any) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def resumed(
    images: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], TrainingResult]:
    """History of an interrupted training, and the result of going on with it."""
    folder = tmp_path_factory.mktemp("robust")
    images(folder / "images", 20, seed=5)
    (folder / "work").mkdir()
    settings = dataclasses.replace(SETTINGS, data=str(folder / "images"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust, "unfreeze_final_layers", interrupt)
        with pytest.raises(KeyboardInterrupt):
            robust.train_robust(settings, folder / "work")
    with np.load(folder / "work" / "progress.npz") as checkpoint:
        done = json.loads(str(checkpoint["state"]))["history"]
    return done, robust.train_robust(settings, folder / "work")


def test_stages_are_trained_once_each(resumed: tuple[list[dict[str, Any]], TrainingResult]) -> None:
    done, trained = resumed
    assert trained.history[: len(done)] == done
    assert [row["stage"] for row in trained.history] == ["frozen"] * 3 + STAGES[1:]


def test_the_model_is_float32_of_one_size(resumed: tuple[list[dict[str, Any]], TrainingResult]) -> None:
    model = resumed[1].model
    assert model.input.shape == (None, 32, 32, 3)
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}


def test_probabilities_are_those_of_the_model(resumed: tuple[list[dict[str, Any]], TrainingResult]) -> None:
    trained = resumed[1]
    expected = trained.model.predict(trained.data.splits["validation"].pixels.astype(np.float32), verbose=0)
    np.testing.assert_allclose(trained.probabilities["validation"], expected, atol=1e-5)


def test_watched_auc_is_that_of_the_positive_class(resumed: tuple[list[dict[str, Any]], TrainingResult]) -> None:
    """The stage calculates in bfloat16 where the machine can, and in bins, hence the tolerance."""
    trained = resumed[1]
    is_positive = trained.data.labels("validation") == 1
    score = trained.probabilities["validation"][:, 1]
    assert trained.history[-1]["val_auc"] == pytest.approx(metrics.roc_auc(is_positive, score), abs=0.1)


def test_sources_are_probed_where_they_are_named(resumed: tuple[list[dict[str, Any]], TrainingResult]) -> None:
    trained = resumed[1]
    assert probe_sources(trained) == {}
    split = trained.data.splits["validation"]
    samples = [
        dataclasses.replace(sample, source=("clinic", "archive")[index % 2])
        for index, sample in enumerate(split.samples)
    ]
    named = dataclasses.replace(trained.data, splits={"validation": dataclasses.replace(split, samples=samples)})
    probes = probe_sources(dataclasses.replace(trained, data=named))
    assert probes["source"]["targets"] == ["archive", "clinic"]
    assert probes["source"]["images"] == len(samples)
    assert 0 <= probes["source"]["balanced_accuracy"] <= 1


def test_probabilities_are_corrected_for_classes_drawn_more_often_than_they_are() -> None:
    """Bayes' rule: odds that hold where classes are even, times the odds of the classes as they are."""
    labels = np.array([0] * 6 + [1] * 2)
    weights = np.where(labels == 1, 0.25, 1 / 12)
    inputs = keras.Input((3,))
    logits = keras.layers.Dense(2, name="logits")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(logits))
    images = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    even = model.predict(images, verbose=0)
    robust.correct_class_prior(model, labels, weights)
    corrected = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        corrected[:, 1] / corrected[:, 0], even[:, 1] / even[:, 0] * (2 / 8) / (6 / 8), rtol=1e-5
    )


def test_views_of_an_epoch_repeat_and_follow_the_weights() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    labels, weights = np.array([0, 0, 1, 1]), np.array([0.5, 0, 0.5, 0])
    source = AugmentedDataset(pixels, labels, weights, 24, 30, Augmentation())
    first, again = (source.draw(np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.inputs[:30], again.inputs[np.arange(30)])
    assert first.inputs[3:5].shape == (2, 24, 24, 3)
    assert set(first.inputs.drawn) == {0, 2}
    assert np.array_equal(first.labels, np.array([0, 0, 1, 1])[first.inputs.drawn])


def test_shrinking_keeps_the_order_and_the_mean() -> None:
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((64, 64, 3), 80, np.uint8)
    small = shrink(pixels, 32)
    assert small.shape == (3, 32, 32, 3)
    assert small.mean(axis=(1, 2, 3)).tolist() == [0, 80, 160]
    assert shrink(pixels, 64) is pixels


def test_learning_rate_rises_stays_level_and_falls_to_its_end() -> None:
    config = RobustConfig(epochs=4, samples_per_epoch=6400, batch_size=64, cooldown_fraction=0.25)
    schedule = learning_rate_schedule(config)
    start, level, cooling, later, end = (float(schedule(step)) for step in (0, 63, 301, 350, 400))
    assert start == pytest.approx(config.learning_rate / 10)
    assert level == pytest.approx(config.learning_rate)
    assert level > cooling > later > end == pytest.approx(config.final_learning_rate)


def test_a_longer_training_begins_as_a_shorter_one() -> None:
    shorter, longer = (learning_rate_schedule(RobustConfig(epochs=epochs)) for epochs in (4, 9))
    steps = range(0, 4 * 15000 // 64 * 3 // 4, 50)
    assert [float(shorter(step)) for step in steps] == [float(longer(step)) for step in steps]


def test_each_class_of_each_source_is_watched_alike() -> None:
    samples = [Sample(f"{index}", index % 2, None, "ab"[index // 14]) for index in range(20)]
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    data = TrainingData(
        ("benign", "malignant"), "malignant", Path(), {"validation": ImageCache(samples, pixels, [], [])}, []
    )
    watched = robust.watched_examples(data, 32, per_class=3, seed=0)
    assert watched.sources is not None
    assert np.array_equal(watched.labels, watched.inputs[:, 0, 0, 0] % 2)
    assert sorted(zip(watched.sources.tolist(), watched.labels.tolist(), strict=True)) == [
        (source, label) for source in "ab" for label in (0, 1) for _ in range(3)
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_a_source_of_one_class_is_left_out_unless_asked_for(
    keep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [Sample(f"{index}", index % 2, None, "both") for index in range(4)]
    lone = Sample("lone", 1, None, "lone")
    dataset = Dataset(Path(), ("benign", "malignant"), [*both, lone], both, [])
    selected = robust.select_samples(dataset, RobustConfig(keep_single_class_sources=keep))
    assert (lone in selected.train) is keep
    assert ("'lone' is left out" in capsys.readouterr().err) is not keep
