"""A linear probe finds what the features hold, and does not take a lesion seen before for knowledge."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_train.probe import linear_probe, probe_sentence

pytest.importorskip("sklearn")

COUNT = 200
RNG = np.random.default_rng(0)
SOURCES = [("clinic", "archive", "phone")[index % 3] for index in range(COUNT)]
LESIONS = [f"lesion {index}" for index in range(COUNT)]
NOISE: NDArray[np.float32] = RNG.normal(size=(COUNT, 30)).astype(np.float32)
CODED = NOISE.copy()
CODED[:, 3] += 9 * np.array([source == "clinic" for source in SOURCES])
CODED[:, 8] += 9 * np.array([source == "phone" for source in SOURCES])
REPEATED = np.repeat(NOISE[:20], 10, axis=0)
"""Ten images of each of twenty lesions, alike."""


@pytest.mark.parametrize(
    ("features", "lesions", "low", "high"),
    [
        pytest.param(CODED, LESIONS, 0.95, 1, id="source in two features"),
        pytest.param(NOISE, LESIONS, 0.2, 0.47, id="nothing in the features"),
    ],
)
def test_balanced_accuracy_is_what_the_features_tell(
    features: NDArray[np.float32], lesions: list[str], low: float, high: float
) -> None:
    probe = linear_probe(features, SOURCES, lesions)
    assert probe is not None
    assert low <= probe["balanced_accuracy"] <= high
    assert probe["chance"] == pytest.approx(1 / 3)
    assert (probe["targets"], probe["images"]) == (["archive", "clinic", "phone"], COUNT)


def test_a_lesion_never_lies_on_both_sides() -> None:
    """By its lesions alone every image could be told, were they trained on and tested on."""
    sources = [("clinic", "archive")[lesion % 2] for lesion in range(20) for _ in range(10)]
    lesions = [f"lesion {lesion}" for lesion in range(20) for _ in range(10)]
    apart, mixed = (linear_probe(REPEATED, sources, groups) for groups in (lesions, LESIONS))
    assert apart is not None
    assert mixed is not None
    assert mixed["balanced_accuracy"] > 0.9
    assert apart["balanced_accuracy"] < 0.7


def test_sources_with_few_lesions_are_not_probed() -> None:
    rare = ["rare"] * 4 + SOURCES[4:]
    probe = linear_probe(CODED, rare, LESIONS)
    assert probe is not None
    assert probe["targets"] == ["archive", "clinic", "phone"]
    assert probe["images"] == COUNT - 4
    assert linear_probe(CODED, ["one"] * COUNT, LESIONS) is None
    assert linear_probe(CODED[:8], SOURCES[:8], LESIONS[:8]) is None


def test_sentence_names_both_figures_and_chance() -> None:
    probes = {
        "source": {"balanced_accuracy": 0.912, "chance": 1 / 3},
        "class": {"balanced_accuracy": 0.8, "chance": 0.5},
    }
    assert probe_sentence(probes) == (
        "a linear probe of the last features tells the source with a balanced accuracy of 0.91 (chance 0.33) "
        "and the class with a balanced accuracy of 0.80 (chance 0.50)"
    )
