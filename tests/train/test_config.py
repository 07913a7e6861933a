"""Hyperparameters: every field can be set by name, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_train.config import field_table, override
from lesion_train.paper import PaperConfig
from lesion_train.robust_config import RobustConfig
from lesion_train.run import flatten

PAPER, ROBUST = PaperConfig(), RobustConfig()


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        pytest.param("epochs=7", "epochs", 7, id="integer"),
        pytest.param("learning_rate=3e-4", "learning_rate", 3e-4, id="number"),
        pytest.param("cooldown_fraction=1", "cooldown_fraction", 1.0, id="whole number for a number"),
        pytest.param("balanced=false", "balanced", False, id="truth value"),
        pytest.param("first_trainable_layer=none", "first_trainable_layer", "none", id="text"),
        pytest.param("augmentation.gamma=0.8,1.2", "augmentation.gamma", (0.8, 1.2), id="pair inside a group"),
        pytest.param(
            "augmentation.jpeg_quality=40,40", "augmentation.jpeg_quality", (40, 40), id="pair of integers"
        ),
        pytest.param("outlier_score.directions=8", "outlier_score.directions", 8, id="field of another group"),
    ],
)
def test_one_field_is_set_and_the_others_stay(assignment: str, name: str, value: Any) -> None:
    before, after = (flatten(asdict(config)) for config in (ROBUST, override(ROBUST, [assignment])))
    assert after == {**before, name: value}
    assert type(after[name]) is type(before[name])


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        pytest.param("saturation=1,2", "names no field of RobustConfig", id="unknown name"),
        pytest.param("augmentation=1", "names no field of RobustConfig", id="a group is no field"),
        pytest.param("epochs", "is not name=value", id="no value"),
        pytest.param("epochs=", "'' is not int", id="empty value"),
        pytest.param("epochs=2.5", "'2.5' is not int", id="fraction of an epoch"),
        pytest.param("learning_rate=fast", "'fast' is not float", id="no number"),
        pytest.param("learning_rate=nan", "'nan' is not a finite number", id="not a number"),
        pytest.param("weight_decay=inf", "'inf' is not a finite number", id="infinite"),
        pytest.param("balanced=yes", "'yes' is neither true nor false", id="no truth value"),
        pytest.param("augmentation.gamma=1", "'1' is not 2 values with commas between them", id="half a pair"),
        pytest.param("augmentation.gamma=1.5,0.5", "1.5,0.5 runs downwards", id="pair upside down"),
        pytest.param("epochs=0", "0 is out of bounds: at least 1", id="no epoch"),
        pytest.param("augmentation.p_flip=1.2", "1.2 is out of bounds: at most 1", id="no probability"),
        pytest.param(
            "augmentation.downscale=0.5,2", "0.5,2.0 is out of bounds: at most 1", id="pair out of bounds"
        ),
    ],
)
def test_what_is_no_field_or_value_is_refused_with_the_list_of_fields(assignment: str, reason: str) -> None:
    with pytest.raises(LesionEdgeError) as refusal:
        override(ROBUST, [assignment])
    first, *fields = str(refusal.value).splitlines()
    assert first.startswith(f"--set {assignment}")
    assert reason in first
    assert fields == field_table(ROBUST).splitlines()
    assert "  augmentation.gamma: float,float = 0.65,1.5" in fields
    assert "  balanced: bool = true" in fields
    assert "  epochs: int = 10" in fields


def test_a_field_set_twice_is_refused() -> None:
    with pytest.raises(LesionEdgeError, match="epochs is set twice"):
        override(PAPER, ["epochs=1", "epochs=1"])


@pytest.mark.parametrize("config", [PAPER, ROBUST], ids=["paper", "robust"])
def test_every_default_can_be_set_and_survives_json(config: Any) -> None:
    """Bounds hold for the defaults, and a config read from `run.json` compares equal."""
    assignments = [line.strip().replace(": ", "=", 1).split("=")[::2] for line in field_table(config).splitlines()]
    again = override(config, [f"{name}={value.strip()}" for name, value in assignments])
    assert again == config
    assert flatten(json.loads(json.dumps(asdict(again)))).keys() == flatten(asdict(config)).keys()
