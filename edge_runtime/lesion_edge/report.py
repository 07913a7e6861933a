"""Writes a run as one HTML page that needs nothing else: images by probability, heat maps, a threshold."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
import threading
from collections import Counter
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, BinaryIO

from lesion_edge import __version__, atomic
from lesion_edge.errors import ImageError
from lesion_edge.explain import heat_map, visible_box
from lesion_edge.preprocess import load_image

if TYPE_CHECKING:
    from PIL import Image

    from lesion_edge.classifier import Classifier, Prediction

THUMBNAIL = 192
"""Longest side of a thumbnail, pixels."""

REFUSED = """<h2 id="out-of-distribution">{} out of distribution: not like the lesions of the training</h2>
<p>Perhaps no lesion, or one of an unknown kind. <strong>No label, and not benign:</strong> look at them yourself.
The probabilities mean little here, and the threshold does not move them.</p>
"""

TEMPLATE = Path(__file__).with_name("report.html")


class Report:
    """Collects predictions and writes the page when it is left, after an interruption too.

    `add` may be called from several threads. The cards wait in a temporary file, so that memory stays flat.
    """

    def __init__(self, path: Path, classifier: Classifier) -> None:
        self._path = path
        self._classifier = classifier
        self._cards: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        self._places: list[tuple[float, int, int]] = []
        self._refused: list[tuple[float, int, int]] = []
        self._errors: list[tuple[str, str]] = []
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, prediction: Prediction) -> Prediction:
        """Take in a prediction with its class-activation map; hands it on."""
        if prediction.error is not None:
            with self._lock:
                self._errors.append((prediction.path, prediction.error))
            return prediction
        manifest = self._classifier.manifest
        probability = prediction.probabilities[manifest.positive_class]
        card = self._card(prediction, probability).encode("utf-8", "backslashreplace")
        with self._lock:
            group = self._refused if prediction.status == "out_of_distribution" else self._places
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
        page = Template(TEMPLATE.read_text(encoding="utf-8")).safe_substitute(self._words())
        before, rest = page.split("$cards")
        between, after = rest.split("$out_of_distribution_cards")
        with atomic.replacing(self._path) as file:
            for words, group in ((before, self._places), (between, self._refused), (after, [])):
                file.write(words.encode("utf-8", "backslashreplace"))
                for _, start, length in sorted(group):
                    self._cards.seek(start)
                    file.write(self._cards.read(length))

    def _words(self) -> dict[str, str]:
        classifier = self._classifier
        positive, threshold = classifier.manifest.positive_class, classifier.threshold
        rows = "".join(
            f"<tr><td>{escape(path)}</td><td>{escape(reason)}</td></tr>\n" for path, reason in self._errors
        )
        errors = (
            f'<h2 id="errors">{len(self._errors)} images could not be used</h2>\n<table>\n'
            f"<tr><th scope=col>image</th><th scope=col>reason</th></tr>\n{rows}</table>\n"
        )
        return {
            "total": str(len(self._places) + len(self._refused) + len(self._errors)),
            "model": escape(
                f"Lesion Edge {__version__}, {classifier.variant} graph on {classifier.device}, "
                + ("the most probable class" if threshold is None else f"threshold {threshold:.4g}")
            ),
            "positive": escape(positive),
            "threshold": f"{0.5 if threshold is None else threshold:.3f}",
            "counts": escape(", ".join(f"{count} {label}" for label, count in self._counts.most_common())),
            "out_of_distribution": REFUSED.format(len(self._refused)) if self._refused else "",
            "to_out_of_distribution": '<p><a href="#out-of-distribution">'
            f"{len(self._refused)} out of distribution, without a label</a></p>"
            if self._refused
            else "",
            "errors": errors if self._errors else "",
            "unusable": f'<p><a href="#errors">{len(self._errors)} could not be used</a></p>'
            if self._errors
            else "",
            # </script> in a class name must not end the script.
            "positive_json": json.dumps(positive).replace("<", "\\u003c"),
            "given_json": json.dumps(threshold),
        }

    def _card(self, prediction: Prediction, probability: float) -> str:
        manifest = self._classifier.manifest
        positive = manifest.positive_class
        others = {name: p for name, p in prediction.probabilities.items() if name != positive}
        label = prediction.label or prediction.status
        status = "" if prediction.label else f' data-status="{escape(prediction.status)}"'
        path = escape(prediction.path)
        try:
            image = load_image(prediction.path, THUMBNAIL)
            images = f'<img alt="" loading="lazy" src="{_data(image, "JPEG", quality=80)}">'
            if prediction.cam is not None:
                left, top, right, bottom = visible_box(*image.size, manifest.resize)
                place = (
                    f"left:{left / image.width:.2%};top:{top / image.height:.2%};"
                    f"width:{(right - left) / image.width:.2%};height:{(bottom - top) / image.height:.2%}"
                )
                heat = _data(heat_map(prediction.cam), "PNG")
                images += f'<img class="heat" alt="" loading="lazy" style="{place}" src="{heat}">'
        except ImageError:  # it has vanished since; its answer stands
            images = ""
        return (
            f'<li class="card{" positive" * (label == positive)}" data-p="{probability:.6f}" '
            f'data-label="{escape(label)}" data-other="{escape(max(others, key=others.__getitem__))}"{status}>'
            f'<div class="frame"><div class="image">{images}</div></div><div class="words">'
            f'<p><span class="label">{escape(label)}</span></p>'
            f"<p>{escape(positive)} {probability:.3f}</p>"
            f'<div class="bar" aria-hidden="true"><span style="width:{probability:.1%}"></span></div>'
            f'<p class="soft">{path}</p></div></li>\n'
        )


def _data(image: Image.Image, kind: str, **options: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
