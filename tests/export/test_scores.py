"""What the model card says of each diagnosis and each source."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lesion_edge.intervals import bootstrap_interval
from lesion_edge.manifest import Manifest
from lesion_export.bundle import make_variant
from lesion_export.model_card import model_card
from lesion_export.operating_point import Answers, OperatingPoint, Outputs
from lesion_export.run_images import ValidationSet, lesion_numbers
from lesion_export.scores import risk_coverage, score_cross_fitted, score_subgroups, score_variant
from lesion_train.run import Sample

# diagnosis, source, lesion, is malignant, probability in float, in int8; the threshold is 0.5.
IMAGES = [
    ("mel", "ham", "L1", 1, 0.9, 0.9),
    ("mel", "ham", "L1", 1, 0.6, 0.4),
    ("melanoma", "isic", "L2", 1, 0.2, 0.2),
    ("bcc", "ham", None, 1, 0.7, 0.7),
    ("nv", "ham", None, 0, 0.1, 0.1),
    ("nevus", "isic", "L3", 0, 0.8, 0.8),
    ("bkl", "ham", None, 0, 0.55, 0.45),
    ("scc in situ", "ham", None, 1, 0.95, 0.95),
    (None, "isic", None, 0, 0.3, 0.3),
]
SAMPLES = [
    Sample(f"{number}.jpg", label, lesion, source, diagnosis)
    for number, (diagnosis, source, lesion, label, *_) in enumerate(IMAGES)
]
LABELS = np.array([image[3] for image in IMAGES])


def answers(score: Any) -> Answers:
    logits = np.log(np.stack([1 - np.array(score), score], axis=1)).astype(np.float32)
    return OperatingPoint(1.0, 0.5, 1).apply(Outputs(logits))


def validation_set(samples: list[Sample]) -> ValidationSet:
    return ValidationSet(
        pixels=np.zeros((len(samples), 1, 1, 3), np.uint8),
        labels=np.array([sample.label for sample in samples]),
        lesions=lesion_numbers(samples),
        diagnoses=tuple(sample.diagnosis for sample in samples),
        sources=tuple(sample.source for sample in samples),
        class_names=("benign", "malignant"),
        positive_index=1,
    )


FLOAT, INT8 = (answers([image[column] for image in IMAGES]) for column in (4, 5))


@pytest.fixture
def subgroups() -> dict[str, Any]:
    """Those of int8."""
    return score_subgroups(INT8, FLOAT, validation_set(SAMPLES))


@pytest.mark.parametrize(
    (
        "column",
        "value",
        "images",
        "lesions",
        "false_negatives",
        "false_positives",
        "flipped",
        "sensitivity",
        "specificity",
    ),
    [
        pytest.param("diagnosis", "melanoma", 3, 2, 2, 0, 1, 1 / 3, None, id="mel and melanoma are one"),
        pytest.param("diagnosis", "nevus", 2, 2, 0, 1, 0, None, 1 / 2, id="nv and nevus are one"),
        pytest.param("diagnosis", "basal cell carcinoma", 1, 1, 0, 0, 0, 1, None, id="a code in words"),
        pytest.param("diagnosis", "benign keratosis", 1, 1, 0, 0, 1, None, 1, id="the other class, flipped"),
        pytest.param("diagnosis", "scc in situ", 1, 1, 0, 0, 0, 1, None, id="an unknown word stays"),
        pytest.param("diagnosis", "not stated", 1, 1, 0, 0, 0, None, 1, id="no diagnosis"),
        pytest.param("source", "ham", 6, 5, 1, 0, 2, 3 / 4, 1, id="source of both classes"),
        pytest.param("source", "isic", 3, 3, 1, 1, 0, 0, 1 / 2, id="another source"),
    ],
)
def test_counts_and_rates(
    column: str,
    value: str,
    images: int,
    lesions: int,
    false_negatives: int,
    false_positives: int,
    flipped: int,
    sensitivity: float | None,
    specificity: float | None,
    subgroups: dict[str, Any],
) -> None:
    entry = subgroups[column][value]
    assert (entry["images"], entry["lesions"]) == (images, lesions)
    assert (entry["false_negatives"], entry["false_positives"], entry["flipped"]) == (
        false_negatives,
        false_positives,
        flipped,
    )
    assert entry["sensitivity"] == (None if sensitivity is None else pytest.approx(sensitivity))
    assert entry["specificity"] == (None if specificity is None else pytest.approx(specificity))


@pytest.mark.parametrize(
    ("column", "value", "members"),
    [
        pytest.param("source", "ham", [0, 1, 3, 4, 6, 7], id="a source by itself"),
        pytest.param("diagnosis", "melanoma", [0, 1, 2, 4, 5, 6, 8], id="a malignant one against all benign"),
        pytest.param("diagnosis", "nevus", [0, 1, 2, 3, 4, 5, 7], id="a benign one against all malignant"),
    ],
)
def test_roc_auc_is_that_of_scikit_learn(
    column: str, value: str, members: list[int], subgroups: dict[str, Any]
) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    score = [IMAGES[index][5] for index in members]
    entry = subgroups[column][value]
    assert entry["roc_auc"] == pytest.approx(reference.roc_auc_score(LABELS[members], score))
    low, high = entry["roc_auc_interval"]
    assert 0 <= low < entry["roc_auc"] < high <= 1


def test_interval_of_a_rate_counts_lesions() -> None:
    images = [Sample(f"{n}.jpg", 1, f"lesion {n // 4}", "clinic") for n in range(40)]
    images += [Sample(f"benign {n}.jpg", 0, None, "clinic") for n in range(10)]
    score = np.repeat([0.9, 0.1, 0.9, 0.1], [32, 8, 2, 8])
    entry = score_subgroups(answers(score), answers(score), validation_set(images))["source"]["clinic"]
    # Wilson's interval of 8 in 10 (scipy.stats.binomtest): 10 lesions, and 10 images without a name.
    for rate in ("sensitivity", "specificity"):
        assert entry[rate] == pytest.approx(0.8)
        assert entry[f"{rate}_interval"] == pytest.approx((0.490162, 0.943318), abs=1e-5)


def test_images_of_one_lesion_are_drawn_together() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100)
    labels = np.repeat([0, 1], 50)

    def mean(repeated: int) -> Any:
        every = np.repeat(values, repeated)
        return bootstrap_interval(
            lambda index: float(every[index].mean()),
            np.repeat(labels, repeated),
            np.repeat(np.arange(100), repeated),
        )

    assert mean(4) == pytest.approx(mean(1)), "copies of an image tell nothing new"
    alone = bootstrap_interval(lambda index: float(np.repeat(values, 4)[index].mean()), np.repeat(labels, 4))
    assert alone[1] - alone[0] == pytest.approx((mean(1)[1] - mean(1)[0]) / 2, rel=0.15)


def test_lesions_are_numbered_and_an_image_without_one_stands_alone() -> None:
    numbers = lesion_numbers(SAMPLES).tolist()
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == len(SAMPLES) - 1


def card(samples: list[Sample], notes: str = "", config: dict[str, Any] | None = None) -> str:
    """The card of a bundle with int8 and fp32."""
    variants, validation = {}, validation_set(samples)
    for name, of_variant in (("int8", INT8), ("fp32", FLOAT)):
        figures = score_variant(of_variant, validation)
        figures["cross_fitted"] = score_cross_fitted(of_variant, validation)
        figures["subgroups"] = score_subgroups(of_variant, FLOAT, validation)
        variants[name] = make_variant(
            name, b"", temperature=1.0, threshold=0.5, threshold_method="", metrics=figures
        )
    manifest = Manifest(("benign", "malignant"), "malignant", 64, "squash", variants)
    run: dict[str, Any] = {
        "id": "run",
        "created": "today",
        "settings": {"recipe": "paper"},
        "versions": {"keras": "3.15.1", "numpy": "2.4.6"},
        "data": {"license": None, "digest": ""},
        "split": {"train": [], "validation": []},
    }
    if config is not None:
        run["config"] = config
    return model_card(manifest, run, [], notes)


def test_refused_lesions_are_neither_found_nor_cleared() -> None:
    """Refused are two of the five malignant images, one of which would be found, and a benign one."""
    refused = np.isin(np.arange(len(SAMPLES)), [2, 3, 4])
    metrics = score_variant(replace(INT8, refused=refused), validation_set(SAMPLES))
    assert (metrics["sensitivity"], metrics["specificity"]) == (2 / 5, 2 / 4)
    assert metrics["accuracy"] == pytest.approx(4 / 9)
    assert metrics["classes"]["malignant"]["recall"] == 2 / 5
    answered = metrics["answered"]
    assert (answered["images"], answered["sensitivity"], answered["specificity"]) == (6, 2 / 3, 2 / 3)
    table = score_subgroups(replace(INT8, refused=refused), FLOAT, validation_set(SAMPLES))["source"]["ham"]
    assert (table["false_negatives"], table["false_positives"]) == (2, 0)
    assert (table["sensitivity"], table["specificity"]) == (2 / 4, 1 / 2)


def test_card_tells_what_is_missed_and_what_int8_changes() -> None:
    text = card(SAMPLES)
    lines = [line for line in text.splitlines() if line.startswith(("| melanoma", "| int8 | melanoma", "| ham"))]
    of_diagnosis, of_source, difference = lines
    assert of_diagnosis.startswith("| melanoma | 3 | 2 | 0.333 [")
    assert " | 2 of 3 | – | – | " in of_diagnosis
    assert " | 1 of 4 | 1.000 [" in of_source
    assert difference.endswith(" | -0.333 | – | 1 of 3 |")
    assert "| fp32 | melanoma" not in text


def test_card_without_such_columns_has_no_such_tables() -> None:
    text = card([replace(sample, source=None, diagnosis=None) for sample in SAMPLES])
    assert "Where it fails" not in text
    assert "not stated |" not in text
    assert "Where it fails" in card(SAMPLES)


def test_notes_stand_in_the_card_as_they_are() -> None:
    notes = "## Skin tone\n\nNot measured.\n"
    before, after = card(SAMPLES).split("## Scores")
    assert card(SAMPLES, notes) == f"{before}{notes}\n## Scores{after}"


def test_values_are_escaped_where_markdown_needs_it_and_notes_are_not() -> None:
    samples = [replace(sample, source="clinic *a* | b_c `d` <e>") for sample in SAMPLES]
    text = card(samples, "*From the clinic.*")
    assert r"| clinic \*a\* \| b_c \`d\` \<e\> | 9 |" in text
    assert "\n*From the clinic.*\n" in text


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        pytest.param(
            {"epochs": 3, "augmentation": {"hue": 0.05}},
            ["| `epochs` | `3` |", "| `augmentation.hue` | `0.05` |"],
            id="as run.json has them",
        ),
        pytest.param(None, [], id="a run that records none"),
    ],
)
def test_card_shows_the_hyperparameters_of_the_recipe(config: dict[str, Any] | None, rows: list[str]) -> None:
    lines = card(SAMPLES, config=config).splitlines()
    assert [line for line in lines if line.startswith(("| `epochs", "| `augmentation"))] == rows
    assert any(line.startswith("| hyperparameter |") for line in lines) is bool(rows)


def test_tools_of_the_training_are_listed() -> None:
    assert "trained today with keras 3.15.1, numpy 2.4.6.\n" in card(SAMPLES)


def test_figures_of_the_card_have_three_decimals_each() -> None:
    section = card(SAMPLES).split("## Scores")[1].split("## Gates")[0]
    decimals = {len(number.partition(".")[2]) for number in re.findall(r"\d\.\d+", section)}
    assert decimals == {1, 3}, "one decimal: MiB"


def test_refusing_the_images_that_are_wrong_makes_the_rest_right() -> None:
    images = [Sample(f"{n}.jpg", n % 2, None, "near" if n < 80 else "far") for n in range(100)]
    labels = np.array([sample.label for sample in images])
    wrong = np.arange(100) >= 90
    table = risk_coverage(
        answers(np.where(labels ^ wrong, 0.9, 0.1)), wrong.astype(np.float32), validation_set(images)
    )
    assert list(table) == ["all", "near", "far"]
    whole, *_, nine_tenths, _ = table["all"]
    assert (whole["coverage"], whole["positives"], whole["negatives"]) == (1, 50, 50)
    assert (whole["roc_auc"], whole["sensitivity"], whole["specificity"]) == pytest.approx((0.9, 0.9, 0.9))
    assert (nine_tenths["coverage"], nine_tenths["positives"], nine_tenths["negatives"]) == (0.9, 45, 45)
    assert (nine_tenths["roc_auc"], nine_tenths["sensitivity"], nine_tenths["specificity"]) == (1, 1, 1)
    assert {row["roc_auc"] for row in table["near"]} == {1}
    assert [row["sensitivity"] for row in table["far"]] == sorted(row["sensitivity"] for row in table["far"])


def test_refusals_are_counted_by_class() -> None:
    images = [Sample(f"{n}.jpg", n % 2, None, "clinic") for n in range(8)]
    refusing = replace(answers([0.5] * 8), refused=np.array([True, True, False, True] + [False] * 4))
    entry = score_subgroups(refusing, refusing, validation_set(images))["source"]["clinic"]
    assert (entry["refused_negatives"], entry["refused_positives"]) == (1, 2)
