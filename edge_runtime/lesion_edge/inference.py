"""Inference of `lesion-infer`: images in, rows out, everything finished kept whatever happens."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from lesion_edge.console import progress_bar, say
from lesion_edge.errors import DriftAlarm, LesionEdgeError
from lesion_edge.images import PassedOver, StdinPaths, find_images
from lesion_edge.inference_options import InferenceOptions, check_options
from lesion_edge.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from lesion_edge.classifier import Classifier
    from lesion_edge.evaluation import Evaluation
    from lesion_edge.lesions import Lesions
    from lesion_edge.monitor import Monitor
    from lesion_edge.output import PredictionWriter
    from lesion_edge.prediction import Prediction
    from lesion_edge.resume import CompletedRows, Record
    from lesion_edge.structured_report import StructuredReportWriter
    from lesion_edge.watch import Watcher


def run(options: InferenceOptions) -> bool:
    """Classify the images of a request; True when every image could be used.

    Raises:
        LesionEdgeError: the request or its input is wrong.
        OSError: the output cannot be written; what is finished stays.
        KeyboardInterrupt: it was interrupted, and what is finished is written and counted.
        DriftAlarm: the images of late are unlike those of the release; what is finished is written and counted.
    """
    check_options(options)
    stdin_paths = _stdin_paths(options.paths)
    passed_over = PassedOver()
    images = iter(()) if options.watch else _nonempty_images(options.paths, stdin_paths, passed_over)
    classifier = _open_classifier(options)
    results = _Results(options, classifier)
    with contextlib.ExitStack() as stack:
        output = _open_output(options, classifier, results, stack)
        if output.completed is not None:
            images = output.completed.remaining(images)
        sinks = _open_sinks(options, classifier, results, output, stack)
        monitor = _open_monitor(options, classifier, stack)
        if monitor is not None:
            sinks.append(monitor.add)
        post_processors = _open_post_processors(options, classifier, stack)
        structured = _open_structured_reports(options, classifier)
        if structured is not None:
            post_processors.append(structured.write)
        advance = stack.enter_context(_progress(options))
        watched = None
        if options.watch:
            from lesion_edge.watch import Watcher

            stamps = output.completed.latest_stamps() if output.completed else {}
            watched = Watcher(options.paths, stamps, options.pace, classifier.manifest_file)
        predictions = _predictions(
            options, classifier, watched or stdin_paths, images, post_processors, output.record
        )
        interrupted = _drain(stack.enter_context(contextlib.closing(predictions)), sinks, advance)
    for sentence in (passed_over.sentence(), structured.sentence() if structured is not None else ""):
        if sentence:
            say(sentence)
    return _conclude(results, monitor, interrupted)


def _conclude(results: _Results, monitor: Monitor | None, interrupted: bool) -> bool:
    """Print the results; True when every image could be used."""
    results.show(interrupted)
    if interrupted:
        raise KeyboardInterrupt
    if monitor is not None and monitor.alarm:
        raise DriftAlarm(
            "the images are unlike those that the model was released on: check camera, light and patients"
        )
    return results.complete


class _Results:
    """Summary of a run, and its evaluation where one is asked for."""

    def __init__(self, options: InferenceOptions, classifier: Classifier) -> None:
        from lesion_edge.summary import Summary

        self.summary = Summary(_device_name(classifier))
        self._watch = options.watch
        self.evaluation: Evaluation | None = None
        if options.evaluate:
            from lesion_edge.evaluation import Evaluation

            self.evaluation = Evaluation(classifier.manifest.class_names, classifier.manifest.positive_class)
        self.lesions: Lesions | None = None
        if options.lesions is not None:
            from lesion_edge.lesions import Lesions

            self.lesions = Lesions(options, classifier)

    def add(self, prediction: Prediction) -> None:
        """Count a prediction of this run."""
        self.summary.add(prediction)
        self._add(prediction)

    def restore(self, prediction: Prediction) -> None:
        """Count a prediction that an earlier run wrote."""
        self.summary.add_earlier(prediction)
        self._add(prediction)

    def _add(self, prediction: Prediction) -> None:
        if self.evaluation is not None:
            self.evaluation.add(prediction)
        if self.lesions is not None:
            self.lesions.add(prediction)

    def show(self, interrupted: bool) -> None:
        """Print the summary; give evaluation and lesions of an interrupted run only where nothing else ends it."""
        say(self.summary.table() if sys.stderr.isatty() else self.summary.line())
        if self.evaluation is not None and (self._watch or not interrupted):
            say(self.evaluation.table())
        if self.lesions is not None and (self._watch or not interrupted):
            self.lesions.write()

    @property
    def complete(self) -> bool:
        """Whether every image could be used, and every one that evaluation or lesions need was there."""
        return not (
            self.summary.errors
            or (self.evaluation is not None and self.evaluation.without_label)
            or (self.lesions is not None and not self.lesions.complete)
        )


def _drain(
    predictions: Iterable[Prediction],
    sinks: Sequence[Callable[[Prediction], None]],
    advance: Callable[[int], object],
) -> bool:
    """Hand each prediction to all sinks; True when Ctrl-C ended it."""
    try:
        for prediction in predictions:
            for sink in sinks:
                sink(prediction)
            advance(1)
    except KeyboardInterrupt:
        return True
    except DriftAlarm:  # --stop-on-drift; said already
        return False
    return False


def _nonempty_images(
    paths: Sequence[str], stdin_paths: StdinPaths | None, passed_over: PassedOver
) -> Iterator[str]:
    images = find_images(paths, stdin_paths or (), passed_over.add)
    first = next(images, None)
    if first is None:
        reason = f" ({passed_over.sentence()})" if passed_over.count else ""
        raise LesionEdgeError(f"no images in {', '.join(paths)}{reason}")
    return chain([first], images)


def _open_classifier(options: InferenceOptions) -> Classifier:
    from lesion_edge.classifier import Classifier

    classifier = Classifier.load(
        options.model,
        options.device,
        options.threads,
        options.variant,
        options.threshold,
        options.trust,
        options.site,
    )
    classifier.check_device()
    if options.device == "auto" and (classifier.device != "cpu" or classifier.fallback):
        reason = f", because {classifier.fallback}" if classifier.fallback else ""
        say(f"lesion-infer: using {_device_name(classifier)}{reason}")
    return classifier


def _device_name(classifier: Classifier) -> str:
    site = f", site {classifier.site.digest[:12]}" if classifier.site is not None else ""
    return f"{classifier.device} ({classifier.variant}{site})"


@dataclass(frozen=True)
class _Output:
    """Output of a run: where its rows go, and what an earlier run left there."""

    writer: PredictionWriter
    record: Record | None
    """None for standard output."""
    completed: CompletedRows | None
    """None for a new file."""


def _open_output(
    options: InferenceOptions, classifier: Classifier, results: _Results, stack: contextlib.ExitStack
) -> _Output:
    """Open the output, and count the rows that an earlier run wrote in the results."""
    from lesion_edge.output import PredictionWriter

    class_names = classifier.manifest.class_names
    if options.output is None:
        return _Output(stack.enter_context(PredictionWriter(None, options.format, class_names)), None, None)
    from lesion_edge.resume import CompletedRows, Record, recorded_model

    if not (options.output.exists() and (options.resume or options.watch)):
        writer = stack.enter_context(PredictionWriter(options.output, options.format, class_names))
        record = stack.enter_context(Record(options.output))
        record.begin(recorded_model(classifier), [])
        return _Output(writer, record, None)
    record = stack.enter_context(Record(options.output))
    completed = CompletedRows(options.output, options.format, class_names, results.restore, record.stamps())
    completed.check_model(classifier, record.model())
    record.begin(recorded_model(classifier), completed.stamps)
    writer = PredictionWriter(options.output, options.format, class_names, completed.bytes)
    return _Output(stack.enter_context(writer), record, completed)


def _open_sinks(
    options: InferenceOptions,
    classifier: Classifier,
    results: _Results,
    output: _Output,
    stack: contextlib.ExitStack,
) -> list[Callable[[Prediction], None]]:
    """Functions that each take every prediction, in the order of the images."""
    sinks: list[Callable[[Prediction], None]] = []
    if options.audit is not None:
        from lesion_edge.audit import AuditLog

        # Before the row, so that none stands without its line, whatever ends the process.
        sinks.append(stack.enter_context(AuditLog(options.audit, classifier, options.audit_paths)).add)
    if output.record is not None:
        sinks.append(output.record.add)
    return [*sinks, output.writer.add, results.add]


def _open_monitor(
    options: InferenceOptions, classifier: Classifier, stack: contextlib.ExitStack
) -> Monitor | None:
    if options.monitor is None:
        return None
    from lesion_edge.monitor import Monitor

    return stack.enter_context(Monitor(options.monitor, classifier, say, options.stop_on_drift))


def _open_post_processors(
    options: InferenceOptions, classifier: Classifier, stack: contextlib.ExitStack
) -> list[Callable[[Prediction], Prediction]]:
    """Functions that make more of a prediction than its row, each in the thread that has it."""
    post_processors: list[Callable[[Prediction], Prediction]] = []
    if options.heatmaps is not None:
        from lesion_edge.explain import HeatmapWriter

        post_processors.append(HeatmapWriter(options.heatmaps, options.paths, classifier.manifest.resize).write)
    if options.report is not None:
        from lesion_edge.report import Report

        post_processors.append(stack.enter_context(Report(options.report, classifier)).add)
    return post_processors


def _open_structured_reports(options: InferenceOptions, classifier: Classifier) -> StructuredReportWriter | None:
    if options.sr is None:
        return None
    from lesion_edge.structured_report import StructuredReportWriter

    return StructuredReportWriter(options.sr, options.paths, classifier, options.sr_patient)


def _predictions(
    options: InferenceOptions,
    classifier: Classifier,
    arrivals: Watcher | StdinPaths | None,
    images: Iterator[str],
    post_processors: Sequence[Callable[[Prediction], Prediction]],
    record: Record | None,
) -> Generator[Prediction, None, None]:
    def post_process(prediction: Prediction) -> Prediction:
        for process in post_processors:
            prediction = process(prediction)
        return prediction

    def classify(images: Iterable[str]) -> Iterator[Prediction]:
        sources = images if record is None else record.stamped(images)
        predictions = classifier.predict(
            sources,
            options.batch_size,
            cam=options.heatmaps is not None or options.report is not None,
            digest=options.audit is not None,
            measured=options.monitor is not None,
        )
        if post_processors:
            predictions = ordered_map(post_process, predictions, classifier.threads)
        return predictions if record is None else record.matched(predictions)

    if arrivals is None:
        yield from classify(images)
    elif isinstance(arrivals, StdinPaths):
        yield from arrivals.answer(images, classify)
    else:
        yield from arrivals.predictions(classify)


def _stdin_paths(paths: Sequence[str]) -> StdinPaths | None:
    if "-" not in paths:
        return None
    if sys.stdin is None:
        raise LesionEdgeError("standard input is closed: - needs a list of images there")
    return StdinPaths(sys.stdin.fileno())


def _progress(options: InferenceOptions) -> contextlib.AbstractContextManager[Callable[[int], object]]:
    if options.output is None and sys.stdout.isatty():  # the rows themselves are to be seen there
        return contextlib.nullcontext(lambda steps: None)
    if options.watch or "-" in options.paths:
        return progress_bar("images", None)
    return progress_bar("images", lambda: sum(1 for _ in find_images(options.paths)))
