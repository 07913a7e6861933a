"""Images of late that are unlike those of the release are noticed, and others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.errors import DriftAlarm, LesionEdgeError
from lesion_edge.manifest import load_manifest
from lesion_edge.monitor import (
    QUANTILES,
    QUANTITIES,
    WINDOW,
    Monitor,
    critical_distance,
    distance,
    measure,
    reference_distributions,
)
from lesion_edge.prediction import Prediction

if TYPE_CHECKING:
    from tests.conftest import FinishedCommand

pytest.importorskip("onnxruntime")
SIZE = 48


def skin(
    n: int, seed: int, gain: tuple[float, float, float] = (1, 1, 1), blur: bool = False
) -> list[np.ndarray[Any, Any]]:
    """Images of skin that varies from one to the next; a camera's gain of each channel."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        color = rng.normal((200, 150, 130), (18, 18, 20))
        noise = rng.normal(0, 6, (SIZE, SIZE, 3))
        if blur:
            noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))) / 4
        images.append(np.clip((color + noise) * gain, 0, 255).astype(np.uint8))
    return images


def measured(images: list[np.ndarray[Any, Any]], seed: int = 0) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [{"probability": rng.beta(1, 3), "outlier": rng.gamma(9, 0.06), **measure(image)} for image in images]


RELEASE = measured(skin(1500, seed=1), seed=1)


@pytest.fixture
def classifier(make_bundle: Callable[..., Path], edit: Callable[..., None]) -> Classifier:
    """A bundle that was released on `RELEASE`."""
    bundle = make_bundle(scored=True)
    distributions = reference_distributions({name: [row[name] for row in RELEASE] for name in QUANTITIES})
    edit(bundle, lambda content: content["variants"]["int8"].update(reference=distributions))
    return Classifier.load(bundle, "cpu")


def run(
    state: Path, classifier: Classifier, rows: list[dict[str, float]], refused: float = 0, stop: bool = False
) -> tuple[list[str], bool]:
    said: list[str] = []
    with Monitor(state, classifier, said.append, stop) as monitor:
        for index, row in enumerate(rows):
            label = None if (index * refused) % 1 + refused > 1 - 1e-9 else "benign"
            monitor.add(Prediction(label=label, probabilities={"benign": 1.0}, measurements=row))
    return said, monitor.alarm


@pytest.mark.parametrize(
    ("images", "moved"),
    [
        pytest.param(skin(200, 2), [], id="the same"),
        pytest.param(skin(200, 2, (0.8, 0.8, 0.8)), ["brightness"], id="20 % darker"),
        pytest.param(skin(200, 2, (1.1, 1.0, 0.85)), ["warmth"], id="another white balance"),
        pytest.param(skin(200, 2, (1.0, 1.1, 1.0)), ["tint"], id="greener"),
        pytest.param(skin(200, 2, blur=True), ["sharpness"], id="out of focus"),
    ],
)
def test_what_moved_is_named(
    images: list[np.ndarray[Any, Any]], moved: list[str], classifier: Classifier, tmp_path: Path
) -> None:
    said, alarm = run(tmp_path / "state", classifier, measured(images))
    assert alarm is bool(moved)
    assert len(said) == bool(moved)
    for name in moved:
        assert said[0].startswith("DRIFT in the last 200 images: ")
        assert f"{name} (median " in said[0]


def test_windows_of_the_same_distribution_raise_few_alarms() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(600):
        everything = rng.normal(size=(6, 1500 + WINDOW))
        alarms += any(
            distance(row[1500:], np.quantile(row[:1500], QUANTILES).tolist()) > critical_distance(WINDOW, 1500)
            for row in everything
        )
    assert alarms <= 12


def test_distance_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for window in (rng.random(200), rng.random(200) ** 2, np.round(rng.random(100), 1), np.full(60, 0.5)):
        assert distance(window, QUANTILES.tolist()) == pytest.approx(
            stats.kstest(window, "uniform").statistic, abs=1e-9
        )


def test_equal_quantiles_are_a_step() -> None:
    quantiles = np.quantile([0.0] * 50 + [1.0] * 50, QUANTILES).tolist()
    assert distance(np.array([0.0, 1.0] * 50), quantiles) < 0.03
    assert distance(np.zeros(100), quantiles) == pytest.approx(0.5, abs=0.03)
    assert distance(np.full(100, 2.0), quantiles) == 1


def test_too_many_refusals_are_loud(classifier: Classifier, tmp_path: Path) -> None:
    rows = measured(skin(200, 2))
    assert run(tmp_path / "few", classifier, rows, refused=0.1) == ([], False)
    said, alarm = run(tmp_path / "many", classifier, rows, refused=0.25)
    assert alarm
    assert said == ["REFUSALS: 25% of the last 200 images are out of distribution, at most 20% are expected"]


def test_window_lives_on_from_run_to_run(classifier: Classifier, tmp_path: Path) -> None:
    dark = measured(skin(160, 2, (0.8, 0.8, 0.8)))
    assert run(tmp_path / "state", classifier, dark[:40]) == ([], False)
    assert run(tmp_path / "state", classifier, [])[0] == []
    assert run(tmp_path / "state", classifier, dark[40:])[0][0].startswith("DRIFT in the last 160 images: ")


def test_run_ends_at_the_alarm_by_choice(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(DriftAlarm):
        run(tmp_path / "state", classifier, measured(skin(201, 2, (0.8, 0.8, 0.8))), stop=True)


def test_bundle_without_a_reference_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="no reference distributions for int8: export it again"):
        Monitor(tmp_path / "state", Classifier.load(bundle), print)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"bundle": "another", "variant": "int8"}', "of another bundle or variant"),
        ("DIGEST", "damaged"),
    ],
)
def test_other_state_is_refused(content: str, reason: str, classifier: Classifier, tmp_path: Path) -> None:
    digest = f'{{"bundle": "{classifier.manifest.digest}", "variant": "int8", "window": [[1]]}}'
    (tmp_path / "state").write_text(content.replace("DIGEST", digest))
    with pytest.raises(LesionEdgeError, match=reason):
        Monitor(tmp_path / "state", classifier, print)


def test_predictions_carry_measurements_where_asked(classifier: Classifier) -> None:
    (image,) = skin(1, 0)
    (plain,) = classifier.predict([image])
    (answer,) = classifier.predict([image], measured=True)
    assert plain.measurements is None
    assert answer.measurements is not None
    assert set(answer.measurements) == set(QUANTITIES)
    assert answer.measurements["probability"] == pytest.approx(answer.probabilities["malignant"])
    assert [p.measurements for p in classifier.predict([b"no image"], measured=True)] == [None]


def test_measurements_are_what_they_are_called() -> None:
    gray = measure(np.full((8, 8, 3), 100, np.uint8))
    assert gray == pytest.approx({"brightness": 100, "warmth": 0, "tint": 0, "sharpness": 0}, abs=1e-4)
    board = np.indices((8, 8)).sum(axis=0) % 2 * np.uint8(200)
    assert measure(np.repeat(board[..., None], 3, axis=2))["sharpness"] > 15


def test_command_has_an_exit_code_of_its_own(
    classifier: Classifier, tmp_path: Path, command: Callable[..., FinishedCommand]
) -> None:
    folder, bundle = tmp_path / "images", tmp_path / "bundle"
    folder.mkdir()
    for index, image in enumerate(skin(60, 3, (0.7, 0.7, 0.7))):
        Image.fromarray(image).save(folder / f"{index}.png")
    arguments = ("lesion-infer", folder, "--model", bundle, "--monitor", tmp_path / "state")
    finished = command(*arguments, "--output", tmp_path / "rows.csv")
    assert finished.returncode == 3, finished.stderr
    assert "DRIFT in the last 60 images" in finished.stderr
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 61
    assert command("lesion-infer", folder, "--stop-on-drift").returncode == 2
    assert load_manifest(bundle).variants["fp32"].reference == {}
