"""Report of a run: one HTML page that needs nothing else, with images, heat maps and a threshold to move."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesion_edge import __version__, atomic
from lesion_edge.errors import ImageError
from lesion_edge.explain import heat_map, visible_box
from lesion_edge.preprocess import load_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction
    from lesion_edge.preprocess import Resize, Source

THUMBNAIL = 192
"""Longest side of a thumbnail, pixels."""

TEMPLATES = Path(__file__).with_name("templates")

CardIndex = list[tuple[float, int, int]]
"""For each card: minus the probability of the positive class, and start and length in the temporary file."""


@dataclass(frozen=True)
class CardImages:
    """Images of a card."""

    image: str
    """Thumbnail, a data URL."""
    heat: str | None = None
    """Heat map to lie over it, a data URL; None without one."""
    heat_position: dict[str, str] = field(default_factory=dict)
    """Where it lies: CSS properties, in percent of the thumbnail."""


class Report:
    """Collector of predictions that writes the page when it is left, after an interruption too.

    `add` may be called from several threads. The cards wait in a temporary file, so that memory stays flat.
    """

    def __init__(self, path: Path, classifier: Classifier) -> None:
        self._path = path
        self._classifier = classifier
        self._environment = page_environment(TEMPLATES)
        self._card_template = self._environment.get_template("card.html")
        self._cards: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        self._labelled: CardIndex = []
        self._refused: CardIndex = []
        self._errors: list[tuple[str, str]] = []
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, prediction: Prediction) -> Prediction:
        """Add a prediction with its class-activation map, and return it."""
        if prediction.error is not None:
            with self._lock:
                self._errors.append((prediction.path, prediction.error))
            return prediction
        probability = prediction.probabilities[self._classifier.manifest.positive_class]
        card = _encode(self._card(prediction, probability))
        with self._lock:
            group = self._refused if prediction.status == "out_of_distribution" else self._labelled
            group.append((-probability, self._cards.seek(0, os.SEEK_END), len(card)))
            self._cards.write(card)
            self._counts[prediction.label or prediction.status] += 1
        return prediction

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        with self._cards:
            if kind is None:
                self._write()

    def _write(self) -> None:
        page = self._environment.get_template("report.html").generate(
            total=len(self._labelled) + len(self._refused) + len(self._errors),
            **model_values(self._classifier),
            counts=", ".join(f"{count} {label}" for label, count in self._counts.most_common()),
            labelled_cards=self._sorted_cards(self._labelled),
            refused_cards=self._sorted_cards(self._refused),
            refused_count=len(self._refused),
            errors=self._errors,
        )
        with atomic.replacing(self._path) as file:
            for text in page:
                file.write(_encode(text))

    def _sorted_cards(self, index: CardIndex) -> Iterator[str]:
        for _, start, length in sorted(index):
            self._cards.seek(start)
            yield self._cards.read(length).decode("utf-8")

    def _card(self, prediction: Prediction, probability: float) -> str:
        positive_class = self._classifier.manifest.positive_class
        others = {name: p for name, p in prediction.probabilities.items() if name != positive_class}
        images = None
        with contextlib.suppress(ImageError):  # it has vanished since; its prediction stands
            images = card_images(prediction.path, prediction.cam, self._classifier.manifest.resize)
        return self._card_template.render(
            label=prediction.label or prediction.status,
            refused=prediction.label is None,
            positive_class=positive_class,
            probability=probability,
            other=max(others, key=others.__getitem__),
            images=images,
            path=prediction.path,
        )


def page_environment(*folders: Path) -> Environment:
    """Templates of HTML pages, escaped by themselves.

    Args:
        folders: where they are looked for, in this order.
    """
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def model_values(classifier: Classifier) -> dict[str, Any]:
    """What the templates of a page fill in about the model and its rule."""
    threshold = classifier.threshold
    site = f", fitted to site {classifier.site.digest[:12]}" if classifier.site is not None else ""
    rule = "the most probable class" if threshold is None else f"threshold {threshold:.4g}"
    return {
        "model": f"Lesion Edge {__version__}, {classifier.variant} graph on {classifier.device}, {rule}{site}",
        "positive_class": classifier.manifest.positive_class,
        "threshold": threshold,
        "slider": f"{0.5 if threshold is None else threshold:.3f}",
    }


def card_images(source: Source, cam: NDArray[np.float32] | None, resize: Resize) -> CardImages:
    """Images of a card.

    Args:
        source: the image, as for `lesion_edge.preprocess.load_image`, which says what is raised, too.
        cam: class-activation map (h, w), or None.
        resize: of the bundle.
    """
    thumbnail = load_image(source, THUMBNAIL)
    image = _data_url(thumbnail, "JPEG", quality=80)
    if cam is None:
        return CardImages(image)
    left, top, right, bottom = visible_box(*thumbnail.size, resize)
    position = {
        "left": f"{left / thumbnail.width:.2%}",
        "top": f"{top / thumbnail.height:.2%}",
        "width": f"{(right - left) / thumbnail.width:.2%}",
        "height": f"{(bottom - top) / thumbnail.height:.2%}",
    }
    return CardImages(image, _data_url(heat_map(cam), "PNG"), position)


def _encode(text: str) -> bytes:
    # A file name may hold bytes that are no UTF-8.
    return text.encode("utf-8", "backslashreplace")


def _data_url(image: Image.Image, kind: str, **options: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
