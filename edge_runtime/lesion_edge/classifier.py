"""Classification of images with a bundle: a stream in, a stream out, in the same order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_edge.cpu import available_cpus
from lesion_edge.errors import ImageError, LesionEdgeError
from lesion_edge.images import split_frame
from lesion_edge.manifest import FILE_NAME, Manifest, load_manifest, read_variant
from lesion_edge.parallel import ordered_map
from lesion_edge.prediction import Prediction, label_outputs
from lesion_edge.preprocess import Source, load_pixels, read_content
from lesion_edge.session import check_signature, choose_device, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesion_edge.site import Site

TRUST_VARIABLE = "LESION_EDGE_TRUST"
"""Environment variable with the path of the public key that every bundle has to be signed by."""

SHIPPED_BUNDLE = Path(__file__).parent / "bundle"
"""Folder of the bundle that is used when none is named."""

GPU_BATCH = 32
"""Images per call of the network on any device but the CPU."""


class Classifier:
    """Loaded bundle. Safe to share between threads, and picklable (it is loaded again where it arrives).

    Examples:
        >>> from lesion_edge import Classifier
        >>> for prediction in Classifier.load("bundle").predict(["a.jpg", "b.png"]):  # doctest: +SKIP
        ...     print(prediction.path, prediction.label, prediction.probabilities)
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        device: str = "auto",
        threads: int | None = None,
        variant: str | None = None,
        threshold: float | None = None,
        trust: str | os.PathLike[str] | None = None,
        site: str | os.PathLike[str] | None = None,
    ) -> None:
        trust = trust or os.environ.get(TRUST_VARIABLE) or None
        self._arguments = (
            os.fspath(bundle),
            device,
            threads,
            variant,
            threshold,
            trust and os.fspath(trust),
            site,
        )
        if threads is not None and threads < 1:
            raise LesionEdgeError(f"{threads} threads: at least 1 is needed")
        if threshold is not None and not 0 <= threshold <= 1:
            raise LesionEdgeError(f"threshold {threshold} is not within 0 to 1")
        signed = None
        if trust is not None:
            from lesion_edge.signature import signed_files

            signed = signed_files(Path(bundle), Path(trust))
        self.manifest: Manifest = load_manifest(Path(bundle), signed)
        self.threads = threads or available_cpus()
        self.fallback: str | None = None
        """Reason why `auto` did not take the device that ONNX Runtime lists, or None."""
        self._is_proven = False
        self._open_on(device, Path(bundle), variant)
        if trust is not None:
            # A signature is over the whole bundle, and so is its proof.
            for name in self.manifest.variants.keys() - {self.variant}:
                read_variant(Path(bundle), self.manifest, name)
        self.site: Site | None = None
        """Side file that moves probabilities, threshold and refusals, or None."""
        self.threshold = self.manifest.variants[self.variant].threshold
        if site is not None:
            from lesion_edge.site import load_site

            self.site = load_site(Path(site), self)
            self.threshold = self.site.threshold
        if threshold is not None:
            self.threshold = threshold

    def _open_on(self, device: str, bundle: Path, variant: str | None) -> None:
        """Open the bundle on a device; `auto` takes the CPU where another fails, and keeps the reason."""
        self.device = choose_device(device)
        if device == "auto" and self.device != "cpu" and self._best_variant(variant) == "int8":
            alone = "int8 is for the CPU" if variant else "the bundle has only int8, which is for the CPU"
            self.device, self.fallback = "cpu", alone
        try:
            self._open(bundle, variant)
            if device == "auto":
                self.check_device()
        except LesionEdgeError as error:
            if device != "auto" or self.device == "cpu":
                raise
            self.device, self.fallback = "cpu", str(error)
            self._open(bundle, variant)

    def _best_variant(self, variant: str | None) -> str:
        return variant or _preferred_variant(self.manifest, self.device)

    @property
    def manifest_file(self) -> str:
        """Path of the bundle's manifest, as it was named."""
        return os.path.join(self._arguments[0], FILE_NAME)

    def check_device(self) -> None:
        """Run the self-test before the first answer on any device but the CPU; once, by itself in `predict`.

        Raises:
            LesionEdgeError: the device answers otherwise than the bundle was released with.
        """
        if self.device == "cpu" or self._is_proven:
            return
        from lesion_edge.selftest import format_result, self_test

        outcome = self_test(self)
        if not outcome.passed:
            raise LesionEdgeError(f"self-test of {format_result(self, outcome)}; choose --device cpu")
        self._is_proven = True

    def _open(self, bundle: Path, variant: str | None) -> None:
        self.variant = self._best_variant(variant)
        if self.variant not in self.manifest.variants:
            available = ", ".join(self.manifest.variants)
            raise LesionEdgeError(f"{bundle} has no variant '{self.variant}', it has: {available}")
        content = read_variant(bundle, self.manifest, self.variant)
        # One thread per call and several calls at once: no image waits for another's slowest layer.
        self._session = open_session(content, self.device, threads=1)
        self._scores_outliers = self.manifest.variants[self.variant].outlier_limit is not None
        check_signature(
            self._session, self.manifest.image_size, len(self.manifest.class_names), self._scores_outliers
        )

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | None = None,
        device: str = "auto",
        threads: int | None = None,
        variant: str | None = None,
        threshold: float | None = None,
        trust: str | os.PathLike[str] | None = None,
        site: str | os.PathLike[str] | None = None,
    ) -> Classifier:
        """Open a bundle.

        Args:
            bundle: its folder; None takes the one that ships inside lesion-edge.
            device: `auto`, or one of `lesion_edge.session.PROVIDERS`, which is then used or refused.
            threads: images in work at once; None takes the CPUs this process may use.
            variant: `int8`, `fp16` or `fp32`; None takes what suits the device.
            threshold: 0 to 1, in place of the bundle's or the site's.
            trust: PEM file of a public key; a bundle that is not signed by it is refused. None takes the path in
                the environment variable `LESION_EDGE_TRUST`, and without one asks for no signature.
            site: side file of `lesion-infer --fit-site`, for this very bundle and variant.

        Raises:
            LesionEdgeError: the bundle is missing, damaged, changed or not signed, or the device cannot be had.
        """
        if bundle is None and not SHIPPED_BUNDLE.is_dir():
            raise LesionEdgeError("no model ships with this installation: name a bundle with --model")
        return cls(bundle or SHIPPED_BUNDLE, device, threads, variant, threshold, trust, site)

    def predict(
        self,
        sources: Iterable[Source],
        batch_size: int | None = None,
        cam: bool = False,
        digest: bool = False,
        measured: bool = False,
    ) -> Iterator[Prediction]:
        """Classify images as a stream: order kept, memory independent of their number.

        Args:
            sources: paths, file contents, Pillow images or uint8 arrays (H, W, 3) in RGB.
            batch_size: images per call of the network; None takes 1 on the CPU and `GPU_BATCH` elsewhere.
            cam: whether the predictions carry the class-activation map.
            digest: whether the predictions carry the SHA-256 of the file that was decoded.
            measured: whether the predictions carry what `lesion_edge.monitor` compares.

        Yields:
            One prediction per source; an image that cannot be used gives one with `error` set.

        Raises:
            LesionEdgeError: a wrong argument, or the device fails, or fails the self-test.
        """
        if isinstance(sources, str | bytes | os.PathLike):
            raise LesionEdgeError("predict takes several images: put a single one into a list")
        if batch_size is None:
            batch_size = 1 if self.device == "cpu" else GPU_BATCH
        if batch_size < 1:
            raise LesionEdgeError(f"batch size {batch_size}: at least 1 is needed")
        self.check_device()
        iterator = iter(sources)
        chunks = iter(lambda: list(islice(iterator, batch_size)), [])
        for predictions in ordered_map(
            lambda chunk: self._classify(chunk, cam, digest, measured), chunks, self.threads
        ):
            yield from predictions

    def predict_one(self, source: Source, cam: bool = False) -> Prediction:
        """Classify one image in the calling thread, for who has threads of their own.

        Args:
            source: as for `predict`, and so are the answer and what is raised.
            cam: whether the prediction carries the class-activation map.
        """
        self.check_device()
        return self._classify([source], cam, digest=False, measured=False)[0]

    def run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the network alone.

        Args:
            pixels: uint8 (N, S, S, 3), RGB, as `lesion_edge.preprocess.load_pixels` gives them.

        Returns:
            `probabilities` and `logits` float32 (N, K), `cam` float32 (N, h, w), and `outlier` float32 (N,) where
            the bundle has the score.
        """
        names = ["probabilities", "logits", "cam", *(["outlier"] if self._scores_outliers else [])]
        return dict(zip(names, self._call(names, pixels), strict=True))

    def _call(self, names: list[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(names, {"image": pixels})
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise LesionEdgeError(f"the network failed on {self.device}: {' '.join(str(error).split())}") from None
        return outputs

    def _classify(self, chunk: list[Source], cam: bool, digest: bool, measured: bool) -> list[Prediction]:
        paths = [_name(source) for source in chunk]
        images: list[NDArray[np.uint8]] = []
        readable: list[str] = []
        errors: dict[int, str] = {}
        digests: dict[int, str] = {}
        for index, (path, source) in enumerate(zip(paths, chunk, strict=True)):
            try:
                frame = None
                if digest and isinstance(source, str | bytes | os.PathLike):
                    frame = split_frame(path)[1]
                    source = source if isinstance(source, bytes) else read_content(source)
                    digests[index] = hashlib.sha256(source).hexdigest()
                images.append(load_pixels(source, self.manifest.image_size, self.manifest.resize, frame))
                readable.append(path)
            except ImageError as error:
                errors[index] = str(error)
        predictions = self._predict_pixels(readable, np.stack(images), cam, measured) if images else iter(())
        answers = (
            Prediction(path=path, error=errors[index]) if index in errors else next(predictions)
            for index, path in enumerate(paths)
        )
        return [
            replace(answer, sha256=digests.get(index)) if digest else answer
            for index, answer in enumerate(answers)
        ]

    def _predict_pixels(
        self, paths: Sequence[str], pixels: NDArray[np.uint8], cam: bool, measured: bool
    ) -> Iterator[Prediction]:
        """Predictions of decoded images, uint8 (N, S, S, 3), whose N paths are given."""
        names = ["probabilities", *(["cam"] if cam else []), *(["outlier"] if self._scores_outliers else [])]
        outputs = dict(zip(names, self._call(names, pixels), strict=True))
        manifest = self.manifest
        positive_index = manifest.class_names.index(manifest.positive_class)
        measurements: list[dict[str, float]] = []
        if measured:
            from lesion_edge.monitor import measure

            columns = {
                "probability": outputs["probabilities"][:, positive_index],
                "outlier": outputs.get("outlier"),
            }
            for index, image in enumerate(pixels):
                row = {name: float(column[index]) for name, column in columns.items() if column is not None}
                measurements.append(row | measure(image))
        predictions = self.label(outputs, paths)
        if not measured:
            return predictions
        return (replace(answer, measurements=row) for answer, row in zip(predictions, measurements, strict=True))

    def label(self, outputs: dict[str, NDArray[Any]], paths: Iterable[str] = repeat("")) -> Iterator[Prediction]:
        """Predictions of what `run` gave, with the site and the threshold of this classifier.

        Args:
            outputs: `probabilities` (N, K), and `cam` (N, h, w) and `outlier` (N,) where there are.
            paths: N paths of the images.
        """
        manifest = self.manifest
        if self.site is not None:
            outputs = self.site.apply(outputs, manifest.class_names.index(manifest.positive_class))
        return label_outputs(outputs, manifest.class_names, manifest.positive_class, self.threshold, paths)

    def __reduce__(self) -> tuple[Any, ...]:
        return Classifier, self._arguments


def _preferred_variant(manifest: Manifest, device: str) -> str:
    order = ("int8", "fp32", "fp16") if device == "cpu" else ("fp16", "fp32", "int8")
    return next(name for name in order if name in manifest.variants)


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else ""
