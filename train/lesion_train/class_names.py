"""What class names mean: which one is the disease, decided by known words and never guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Literal

from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError

Side = Literal["disease", "benign"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DISEASE = _words(
    "malignant malignancy malign maligna maligno maligne bösartig cancer cancers cancerous carcinoma carcinomas "
    "tumor tumors tumour tumours melanoma melanomas mel mm bcc scc nmsc bowen bowens akiec ak actinic "
    "disease diseased unhealthy abnormal positive"
)
"""Words of which one makes a class the one to detect, in lower case."""

BENIGN = _words(
    "benign benigna benigno bénin benin gutartig healthy normal harmless negative control controls clear "
    "nevus nevi naevus naevi nv mole moles bkl sk seborrheic seborrhoeic df dermatofibroma dermatofibromas "
    "vasc angioma angiomas hemangioma hemangiomas other others rest none"
)
"""Words of which one makes a class the other side."""

NEGATIONS = _words("not non no without free absent")
"""Words that turn a disease into its absence."""

FILLERS = _words(
    "skin lesion lesions image images img imgs photo photos class label type the a of in is yes "
    "cell cells basal squamous cutaneous invasive situ superficial spreading nodular metastatic "
    "keratosis keratoses common atypical dysplastic congenital melanocytic pigmented vascular blue spitz like"
)
"""Words that belong to names of either side and decide nothing by themselves."""


def spelling_key(name: str) -> str:
    """What two spellings of one class name share: `Benign`, `benign` and `benign ` are one class."""
    return re.sub(r"[\s_]+", "_", unicodedata.normalize("NFKC", name).strip().casefold())


def name_words(name: str) -> list[str]:
    """Split a name into lower-case words: at capitals, signs and digits; `notmelanoma` gives `not`, `melanoma`."""
    words = []
    for word in re.findall(r"[^\W\d_]+", re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)):
        word = unicodedata.normalize("NFC", word).lower()
        prefixes = (p for p in ("non", "not", "no") if word.startswith(p) and word[len(p) :] in DISEASE | BENIGN)
        prefix = next(prefixes, "")
        words += [prefix, word[len(prefix) :]] if prefix else [word]
    return words


def side(words: Collection[str]) -> Side | None:
    """Which side the words of a class name stand for; None where they leave a doubt."""
    diseases, benign, negated = (bool(set(words) & group) for group in (DISEASE, BENIGN, NEGATIONS))
    if diseases == benign or set(words) - DISEASE - BENIGN - NEGATIONS - FILLERS:
        return None
    if negated:
        return "benign" if diseases else None
    return "disease" if diseases else "benign"


def find_disease(class_names: Sequence[str]) -> str | None:
    """The one class that is plainly the disease; None where there is none, or more than one.

    Plain is one name of a disease where all the other names are known as benign or as its absence, or a class
    called malignant among names of no other disease. Words that all names share (`skin_cancer_benign`) tell
    nothing.
    """
    words = [name_words(name) for name in class_names]
    shared = set(words[0]).intersection(*words) - NEGATIONS
    for names in (words, [[word for word in name if word not in shared] for name in words]):
        sides = [side(name) for name in names]
        if sides.count("disease") != 1:
            continue
        index = sides.index("disease")
        if sides.count("benign") == len(sides) - 1 or names[index] == ["malignant"]:
            return class_names[index]
    return None


def choose_positive(class_names: Sequence[str], requested: str | None) -> str:
    """Name the class that sensitivity, threshold and class-activation map are about.

    Raises:
        LesionEdgeError: the class asked for does not exist, or the names leave a doubt and none was asked for.
    """
    if requested is not None:
        matches = [name for name in class_names if spelling_key(name) == spelling_key(requested)]
        if not matches:
            raise LesionEdgeError(f"--positive-class {requested} is not one of {', '.join(class_names)}")
        return requested if requested in matches else matches[0]
    name = find_disease(class_names)
    if name is None:
        raise LesionEdgeError(
            f"the names do not tell which class is the disease to detect: name one of {', '.join(class_names)} "
            "with --positive-class"
        )
    if spelling_key(name) != "malignant":
        say(f"no class is called malignant: taking '{name}' as the one to detect (--positive-class)")
    return name
