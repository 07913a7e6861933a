"""The network: which layers there are, which of them learn, and how it is cut in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.errors import LesionEdgeError
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

keras = pytest.importorskip("keras")

SIZE = 64
PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
IMAGES = PIXELS.astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Any:
    """Two classes, with random weights that let a signal through."""
    keras.utils.set_random_seed(1)
    model = build_model(SIZE, 2, "none", 32)
    init_batchnorm_statistics(model, PIXELS, 0.2)
    return model


def predict(model: Any, inputs: Any) -> NDArray[np.float32]:
    return np.asarray(model.predict_on_batch(inputs))


def test_layers_are_the_base_and_the_head(model: Any) -> None:
    names = ["image", "resnet50", "flatten", "hidden", "logits", "probabilities"]
    assert [layer.name for layer in model.layers] == names
    assert model.input.shape == (None, SIZE, SIZE, 3)
    assert model.get_layer("resnet50").output.shape == (None, 2048)


def test_there_is_one_probability_for_each_class() -> None:
    model = build_model(SIZE, 3, "none", 16)
    assert model.output.shape == (None, 3)
    np.testing.assert_allclose(predict(model, IMAGES).sum(axis=1), 1, rtol=1e-5)


def test_settled_random_base_tells_images_apart(model: Any) -> None:
    answers = predict(model, IMAGES)
    assert answers.max() < 0.999
    assert np.ptp(answers[:, 0]) > 1e-4


def test_normalisation_is_that_of_resnet50(model: Any) -> None:
    normalised = keras.applications.resnet50.preprocess_input(IMAGES.copy())
    padded, _ = feature_extractor(model, ["conv1_pad", "avg_pool"]).predict_on_batch(IMAGES)
    np.testing.assert_allclose(padded[:, 3:-3, 3:-3], normalised, rtol=1e-6)

    pooled = np.asarray(model.get_layer("resnet50")(normalised, training=False))
    kernel, bias, last_kernel, last_bias = (
        weight for name in ("hidden", "logits") for weight in model.get_layer(name).get_weights()
    )
    logits = np.maximum(pooled @ kernel + bias, 0) @ last_kernel + last_bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predict(model, IMAGES), expected, atol=1e-5)


def test_first_part_and_rest_make_the_whole(model: Any) -> None:
    layers = ["avg_pool", "conv5_block2_out"]
    whole = predict(model, IMAGES)
    for layer, features in zip(layers, feature_extractor(model, layers).predict_on_batch(IMAGES), strict=True):
        np.testing.assert_allclose(predict(submodel_after(model, after=layer), features), whole, atol=1e-5)


def test_rest_shares_its_weights_with_the_whole(model: Any) -> None:
    final_layers = submodel_after(model, after="conv5_block2_out")
    shared = {id(weight) for weight in model.weights}
    assert final_layers.weights
    assert all(id(weight) in shared for weight in final_layers.weights)


def test_frozen_base_leaves_the_head_alone_to_learn(model: Any) -> None:
    freeze_base(model)
    assert model.get_layer("resnet50").trainable_weights == []
    head = [weight for name in ("hidden", "logits") for weight in model.get_layer(name).weights]
    assert [id(weight) for weight in model.trainable_weights] == [id(weight) for weight in head]


def test_unfreezing_lets_the_last_block_learn_and_never_its_normalisation(model: Any) -> None:
    unfreeze_final_layers(model, "conv5_block3_1_conv")
    base = model.get_layer("resnet50")
    learning = [layer for layer in base.layers if layer.trainable_weights]
    assert {layer.name for layer in learning} == {f"conv5_block3_{i}_conv" for i in (1, 2, 3)}
    assert len(base.trainable_weights) == 6
    assert not any("bn" in weight.path for weight in model.trainable_weights)


def test_statistics_of_batch_normalisation_stay_while_it_trains(model: Any) -> None:
    unfreeze_final_layers(model, "conv5_block3_1_conv")
    statistics = [weight for weight in model.get_layer("resnet50").weights if "moving" in weight.path]
    before = [weight.numpy().copy() for weight in statistics]
    trained = np.asarray(model(IMAGES, training=True))
    assert len(statistics) == 2 * 53
    assert all(np.array_equal(old, new.numpy()) for old, new in zip(before, statistics, strict=True))
    np.testing.assert_allclose(trained, predict(model, IMAGES), atol=1e-5)


def test_folded_classifier_has_no_normalisation_and_the_same_answers(model: Any) -> None:
    folded = fold_norms(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded._flatten_layers())
    np.testing.assert_allclose(predict(folded, IMAGES), predict(model, IMAGES), atol=1e-5)


def test_unfolding_gives_what_the_folded_classifier_has_learned(model: Any) -> None:
    folded = fold_norms(model)
    rng = np.random.default_rng(3)
    folded.set_weights([weight * rng.uniform(0.8, 1.2, weight.shape) for weight in folded.get_weights()])
    unfolded = build_model(SIZE, 2, "none", 32)
    unfold_norms(folded, unfolded)
    learned = predict(folded, IMAGES)
    assert np.abs(learned - predict(model, IMAGES)).max() > 1e-3
    np.testing.assert_allclose(predict(unfolded, IMAGES), learned, atol=1e-5)


def test_weights_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="no such file"):
        build_model(SIZE, 2, str(tmp_path / "resnet.h5"), 16)


def test_file_that_holds_no_weights_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "resnet.weights.h5").write_text("not weights\n", encoding="utf-8")
    with pytest.raises(LesionEdgeError, match="cannot load --weights") as refusal:
        build_model(SIZE, 2, str(tmp_path / "resnet.weights.h5"), 16)
    assert "\n" not in str(refusal.value)
