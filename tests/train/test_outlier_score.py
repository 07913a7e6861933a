"""The outlier score refuses what lies far from lesions and what looks like skin, and few lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_train import outlier_score
from lesion_train.outlier_score import Outliers, fit_score
from lesion_train.skin import draw_skin

CHANNELS, DEEP = 40, 6


def draw(seed: int, count: int, shift: float = 0) -> NDArray[np.float32]:
    """Features whose square roots vary widely along DEEP directions and little along the rest."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(DEEP, CHANNELS))
    roots = 20 + rng.normal(size=(count, DEEP)) @ mixing + 0.1 * rng.normal(size=(count, CHANNELS))
    return np.asarray((roots + shift * mixing[0]) ** 2, np.float32)


@pytest.fixture(scope="module")
def fitted() -> Outliers:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlier_score, "DIRECTIONS", 10)
        return fit_score(draw(0, 2000), draw(1, 300, shift=4), draw(2, 2000))


def test_few_lesions_are_refused(fitted: Outliers) -> None:
    assert 0 < fitted.refused(draw(2, 2000)) <= 0.02
    assert fitted.refused(draw(3, 4000)) < 0.025


def test_skin_is_refused_by_the_probe_alone(fitted: Outliers) -> None:
    assert fitted.refused(draw(4, 500, shift=4)) > 0.9
    opposite = draw(5, 500, shift=-2.5)
    assert fitted.refused(opposite) < 0.2


def test_what_differs_in_a_quiet_direction_is_refused(fitted: Outliers) -> None:
    rng = np.random.default_rng(6)
    shifted = (np.sqrt(draw(7, 200)) + rng.normal(size=CHANNELS)) ** 2
    assert fitted.refused(shifted.astype(np.float32)) == 1


def test_distance_is_that_of_mahalanobis() -> None:
    """Where all small directions truly vary alike, the score is the textbook's, in units of its limit."""
    rng = np.random.default_rng(10)
    deviations = np.array([3.0] * 4 + [0.5] * 4)
    lesions, validation = (
        ((30 + rng.normal(size=(20000, 8)) * deviations) ** 2).astype(np.float32) for _ in range(2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlier_score, "DIRECTIONS", 4)
        patch.setattr(outlier_score, "VARIANCE_FLOOR", 0)
        fitted = fit_score(lesions, lesions + 1, validation)
    offsets = np.array([[12.0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 9, 0, 0, 2, 0], [-9, 9, 0, 0, 1, 1, 0, 2]])
    squared = ((offsets / deviations) ** 2).sum(axis=1)
    limit = np.quantile(
        (((np.sqrt(validation) - 30) / deviations) ** 2).sum(axis=1), outlier_score.ACCEPTANCE_RATE
    )
    distance = np.maximum(fitted.score(((30 + offsets) ** 2).astype(np.float32)), 0)
    assert distance == pytest.approx(squared / limit, rel=0.1)


def test_saved_arrays_give_the_same_score(fitted: Outliers, tmp_path: Path) -> None:
    fitted.save(tmp_path / "outlier_score.npz")
    with np.load(tmp_path / "outlier_score.npz") as saved:
        assert str(saved["layer"]) == outlier_score.LAYER
        again = Outliers(**{name: saved[name] for name in saved.files if name != "layer"})
    assert np.array_equal(again.score(draw(9, 20)), fitted.score(draw(9, 20)))


def test_generated_skins_are_images_and_differ() -> None:
    skins = [draw_skin(np.random.default_rng(seed), 48) for seed in range(8)]
    assert {(*skin.shape, skin.dtype.name) for skin in skins} == {(48, 48, 3, "uint8")}
    assert len({skin.tobytes() for skin in skins}) == 8
