"""Inference of `lesion-infer`: images in, rows out, everything finished kept whatever happens."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_edge.console import progress_bar, say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.images import PassedOver, StdinPaths, find_images
from lesion_edge.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from lesion_edge.classifier import Classifier, Prediction
    from lesion_edge.evaluation import Evaluation
    from lesion_edge.output import Format


@dataclass(frozen=True)
class InferenceOptions:
    """Options of one inference run, named as those of the command."""

    paths: Sequence[str]
    model: Path | None = None
    output: Path | None = None
    format: Format = "csv"
    device: str = "auto"
    variant: str | None = None
    threads: int | None = None
    batch_size: int | None = None
    threshold: float | None = None
    evaluate: bool = False
    heatmaps: Path | None = None
    report: Path | None = None
    resume: bool = False
    watch: bool = False


def run(job: InferenceOptions) -> bool:
    """Do the job; True when every image could be used.

    Raises:
        LesionEdgeError: the request or its input is wrong.
        OSError: the output cannot be written; what is finished stays.
        KeyboardInterrupt: it was interrupted, and what is finished is written and counted.
    """
    _check(job)
    images: Iterator[str] = iter(())
    stdin_paths = _stdin_paths(job.paths)
    passed_over = PassedOver()
    if not job.watch:
        found = find_images(job.paths, stdin_paths or (), passed_over.add)
        first = next(found, None)
        if first is None:
            reason = f" ({passed_over.sentence()})" if passed_over.count else ""
            raise LesionEdgeError(f"no images in {', '.join(job.paths)}{reason}")
        images = chain([first], found)

    from lesion_edge.classifier import Classifier
    from lesion_edge.output import PredictionWriter
    from lesion_edge.summary import Summary

    classifier = Classifier.load(job.model, job.device, job.threads, job.variant, job.threshold)
    where = f"{classifier.device} ({classifier.variant})"
    if job.device == "auto" and (classifier.device != "cpu" or classifier.fallback):
        say(f"lesion-infer: using {where}" + (f", because {classifier.fallback}" if classifier.fallback else ""))
    names = classifier.manifest.class_names
    summary = Summary(where)
    evaluation: Evaluation | None = None
    if job.evaluate:
        from lesion_edge.evaluation import Evaluation

        evaluation = Evaluation(names, classifier.manifest.positive_class)

    def restore(prediction: Prediction) -> None:
        summary.add_earlier(prediction)
        if evaluation is not None:
            evaluation.add(prediction)

    keep = None
    done: set[str] = set()
    if job.output is not None and (job.resume or job.watch):
        from lesion_edge.resume import CompletedRows

        finished = CompletedRows(job.output, job.format, names, restore)
        finished.check_model(classifier)
        images, keep, done = finished.remaining(images), finished.bytes, set(finished.paths)

    interrupted = False
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(PredictionWriter(job.output, job.format, names, keep))
        sinks: list[Callable[[Prediction], None]] = [writer.add, summary.add]
        if evaluation is not None:
            sinks.append(evaluation.add)
        post_processors = _post_processors(job, classifier, stack)
        advance = stack.enter_context(_progress(job))
        predictions = stack.enter_context(
            contextlib.closing(_predictions(job, classifier, images, stdin_paths, done, post_processors))
        )
        try:
            for prediction in predictions:
                for take in sinks:
                    take(prediction)
                advance(1)
        except KeyboardInterrupt:
            interrupted = True
    if passed_over.count:
        say(passed_over.sentence())
    say(summary.table() if sys.stderr.isatty() else summary.line())
    if evaluation is not None and not interrupted:
        say(evaluation.table())
    if interrupted:
        raise KeyboardInterrupt
    return not summary.errors and not (evaluation is not None and evaluation.without_label)


def _post_processors(
    job: InferenceOptions, classifier: Classifier, stack: contextlib.ExitStack
) -> list[Callable[[Prediction], Prediction]]:
    """What is to be made of a prediction besides its row, by the thread that has it."""
    post_processors: list[Callable[[Prediction], Prediction]] = []
    if job.heatmaps is not None:
        from lesion_edge.explain import HeatmapWriter

        post_processors.append(HeatmapWriter(job.heatmaps, job.paths, classifier.manifest.resize).write)
    if job.report is not None:
        from lesion_edge.report import Report

        post_processors.append(stack.enter_context(Report(job.report, classifier)).add)
    return post_processors


def _predictions(
    job: InferenceOptions,
    classifier: Classifier,
    images: Iterator[str],
    stdin_paths: StdinPaths | None,
    done: set[str],
    post_processors: Sequence[Callable[[Prediction], Prediction]],
) -> Generator[Prediction, None, None]:
    def attach(prediction: Prediction) -> Prediction:
        for attachment in post_processors:
            prediction = attachment(prediction)
        return prediction

    def classify(images: Iterable[str]) -> Iterator[Prediction]:
        predictions = classifier.predict(images, job.batch_size, cam=bool(post_processors))
        return ordered_map(attach, predictions, classifier.threads) if post_processors else predictions

    if job.watch:
        from lesion_edge.watch import Watcher

        yield from Watcher(job.paths, done).predictions(classify)
    elif stdin_paths is not None:
        yield from stdin_paths.answer(images, classify)
    else:
        yield from classify(images)


def _check(job: InferenceOptions) -> None:
    if not job.paths:
        raise LesionEdgeError("no PATH: name folders, files, or - for a list on standard input")
    if job.resume and job.output is None:
        raise LesionEdgeError("--resume needs --output, the file to go on with")
    if job.report is not None and (job.resume or job.watch):
        raise LesionEdgeError("--report shows one whole run: it goes with neither --resume nor --watch")
    if job.watch and "-" in job.paths:
        raise LesionEdgeError("--watch needs a folder, not a list")
    if job.output is not None and job.output.exists() and not (job.resume or job.watch):
        raise LesionEdgeError(f"{job.output} exists already: choose another --output or remove it")
    if job.report is not None and job.report.exists():
        raise LesionEdgeError(f"{job.report} exists already: choose another --report or remove it")
    if job.report is not None and not job.report.absolute().parent.is_dir():
        raise LesionEdgeError(f"cannot write {job.report}: its folder does not exist")


def _stdin_paths(paths: Sequence[str]) -> StdinPaths | None:
    if "-" not in paths:
        return None
    if sys.stdin is None:
        raise LesionEdgeError("standard input is closed: - needs a list of images there")
    return StdinPaths(sys.stdin.fileno())


def _progress(job: InferenceOptions) -> contextlib.AbstractContextManager[Callable[[int], object]]:
    if job.output is None and sys.stdout.isatty():  # the rows themselves are to be seen there
        return contextlib.nullcontext(lambda steps: None)
    if job.watch or "-" in job.paths:
        return progress_bar("images", None)
    return progress_bar("images", lambda: sum(1 for _ in find_images(job.paths)))
