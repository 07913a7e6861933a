"""Which class a model is to detect: known from the names, or asked for, never guessed."""

from __future__ import annotations

import pytest

from lesion_edge.errors import LesionEdgeError
from lesion_train.class_names import choose_positive, spelling_key

PLAIN = [
    ("benign, malignant", "malignant"),
    ("benign, malignant, unsure", "malignant"),
    ("Benign, Malignant", "Malignant"),
    ("MALIGNANT, NORMAL", "MALIGNANT"),
    ("Malignant, Normal", "Malignant"),
    ("Melanoma, NotMelanoma", "Melanoma"),
    ("melanoma, notmelanoma", "melanoma"),
    ("Melanoma, Non-Melanoma", "Melanoma"),
    ("melanoma, non_melanoma", "melanoma"),
    ("melanoma, nonmelanoma", "melanoma"),
    ("melanoma, no melanoma", "melanoma"),
    ("Cancer, Non_Cancer", "Cancer"),
    ("cancer, noncancerous", "cancer"),
    ("cancer, cancer-free", "cancer"),
    ("malignant, not_malignant", "malignant"),
    ("Non_Malignant, zz_malignant", None),
    ("melanoma, nevus", "melanoma"),
    ("melanoma, naevus", "melanoma"),
    ("Melanoma, Nevi", "Melanoma"),
    ("MEL, NV", "MEL"),
    ("bcc, nv", "bcc"),
    ("benign, scc", "scc"),
    ("cancer, healthy", "cancer"),
    ("carcinoma, healthy skin", "carcinoma"),
    ("basal cell carcinoma, nevus", "basal cell carcinoma"),
    ("actinic keratosis, seborrheic keratosis", "actinic keratosis"),
    ("melanoma, seborrheic keratosis, common nevus, atypical nevus", "melanoma"),
    ("0_benign, 1_malignant", "1_malignant"),
    ("skin_cancer_benign, skin_cancer_malignant", "skin_cancer_malignant"),
    ("melanoma_negative, melanoma_positive", "melanoma_positive"),
    ("melanoma_no, melanoma_yes", "melanoma_yes"),
    ("healthy, unhealthy", "unhealthy"),
    ("abnormal, normal", "abnormal"),
    ("melanoma, others", "melanoma"),
    ("bénin, maligne", "maligne"),
]

DOUBTFUL = [
    "a, b",
    "0, 1",
    "class0, class1",
    "train, test",
    "no, yes",
    "cat, melanoma",
    "keratosis, melanoma, nevus",
    "akiec, bcc, bkl, df, mel, nv, vasc",
    "malignant, melanoma, nevus",
    "melanoma, nmsc",
    "benign, benign_lesion",
    "benign, not_benign",
    "healthy, non-healthy",
    "not melanoma, not nevus",
    "nevus, normal",
    "benign, suspected_melanoma",
    "benign, premalignant",
    "benign, pre-cancerous",
    "melanoma, melanoma mimics",
    "malignant_A, malignant_B",
    "lentigo maligna, nevus",
]


def row(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


@pytest.mark.parametrize(("names", "disease"), [case for case in PLAIN if case[1]], ids=lambda case: case)
@pytest.mark.parametrize("turned", [False, True], ids=["in order", "reversed"])
def test_disease_is_known_by_its_name_wherever_it_stands(names: str, disease: str, turned: bool) -> None:
    assert choose_positive(row(names)[::-1] if turned else row(names), None) == disease


@pytest.mark.parametrize("names", [*DOUBTFUL, *[names for names, disease in PLAIN if disease is None]])
def test_doubt_is_a_request_for_the_option(names: str) -> None:
    with pytest.raises(LesionEdgeError, match="--positive-class") as refusal:
        choose_positive(row(names), None)
    assert all(name in str(refusal.value) for name in row(names))
    assert choose_positive(row(names), row(names)[0]) == row(names)[0]


@pytest.mark.parametrize(
    ("requested", "positive_class"), [("nevus", "nevus"), ("Nevus", "nevus"), ("BASAL CELL", "basal_cell")]
)
def test_class_asked_for_may_be_spelled_in_another_case(requested: str, positive_class: str) -> None:
    assert choose_positive(["basal_cell", "nevus"], requested) == positive_class


def test_class_asked_for_has_to_exist() -> None:
    with pytest.raises(LesionEdgeError, match="--positive-class mole is not one of melanoma, nevus"):
        choose_positive(["melanoma", "nevus"], "mole")


def test_choice_is_said_unless_the_class_is_called_malignant(capsys: pytest.CaptureFixture[str]) -> None:
    choose_positive(["benign", "malignant"], None)
    choose_positive(["nevus", "melanoma"], "nevus")
    assert capsys.readouterr().err == ""
    choose_positive(["nevus", "melanoma"], None)
    assert "taking 'melanoma' as the one to detect (--positive-class)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other"), [("Benign", "benign"), ("benign ", "benign"), ("non benign", "Non_Benign")]
)
def test_spellings_of_one_class(one: str, other: str) -> None:
    assert spelling_key(one) == spelling_key(other)
    assert spelling_key(one) != spelling_key("malignant")
