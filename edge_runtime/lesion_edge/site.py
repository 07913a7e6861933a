"""Side file that fits a bundle to a site: threshold, probabilities and refusal limit of another clinic.

Another clinic has other cameras and another share of malignant lesions. The network stays as it is, and so does
the bundle: the side file, bound to the bundle's digest, moves its probabilities, its threshold and the outlier
score that an answer may have. `lesion_edge.site_fit` makes it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge import atomic
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import MAX_TEXT_BYTES, digest_of, read_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesion_edge.classifier import Classifier

SCHEMA_VERSION = 1
_SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Site:
    """What a side file holds."""

    bundle: str
    """Digest of the bundle that it belongs to."""
    variant: str
    """The variant that it was fitted for."""
    positive_class: str
    """The class to detect."""
    temperature: float
    """Divides the log-odds of the positive class; above 0."""
    offset: float
    """Added to them then: another share of positives."""
    threshold: float
    """On the probability after that, 0 to 1."""
    outlier_limit: float | None
    """Factor on the bundle's limit of the outlier score, above 0; None where the bundle has no score."""
    target_sensitivity: float
    """What the threshold was chosen for, 0 to 1."""
    prior: float
    """Share of positives among the site's images; the probabilities are right where it is the same."""
    images: dict[str, int]
    """Counts that it was fitted on: `positive`, `negative`, `lesions`, `unreadable`."""
    cross_validation: dict[str, Any]
    """`before` and `after`: figures on images that had no part in the fit, with 95 % intervals."""
    schema_version: int = SCHEMA_VERSION
    digest: str = ""
    """Of the side file, as it was read: SHA-256 of the canonical form of all its other fields."""

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.offset, self.outlier_limit or 1)
        if (
            not all(math.isfinite(number) for number in numbers)
            or min(self.temperature, self.outlier_limit or 1) <= 0
        ):
            raise ValueError("temperature and outlier_limit are not above 0")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is not within 0 to 1")

    def probability(self, p: NDArray[Any]) -> NDArray[np.float64]:
        """The site's probability of the positive class from that of the bundle, any shape; order is kept."""
        return move(p, self.temperature, self.offset)

    def apply(self, outputs: dict[str, NDArray[Any]], positive_index: int) -> dict[str, NDArray[Any]]:
        """Outputs of the network as the site has them.

        Args:
            outputs: `probabilities` (N, K), `outlier` (N,) where there is a score, and others, which stay.
            positive_index: of the positive class; the other classes share what is left as they did.
        """
        probabilities = np.asarray(outputs["probabilities"], float)
        p = probabilities[:, positive_index]
        moved = self.probability(p)
        others = 1 - p
        nothing = others <= _SMALLEST_PROBABILITY
        share = np.where(nothing[:, None], 1 / (probabilities.shape[1] - 1), probabilities)
        result = share * ((1 - moved) / np.where(nothing, 1, others))[:, None]
        result[:, positive_index] = moved
        result[~np.isfinite(p)] = np.nan
        outlier = {"outlier": outputs["outlier"] / self.outlier_limit} if self.outlier_limit is not None else {}
        return {**outputs, "probabilities": result, **outlier}

    def save(self, path: Path) -> None:
        """Write the side file whole."""
        content = asdict(self)
        del content["digest"]
        atomic.write_text(path, _text({**content, "digest": digest_of(content)}))


def load_site(path: Path, classifier: Classifier) -> Site:
    """Read a side file.

    Raises:
        LesionEdgeError: it is missing, damaged or changed, or was fitted for another bundle or variant.
    """
    text = read_file(path, MAX_TEXT_BYTES)
    try:
        content = json.loads(text)
        digest = content.pop("digest")
        if digest != digest_of(content) or _text({**content, "digest": digest}).encode() != text:
            raise ValueError("its digest is not that of what it holds")
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {content['schema_version']}, not {SCHEMA_VERSION}")
        site = Site(**content, digest=digest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LesionEdgeError(f"--site {path} is damaged: {error}; fit it again") from None
    manifest = classifier.manifest
    if site.bundle != manifest.digest:
        raise LesionEdgeError(f"--site {path} was fitted for another bundle: fit it again with --fit-site")
    if site.variant != classifier.variant:
        raise LesionEdgeError(f"--site {path} was fitted for {site.variant}, and {classifier.variant} is in use")
    return site


def move(p: NDArray[Any], temperature: float, offset: float) -> NDArray[np.float64]:
    """Probabilities sigmoid(logit(p) / temperature + offset), any shape."""
    return 1 / (1 + np.exp(-(log_odds(p) / temperature + offset)))


def log_odds(p: NDArray[Any]) -> NDArray[np.float64]:
    """logit(p), kept finite."""
    finite = np.clip(np.asarray(p, np.float64), _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    odds: NDArray[np.float64] = np.log(finite) - np.log1p(-finite)
    return odds


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
