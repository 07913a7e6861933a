"""The outlier score refuses what lies far from lesions and what looks like skin, and few lesions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.errors import LesionEdgeError
from lesion_train.outlier_score import FILE_NAME, OutlierScore, OutlierScoreConfig, fit_score
from lesion_train.skin import draw_skin

CHANNELS, DEEP = 40, 6


def draw(seed: int, count: int, shift: float = 0) -> NDArray[np.float32]:
    """Features whose square roots vary widely along DEEP directions and little along the rest."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(DEEP, CHANNELS))
    roots = 20 + rng.normal(size=(count, DEEP)) @ mixing + 0.1 * rng.normal(size=(count, CHANNELS))
    return np.asarray((roots + shift * mixing[0]) ** 2, np.float32)


@pytest.fixture(scope="module")
def fitted() -> OutlierScore:
    return fit_score(draw(0, 2000), draw(1, 300, shift=4), draw(2, 2000), OutlierScoreConfig(directions=10))


def test_few_lesions_are_refused(fitted: OutlierScore) -> None:
    assert 0 < fitted.refused_share(draw(2, 2000)) <= 0.02
    assert fitted.refused_share(draw(3, 4000)) < 0.025


def test_skin_is_refused_by_the_probe_alone(fitted: OutlierScore) -> None:
    assert fitted.refused_share(draw(4, 500, shift=4)) > 0.9
    opposite = draw(5, 500, shift=-2.5)
    assert fitted.refused_share(opposite) < 0.2


def test_what_differs_in_a_quiet_direction_is_refused(fitted: OutlierScore) -> None:
    rng = np.random.default_rng(6)
    shifted = (np.sqrt(draw(7, 200)) + rng.normal(size=CHANNELS)) ** 2
    assert fitted.refused_share(shifted.astype(np.float32)) == 1


def test_distance_is_that_of_mahalanobis() -> None:
    """Where all small directions truly vary alike, the score is the textbook's, in units of its limit."""
    rng = np.random.default_rng(10)
    deviations = np.array([3.0] * 4 + [0.5] * 4)
    lesions, validation = (
        ((30 + rng.normal(size=(20000, 8)) * deviations) ** 2).astype(np.float32) for _ in range(2)
    )
    config = OutlierScoreConfig(directions=4, variance_floor=0)
    fitted = fit_score(lesions, lesions + 1, validation, config)
    offsets = np.array([[12.0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 9, 0, 0, 2, 0], [-9, 9, 0, 0, 1, 1, 0, 2]])
    squared = ((offsets / deviations) ** 2).sum(axis=1)
    limit = np.quantile((((np.sqrt(validation) - 30) / deviations) ** 2).sum(axis=1), config.acceptance_rate)
    distance = np.maximum(fitted.score(((30 + offsets) ** 2).astype(np.float32)), 0)
    assert distance == pytest.approx(squared / limit, rel=0.1)


def test_saved_arrays_give_the_same_score(fitted: OutlierScore, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    again = OutlierScore.load(tmp_path)
    assert again is not None
    assert again.layer == OutlierScoreConfig().layer
    assert np.array_equal(again.score(draw(9, 20)), fitted.score(draw(9, 20)))


def test_generated_skins_are_images_and_differ() -> None:
    skins = [draw_skin(np.random.default_rng(seed), 48) for seed in range(8)]
    assert {(*skin.shape, skin.dtype.name) for skin in skins} == {(48, 48, 3, "uint8")}
    assert len({skin.tobytes() for skin in skins}) == 8


ARRAYS = OutlierScore(
    mean=np.ones(4, np.float32),
    directions=np.eye(4, 2, dtype=np.float32),
    weights=np.ones(2, np.float32),
    residual=np.array(0.5, np.float32),
    probe=np.ones(4, np.float32),
    probe_bias=np.array(-1, np.float32),
    layer="conv4_block6_out",
)


def saved(folder: Path, **changes: Any) -> Path:
    arrays = {**vars(ARRAYS), **changes}
    np.savez(folder / FILE_NAME, **{name: value for name, value in arrays.items() if value is not None})
    return folder


def test_run_without_the_file_has_no_score(tmp_path: Path) -> None:
    assert OutlierScore.load(tmp_path) is None


def test_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    loaded = OutlierScore.load(saved(tmp_path, layer="conv3_block4_out"))
    assert loaded is not None
    assert loaded.layer == "conv3_block4_out"
    np.testing.assert_array_equal(loaded.directions, ARRAYS.directions)
    pooled = np.array([[4, 0, 1, 9]], np.float32)  # roots less the mean: 1, -1, 0, 2
    # Distance: 0.5 * 6 + 1 + 1; probe: 1 - 1 + 0 + 2 - 1.
    assert loaded.score(pooled) == pytest.approx([5])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"probe": None}, id="an array is missing"),
        pytest.param({"weights": np.ones(3, np.float32)}, id="arrays of different models"),
        pytest.param({"directions": np.ones(4, np.float32)}, id="a row for a matrix"),
        pytest.param({"mean": np.array([None] * 4)}, id="objects"),
    ],
)
def test_damaged_file_is_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(LesionEdgeError, match=r"outlier_score\.npz is damaged") as refusal:
        OutlierScore.load(saved(tmp_path, **changes))
    assert "\n" not in str(refusal.value)
