"""Figures of the service, for Prometheus: names and units after https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from lesion_edge import __version__
from lesion_edge.monitor import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction

disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Bounds of the histograms' buckets."""


class Metrics:
    """Figures of one service, in a registry of their own.

    Args:
        classifier: the figures tell which bundle answers.
        waiting: counts the images that wait for a thread.
        in_progress: counts the requests that were admitted.
    """

    def __init__(self, classifier: Classifier, waiting: Callable[[], int], in_progress: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self._images = Counter(
            "lesion_images", "Images answered, by status and label.", ["status", "label"], registry=registry
        )
        self.requests = Counter(
            "lesion_requests", "Requests answered, by HTTP status.", ["route", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "lesion_request_duration_seconds",
            "From a request's head to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "lesion_queue_duration_seconds",
            "Time of an image until a thread took it.",
            buckets=SECONDS,
            registry=registry,
        )
        self.image_seconds = Histogram(
            "lesion_image_duration_seconds",
            "Decoding and network of an image.",
            buckets=SECONDS,
            registry=registry,
        )
        self._refused: deque[bool] = deque(maxlen=WINDOW)
        for name, text, function in (
            ("lesion_queue_images", "Images that wait for a thread.", waiting),
            ("lesion_requests_in_progress", "Requests in work or waiting.", in_progress),
            ("lesion_outlier_ratio", f"Share out of distribution among the last {WINDOW} images.", self._ratio),
        ):
            Gauge(name, text, registry=registry).set_function(function)
        Info("lesion_model", "What answers.", registry=registry).info(
            {
                "version": __version__,
                "bundle": classifier.manifest.digest,
                "variant": classifier.variant,
                "device": classifier.device,
                "site": classifier.site.digest if classifier.site is not None else "",
            }
        )
        ProcessCollector(registry=self.registry)

    def count(self, prediction: Prediction) -> None:
        """Count the answer to an image."""
        self._images.labels(prediction.status, prediction.label or "").inc()
        if prediction.error is None:
            self._refused.append(prediction.status == "out_of_distribution")

    def _ratio(self) -> float:
        return sum(self._refused) / len(self._refused) if self._refused else 0.0
