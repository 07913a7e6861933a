"""A side file fits a bundle to a clinic, says what it reaches there, and belongs to this bundle alone."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.errors import LesionEdgeError
from lesion_edge.labeled import LabeledImage, classify_sample, find_labeled_images
from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels
from lesion_edge.site import Site, load_site, move
from lesion_edge.site_fit import FOLDS, Sample, cross_validate, fit, fit_probabilities, fit_site, folds

if TYPE_CHECKING:
    from tests.conftest import FinishedCommand

pytest.importorskip("onnxruntime")


def draw(
    n: int = 400, seed: int = 0, share: float = 0.3, shift: float = 2.0, images_per_lesion: int = 1
) -> Sample:
    """A clinic at which the log-odds of a perfectly calibrated model are doubled and shifted."""
    rng = np.random.default_rng(seed)
    is_positive = rng.random(n) < share
    odds = rng.normal(np.where(is_positive, 1.0, -1.0) * 1.2, 1.2) + np.log(share / (1 - share))
    p = 1 / (1 + np.exp(-(2 * odds + shift)))
    lesions = np.arange(n) // images_per_lesion
    return Sample(is_positive, p, rng.gamma(4, 0.4, n), lesions)


def test_probabilities_are_fitted_as_scikit_learn_does() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    sample = draw(5000)
    temperature, offset = fit_probabilities(sample.probability, sample.is_positive)
    odds = np.log(sample.probability / (1 - sample.probability))[:, None]
    reference = linear.LogisticRegression(C=np.inf, tol=1e-10).fit(odds, sample.is_positive)
    assert 1 / temperature == pytest.approx(reference.coef_[0, 0], rel=0.01)
    assert offset == pytest.approx(reference.intercept_[0], abs=0.02)


def test_perfectly_separable_images_have_a_finite_fit() -> None:
    is_positive = np.arange(60) < 20
    temperature, offset = fit_probabilities(np.where(is_positive, 0.9, 0.1), is_positive)
    assert 0 < temperature < 100
    assert np.isfinite(offset)


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_new_images_reach_the_target_on_average(target: float) -> None:
    reached, refused = [], []
    for seed in range(60):
        parameters = fit(draw(300, seed=seed), target)
        new = draw(2000, seed=1000 + seed)
        assert new.outlier is not None
        assert parameters.outlier_limit is not None
        p = move(new.probability, parameters.temperature, parameters.offset)
        reached.append((p[new.is_positive] >= parameters.threshold).mean())
        refused.append((new.outlier > parameters.outlier_limit).mean())
    assert target - 0.005 <= np.mean(reached) <= target + 0.02
    assert np.mean(refused) <= 0.015 + 0.003


def test_cross_validation_tells_what_new_images_show() -> None:
    sample, new = draw(1500), draw(20_000, seed=1)
    after = cross_validate(sample, lambda part: fit(part, 0.9))
    parameters = fit(sample, 0.9)
    p = move(new.probability, parameters.temperature, parameters.offset)
    for name, value in (
        ("sensitivity", (p[new.is_positive] >= parameters.threshold).mean()),
        ("specificity", (p[~new.is_positive] < parameters.threshold).mean()),
    ):
        low, high = after[name]["interval"]
        assert low <= value <= high, name
    assert after["ece"]["value"] < 0.05
    before = cross_validate(sample, lambda part: replace(parameters, temperature=1.0, offset=0.0))
    assert before["ece"]["value"] > 0.1
    assert before["roc_auc"]["value"] == pytest.approx(after["roc_auc"]["value"], abs=0.01)


def test_images_of_one_lesion_share_a_fold_and_positives_are_spread() -> None:
    sample = draw(600, images_per_lesion=3)
    fold = folds(sample)
    assert all(len(set(fold[sample.lesions == lesion])) == 1 for lesion in set(sample.lesions.tolist()))
    assert set(fold) == set(range(FOLDS))
    counts = np.bincount(fold[sample.is_positive], minlength=FOLDS)
    assert counts.min() > 0.6 * counts.mean()


def test_intervals_over_lesions_are_wider() -> None:
    sample = draw(200, seed=3)
    images = {
        name: np.repeat(getattr(sample, name), 5) for name in ("is_positive", "probability", "outlier", "lesions")
    }
    grouped = cross_validate(Sample(**images), lambda part: fit(part, 0.9))["roc_auc"]["interval"]
    images["lesions"] = np.arange(1000)
    single = cross_validate(Sample(**images), lambda part: fit(part, 0.9))["roc_auc"]["interval"]
    assert grouped[1] - grouped[0] > 1.5 * (single[1] - single[0])


@pytest.fixture
def classifier(bundle: Path) -> Classifier:
    return Classifier.load(bundle, "cpu")


def negatives_and_positives(negatives: int, positives: int) -> Sample:
    is_positive = np.arange(negatives + positives) >= negatives
    p = np.where(is_positive, 0.6, 0.2) + np.arange(len(is_positive)) % 7 * 0.01
    return Sample(is_positive, p, None, np.arange(len(p)))


def by_chance() -> Sample:
    sample = draw(400)
    return replace(sample, probability=np.random.default_rng(1).random(400))


def upside_down() -> Sample:
    sample = draw(400)
    return replace(sample, probability=1 - sample.probability)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        pytest.param(negatives_and_positives(29, 20), "49 labelled images: a fit needs at least 50", id="few"),
        pytest.param(negatives_and_positives(60, 14), "14 lesions of malignant", id="few positives"),
        pytest.param(negatives_and_positives(14, 60), "14 lesions of the other classes", id="few negatives"),
        pytest.param(
            replace(negatives_and_positives(60, 30), lesions=np.arange(90) // 3),
            "10 lesions of malignant",
            id="lesions",
        ),
        pytest.param(by_chance(), "no better than chance", id="chance"),
        pytest.param(upside_down(), "no better than chance", id="labels swapped"),
    ],
)
def test_images_that_do_not_do_are_refused(sample: Sample, reason: str, classifier: Classifier) -> None:
    with pytest.raises(LesionEdgeError, match=reason):
        fit_site(sample, classifier, 0.9)


def test_least_that_does_is_taken(classifier: Classifier) -> None:
    site = fit_site(negatives_and_positives(35, 15), classifier, 0.9)
    assert (site.images["positive"], site.images["negative"], site.outlier_limit) == (15, 35, None)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Redder images are more often malignant, and all are bluer than where the bundle comes from."""
    rng = np.random.default_rng(0)
    for index in range(80):
        label = "malignant" if index % 3 == 0 else "benign"
        color = rng.normal((110 if label == "malignant" else 80, 90, 120), 12)
        folder = tmp_path / "clinic" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), tuple(np.clip(color, 0, 255).astype(int).tolist())).save(
            folder / f"{index}.png"
        )
    return tmp_path / "clinic"


@pytest.fixture
def side_file(clinic: Path, scored_bundle: Path, tmp_path: Path) -> Path:
    classifier = Classifier.load(scored_bundle, "cpu")
    sample, _ = classify_sample(classifier, find_labeled_images([str(clinic)], classifier.manifest.class_names))
    fit_site(sample, classifier, 0.9).save(tmp_path / "site.json")
    return tmp_path / "site.json"


def test_side_file_moves_probabilities_threshold_and_refusals(
    side_file: Path, scored_bundle: Path, clinic: Path
) -> None:
    plain = Classifier.load(scored_bundle, "cpu")
    fitted = Classifier.load(scored_bundle, "cpu", site=side_file)
    site = fitted.site
    assert site is not None
    assert site.outlier_limit is not None
    assert fitted.threshold == site.threshold
    images = sorted(clinic.rglob("*.png"))
    found = {"malignant": 0, "benign": 0}
    for before, after in zip(plain.predict(images), fitted.predict(images), strict=True):
        p = after.probabilities["malignant"]
        assert p == pytest.approx(float(site.probability(np.array(before.probabilities["malignant"]))))
        assert after.probabilities["benign"] == pytest.approx(1 - p)
        assert before.outlier is not None
        assert after.outlier == pytest.approx(before.outlier / site.outlier_limit)
        if after.label is not None:
            assert after.label == ("malignant" if p >= site.threshold else "benign")
            found["malignant"] += after.label == Path(after.path).parent.name == "malignant"
    assert found["malignant"] >= 0.9 * 27 - 1
    assert [fitted.predict_one(image) for image in images[:9]] == list(fitted.predict(images[:9]))
    pixels = np.stack([load_pixels(image, 32) for image in images[:9]])
    assert list(fitted.label(fitted.run(pixels), map(str, images))) == list(fitted.predict(images[:9]))
    assert Classifier.load(scored_bundle, "cpu", threshold=0.2, site=side_file).threshold == 0.2
    assert pickle.loads(pickle.dumps(fitted)).site == site


def test_other_classes_share_what_is_left_as_they_did() -> None:
    site = Site("", "int8", "b", 2.0, 1.0, 0.5, None, 0.9, 0.3, {}, {})
    given = np.array([[0.3, 0.5, 0.2], [0.0, 1.0, 0.0], [0.6, 0.0, 0.4], [np.nan] * 3])
    moved = site.apply({"probabilities": given}, 1)["probabilities"]
    np.testing.assert_allclose(moved[:3].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(moved[0, 0] / moved[0, 2], 1.5)
    np.testing.assert_allclose(moved[2, 0] / moved[2, 2], 1.5)
    np.testing.assert_allclose(moved[0, 1], 1 / (1 + np.exp(-1)))
    assert np.isnan(moved[3]).any()


def test_side_file_belongs_to_its_bundle_and_variant(side_file: Path, bundle: Path, scored_bundle: Path) -> None:
    with pytest.raises(LesionEdgeError, match="fitted for another bundle"):
        Classifier.load(bundle, site=side_file)
    with pytest.raises(LesionEdgeError, match="fitted for int8, and fp32 is in use"):
        Classifier.load(scored_bundle, variant="fp32", site=side_file)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda text: text.replace('"target_sensitivity": 0.9', '"target_sensitivity": 0.8'), id="edited"
        ),
        pytest.param(lambda text: text + " ", id="a space behind"),
        pytest.param(lambda text: text[:-40], id="cut off"),
        pytest.param(lambda text: "[]", id="a list"),
        pytest.param(lambda text: "", id="empty"),
    ],
)
def test_changed_side_file_is_refused(side_file: Path, scored_bundle: Path, change: Callable[[str], str]) -> None:
    side_file.write_text(change(side_file.read_text()))
    with pytest.raises(LesionEdgeError, match=r"--site .* is damaged: .*; fit it again"):
        Classifier.load(scored_bundle, site=side_file)


@pytest.mark.parametrize(
    "fields",
    [{"temperature": 0.0}, {"threshold": 1.5}, {"outlier_limit": -1.0}, {"offset": float("inf")}],
    ids=lambda fields: next(iter(fields)),
)
def test_side_file_of_no_sense_is_refused(fields: dict[str, Any], side_file: Path, scored_bundle: Path) -> None:
    site = load_site(side_file, Classifier.load(scored_bundle))
    with pytest.raises(ValueError, match=r"above 0|within 0 to 1"):
        replace(site, **fields)


def write_table(path: Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_labels_come_from_folders_or_a_table(clinic: Path) -> None:
    names = ("benign", "malignant")
    images = find_labeled_images([str(clinic)], names)
    assert (len(images), {image.group for image in images}) == (80, {""})
    table = write_table(clinic / "t.csv", [{"file": "malignant/0.png", "label": "Malignant", "group": "7"}])
    assert find_labeled_images([table], names) == [LabeledImage(str(clinic / "malignant/0.png"), "Malignant", "7")]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"file": "a.png", "label": "nevus"}], "labelled 'nevus', and the classes are benign, malignant"),
        ([{"image": "a.png", "label": "benign"}], "no columns file,label; it has image, label"),
    ],
)
def test_table_that_does_not_do_is_refused(rows: list[dict[str, str]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match=reason):
        find_labeled_images([write_table(tmp_path / "t.csv", rows)], ("benign", "malignant"))


def test_equal_bytes_are_one_lesion(clinic: Path, classifier: Classifier) -> None:
    copy = clinic / "benign" / "copy.png"
    copy.write_bytes((clinic / "benign" / "1.png").read_bytes())
    images = [
        LabeledImage(str(path), "benign") for path in (copy, clinic / "benign" / "1.png", clinic / "gone.png")
    ]
    sample, unreadable = classify_sample(classifier, images)
    assert sample.lesions.tolist() == [0, 0]
    assert unreadable == 1


def test_command_fits_and_uses_a_side_file(
    clinic: Path, scored_bundle: Path, tmp_path: Path, command: Callable[..., FinishedCommand]
) -> None:
    site = tmp_path / "s.json"
    arguments = ("lesion-infer", clinic, "--model", scored_bundle)
    finished = command(*arguments, "--fit-site", site, "--target-sensitivity", "0.8")
    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr
    assert "fitted on 27 malignant and 53 other images of 80 lesions" in finished.stderr
    content = json.loads(site.read_text())
    assert (content["target_sensitivity"], content["bundle"]) == (0.8, load_manifest(scored_bundle).digest)
    assert f"threshold {content['threshold']:.3f}" in finished.stderr
    again = command(*arguments, "--fit-site", site)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)

    log, report = tmp_path / "audit", tmp_path / "report.html"
    finished = command(
        *arguments, "--site", site, "--audit", log, "--report", report, "--output", tmp_path / "rows.csv"
    )
    assert finished.returncode == 0, finished.stderr
    assert f"int8, site {content['digest'][:12]}" in finished.stderr
    assert f"site {content['digest'][:12]}" in report.read_text()
    assert {json.loads(line)["site"] for line in log.read_text().splitlines()} == {content["digest"]}


@pytest.mark.parametrize(
    "options",
    [
        ("--fit-site", "s.json", "--site", "t.json"),
        ("--fit-site", "s.json", "--output", "rows.csv"),
        ("--target-sensitivity", "0.8"),
        ("--fit-site", "s.json"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_refused(
    options: tuple[str, ...], tmp_path: Path, command: Callable[..., FinishedCommand]
) -> None:
    finished = command("lesion-infer", tmp_path, *options)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "Traceback" not in finished.stderr
