"""Which folders of a run count as labels."""

from __future__ import annotations

import pytest

from lesion_edge.evaluation import Evaluation
from lesion_edge.prediction import Prediction


@pytest.mark.parametrize(
    ("folder", "index"),
    [
        ("benign", 0),
        ("Benign", 0),
        ("BENIGN", 0),
        ("Malignant", 1),
        ("benign ", None),
        ("not_benign", None),
        ("elsewhere", None),
    ],
)
def test_folder_bears_the_name_of_a_class_in_any_case(folder: str, index: int | None) -> None:
    evaluation = Evaluation(["benign", "malignant"], "malignant")
    probabilities = {"benign": 0.3, "malignant": 0.7}
    evaluation.add(Prediction(path=f"data/{folder}/1.jpg", label="malignant", probabilities=probabilities))
    assert evaluation.without_label == (index is None)
    if index is not None:
        assert list(evaluation.metrics().confusion_matrix[index]) == [0, 1]
