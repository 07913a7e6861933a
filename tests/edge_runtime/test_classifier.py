"""Images in, answers out: in order, one each, however many there are and whatever is wrong with some."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier, LesionEdgeError, Prediction
from lesion_edge.prediction import apply_threshold, label_outputs
from tests.edge_runtime.conftest import expected_by

pytest.importorskip("onnxruntime")

Paint = Callable[..., Path]
RED, GREY, BLUE = (250, 30, 30), (120, 120, 120), (20, 20, 240)


def malignant(color: tuple[int, int, int]) -> float:
    """The tiny graph's answer, by hand."""
    red, green, blue = color
    return 1 / (1 + math.exp(-(2 * red - green - blue) / 100))


@pytest.mark.parametrize("color", [RED, GREY, BLUE, (0, 0, 0), (255, 255, 255)])
def test_answer_is_the_graph_s(bundle: Path, paint: Paint, color: tuple[int, int, int]) -> None:
    path = paint("a.png", color)
    (prediction,) = Classifier(bundle).predict([path])
    assert prediction.path == str(path)
    assert (prediction.status, prediction.error) == ("ok", None)
    assert prediction.probabilities == pytest.approx(
        {"benign": 1 - malignant(color), "malignant": malignant(color)}, abs=1e-5
    )
    assert list(prediction.probabilities) == ["benign", "malignant"]
    assert prediction.label is not None
    assert prediction.confidence == prediction.probabilities[prediction.label]


def test_three_classes(bundle3: Path) -> None:
    colors = {"red": (200, 40, 10), "green": (40, 200, 10), "blue": (10, 40, 200)}
    predictions = Classifier(bundle3).predict([Image.new("RGB", (50, 50), color) for color in colors.values()])
    for (label, color), prediction in zip(colors.items(), predictions, strict=True):
        weights = np.exp(np.array(color) / 50)
        assert prediction.label == label
        assert list(prediction.probabilities.values()) == pytest.approx(weights / weights.sum(), abs=1e-5)


def test_network_alone_gives_all_three_outputs(bundle: Path) -> None:
    pixels = np.full((2, 32, 32, 3), RED, np.uint8)
    pixels[1] = BLUE
    outputs = Classifier(bundle).run(pixels)
    assert {name: (value.shape, value.dtype.name) for name, value in outputs.items()} == {
        "probabilities": ((2, 2), "float32"),
        "logits": ((2, 2), "float32"),
        "cam": ((2, 2, 2), "float32"),
    }
    np.testing.assert_allclose(outputs["probabilities"][:, 1], [malignant(RED), malignant(BLUE)], atol=1e-5)
    np.testing.assert_allclose(outputs["logits"][:, 1], [4.4, -2.2], atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_kept(bundle: Path, paint: Paint, threads: int, batch_size: int) -> None:
    levels = [(i * 37) % 256 for i in range(20)]
    # Sizes differ, so that the images of a later call are often ready before those of an earlier one.
    paths = [paint(f"{i}.png", (level, 0, 0), (400 >> i % 5, 300)) for i, level in enumerate(levels)]
    predictions = list(Classifier(bundle, threads=threads).predict(paths, batch_size))
    assert [prediction.path for prediction in predictions] == [str(path) for path in paths]
    answers = [prediction.probabilities["malignant"] for prediction in predictions]
    assert answers == pytest.approx([malignant((level, 0, 0)) for level in levels], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_unusable_image_is_an_error_and_the_rest_goes_on(bundle: Path, paint: Paint, batch_size: int) -> None:
    good = paint("good.png", RED)
    damaged = good.with_name("damaged.png")
    damaged.write_bytes(good.read_bytes()[:60])
    missing = good.with_name("missing.png")
    sources: list[Any] = [good, damaged, good, missing, b"no image", np.zeros((2, 2)), good]
    predictions = list(Classifier(bundle, threads=2).predict(sources, batch_size))
    assert [prediction.status for prediction in predictions] == ["ok", "error", "ok", *["error"] * 3, "ok"]
    assert [prediction.label for prediction in predictions if prediction.status == "ok"] == ["malignant"] * 3
    assert predictions[3] == Prediction(path=str(missing), error="no such file")
    for prediction in predictions:
        if prediction.status == "error":
            assert (prediction.label, prediction.confidence, prediction.probabilities) == (None, None, {})


def test_every_kind_of_source_gives_the_same_answer(bundle: Path, paint: Paint) -> None:
    path = paint("a.png", (90, 60, 30), (77, 51))
    with Image.open(path) as image:
        sources: list[Any] = [path, str(path), path.read_bytes(), image, np.asarray(image)]
        predictions = list(Classifier(bundle).predict(sources))
    assert [prediction.path for prediction in predictions] == [str(path), str(path), "", "", ""]
    assert all(prediction.probabilities == predictions[0].probabilities for prediction in predictions)


@pytest.mark.parametrize(
    ("threshold", "probability", "index"),
    [
        pytest.param(None, [0.6, 0.4], 0, id="no threshold: the most probable class"),
        pytest.param(None, [0.4, 0.6], 1, id="no threshold: the positive class when it is that"),
        pytest.param(None, [0.5, 0.5], 0, id="no threshold, tie: the first class"),
        pytest.param(0.5, [0.5, 0.5], 1, id="the threshold itself is positive"),
        pytest.param(0.3, [0.7, 0.3], 1, id="low threshold: positive though less probable"),
        pytest.param(0.3, [0.71, 0.29], 0, id="below the low threshold"),
        pytest.param(0.9, [0.2, 0.8], 0, id="high threshold: negative though more probable"),
        pytest.param(0.0, [1.0, 0.0], 1, id="threshold 0: always positive"),
        pytest.param(1.0, [0.01, 0.99], 0, id="threshold 1: only a certain one is positive"),
        pytest.param(1.0, [0.0, 1.0], 1, id="and that one is"),
        pytest.param(None, [0.3, 0.3, 0.4], 2, id="three classes: the most probable"),
        pytest.param(0.3, [0.1, 0.3, 0.6], 1, id="three classes: positive at the threshold"),
        pytest.param(0.3, [0.45, 0.25, 0.3], 0, id="three classes: else the most probable of the others"),
        pytest.param(0.9, [0.05, 0.85, 0.1], 2, id="three classes: even where the positive one leads"),
        pytest.param(0.9, [0.0, 0.85, 0.0], 0, id="three classes: never the positive one below the threshold"),
    ],
)
def test_threshold_rule(threshold: float | None, probability: list[float], index: int) -> None:
    rows = np.array([probability, probability], np.float32 if threshold is None else np.float64)
    before = rows.copy()
    assert apply_threshold(rows, threshold, positive_index=1).tolist() == [index, index]
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize(
    ("of_bundle", "asked", "label"),
    [
        pytest.param(None, None, "benign", id="the most probable class"),
        pytest.param(0.2, None, "malignant", id="the bundle's threshold"),
        pytest.param(0.2, 0.9, "benign", id="the caller's instead"),
        pytest.param(0.9, 0.0, "malignant", id="0 is a threshold too"),
    ],
)
def test_threshold_of_bundle_and_caller(
    make_bundle: Callable[..., Path], of_bundle: float | None, asked: float | None, label: str
) -> None:
    classifier = Classifier(make_bundle(threshold=of_bundle), threshold=asked)
    image = Image.new("RGB", (40, 40), (100, 130, 130))  # malignant with 0.35
    (prediction,) = classifier.predict([image])
    assert prediction.label == label
    assert prediction.confidence == pytest.approx(0.354 if label == "malignant" else 0.646, abs=1e-3)


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (2, 1), (2, 3)])
def test_endless_input_is_read_only_as_far_as_needed(bundle: Path, threads: int, batch_size: int) -> None:
    pulled = 0

    def endless() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield np.full((8, 8, 3), 100, np.uint8)

    predictions = Classifier(bundle, threads=threads).predict(endless(), batch_size)
    assert pulled == 0
    ahead = batch_size * (2 * threads + 1)
    for taken, prediction in enumerate(islice(predictions, 30), start=1):
        assert prediction.status == "ok"
        assert pulled <= taken + ahead
    predictions.close()  # type: ignore[attr-defined]


def test_no_images_are_no_predictions(bundle: Path) -> None:
    assert list(Classifier(bundle).predict([])) == []


def test_failing_input_reaches_the_caller(bundle: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"not an image"
        raise RuntimeError("the network drive is gone")

    with pytest.raises(RuntimeError, match="network drive"):
        list(Classifier(bundle).predict(failing()))


def test_pickled_classifier_answers_alike(bundle: Path) -> None:
    classifier = Classifier(bundle, device="cpu", threads=2, variant="fp32", threshold=0.2)
    copy = pickle.loads(pickle.dumps(classifier))
    assert (copy.device, copy.threads, copy.variant, copy.threshold) == ("cpu", 2, "fp32", 0.2)
    image = Image.new("RGB", (40, 40), (100, 130, 130))
    assert list(copy.predict([image])) == list(classifier.predict([image]))


def test_shared_between_threads(bundle: Path) -> None:
    classifier = Classifier(bundle, threads=2)
    streams = [[np.full((9, 9, 3), (5 * level, 0, start), np.uint8) for level in range(40)] for start in range(6)]
    alone = [list(classifier.predict(stream)) for stream in streams]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda stream: list(classifier.predict(stream)), streams))
    assert together == alone
    assert len({prediction.confidence for stream in alone for prediction in stream}) > 100, "answers differ"


@pytest.mark.parametrize(
    ("variants", "asked", "taken"),
    [
        pytest.param(("int8", "fp32"), None, "int8", id="the CPU takes int8"),
        pytest.param(("fp16", "fp32"), None, "fp32", id="then fp32"),
        pytest.param(("fp16",), None, "fp16", id="then what there is"),
        pytest.param(("int8", "fp32"), "fp32", "fp32", id="or what is asked for"),
    ],
)
def test_variant(
    make_bundle: Callable[..., Path], variants: tuple[str, ...], asked: str | None, taken: str
) -> None:
    assert Classifier(make_bundle(variants=variants), device="cpu", variant=asked).variant == taken


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"threads": 0}, "0 threads: at least 1", id="no threads"),
        pytest.param({"threads": -1}, "-1 threads", id="negative threads"),
        pytest.param({"threshold": 2}, "threshold 2 is not within 0 to 1", id="threshold above 1"),
        pytest.param({"threshold": -0.1}, "threshold -0.1", id="threshold below 0"),
        pytest.param({"threshold": math.nan}, "threshold nan", id="threshold NaN"),
        pytest.param({"variant": "fp16"}, "no variant 'fp16', it has: int8, fp32", id="variant the bundle lacks"),
        pytest.param({"device": "gpu"}, "no device is called 'gpu'", id="unknown device"),
        pytest.param({"bundle": "/nowhere"}, "/nowhere is not a bundle", id="no bundle"),
    ],
)
def test_wrong_argument_is_refused(bundle: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(LesionEdgeError, match=reason):
        Classifier.load(**{"bundle": bundle, **options})


def test_without_a_bundle_the_one_that_ships_is_taken(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion_edge.classifier.SHIPPED_BUNDLE", bundle)
    assert Classifier.load().manifest == Classifier(bundle).manifest
    monkeypatch.setattr("lesion_edge.classifier.SHIPPED_BUNDLE", tmp_path / "nothing")
    with pytest.raises(LesionEdgeError, match="no model ships with this installation: name a bundle with --model"):
        Classifier.load()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_without_images_is_refused(bundle: Path, batch_size: int) -> None:
    with pytest.raises(LesionEdgeError, match=f"batch size {batch_size}: at least 1"):
        list(Classifier(bundle).predict([b"x"], batch_size))


def test_graph_that_breaks_the_contract_is_refused(
    make_bundle: Callable[..., Path], graph_bytes: Callable[..., bytes]
) -> None:
    with pytest.raises(LesionEdgeError, match="probabilities, not 2"):
        Classifier(make_bundle(graph=graph_bytes(3)))


@pytest.mark.parametrize("single", ["a.png", b"content", Path("a.png")])
def test_single_image_instead_of_a_list_is_refused(bundle: Path, single: Any) -> None:
    with pytest.raises(LesionEdgeError, match="put a single one into a list"):
        list(Classifier(bundle).predict(single))


NO_NUMBER: list[Any] = [
    pytest.param(
        {"probabilities": [[0.2, 0.8], [math.nan, math.nan], [0.9, 0.1]]},
        ["malignant", "the network gave no number", "benign"],
        id="a probability, which a threshold would call benign",
    ),
    pytest.param(
        {"probabilities": [[0.2, 0.8]] * 3, "outlier": [0.5, math.nan, 1.5]},
        ["malignant", "the network gave no number", None],
        id="a score, which the limit would call a lesion",
    ),
]


@pytest.mark.parametrize(("outputs", "answers"), NO_NUMBER)
def test_output_that_is_no_number_is_an_error(outputs: dict[str, Any], answers: list[str | None]) -> None:
    arrays = {name: np.array(values, np.float32) for name, values in outputs.items()}
    predictions = list(label_outputs(arrays, ["benign", "malignant"], "malignant", 0.5))
    assert [prediction.error or prediction.label for prediction in predictions] == answers
    assert predictions[1].status == "error"


@pytest.mark.parametrize(
    ("blue", "status"),
    [(0, "ok"), (199, "ok"), (200, "ok"), (201, "out_of_distribution"), (255, "out_of_distribution")],
)
@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_image_over_the_outlier_limit_has_probabilities_and_no_label(
    scored_bundle: Path, paint: Paint, blue: int, status: str, threshold: float | None
) -> None:
    color = (220, 120, blue)
    classifier = Classifier(scored_bundle, threshold=threshold)
    (prediction,) = classifier.predict([paint("a.png", color)])
    assert (prediction.status, prediction.error) == (status, None)
    assert prediction.outlier == pytest.approx(blue / 200, abs=1e-5)
    assert prediction.probabilities["malignant"] == pytest.approx(malignant(color), abs=1e-5)
    assert (prediction.label is None, prediction.confidence is None) == (status == "out_of_distribution",) * 2


def test_score_belongs_to_its_image_in_any_batch_and_after_pickling(scored_bundle: Path, paint: Paint) -> None:
    blues = [10, 240, 60, 210, 90, 250, 120]
    sources: list[Any] = [paint(f"{blue}.png", (90, 90, blue)) for blue in blues]
    sources.insert(2, b"no image")
    classifier = pickle.loads(pickle.dumps(Classifier(scored_bundle, threads=2)))
    for batch_size in (1, 3):
        predictions = list(classifier.predict(sources, batch_size, cam=True))
        scores = [prediction.outlier for prediction in predictions]
        assert scores.pop(2) is None
        assert scores == pytest.approx([blue / 200 for blue in blues], abs=1e-5)
        statuses = [prediction.status for prediction in predictions]
        assert statuses == [
            "ok",
            "out_of_distribution",
            "error",
            "ok",
            "out_of_distribution",
            "ok",
            "out_of_distribution",
            "ok",
        ]
        assert all(prediction.cam is not None for prediction in predictions if prediction.status != "error")


def test_network_alone_gives_the_score_where_there_is_one(bundle: Path, scored_bundle: Path) -> None:
    pixels = np.full((2, 32, 32, 3), BLUE, np.uint8)
    pixels[1] = RED
    outlier = Classifier(scored_bundle).run(pixels)["outlier"]
    assert (outlier.shape, outlier.dtype.name) == ((2,), "float32")
    np.testing.assert_allclose(outlier, [1.2, 0.15], atol=1e-5)
    assert "outlier" not in Classifier(bundle).run(pixels)


def test_bundle_without_the_score_it_speaks_of_is_refused(
    make_bundle: Callable[..., Path], graph_bytes: Callable[..., bytes]
) -> None:
    with pytest.raises(LesionEdgeError, match="no float32 output 'outlier'"):
        Classifier(make_bundle(graph=graph_bytes(), scored=True))


def test_failing_network_is_one_sentence(bundle: Path) -> None:
    with pytest.raises(LesionEdgeError, match=r"^the network failed on cpu: .*dimensions") as caught:
        Classifier(bundle).run(np.zeros((1, 4, 4, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_map_comes_with_the_prediction_when_asked_for(bundle: Path, paint: Callable[..., Path]) -> None:
    sources: list[Any] = [paint("a.png", RED), b"no image", paint("b.png", BLUE)]
    classifier = Classifier(bundle)
    with_map = list(classifier.predict(sources, batch_size=3, cam=True))
    assert with_map == list(classifier.predict(sources))
    assert [None if p.cam is None else (p.cam.shape, p.cam.dtype.name) for p in with_map] == [
        ((2, 2), "float32"),
        None,
        ((2, 2), "float32"),
    ]
    assert all(prediction.cam is None for prediction in classifier.predict(sources))


@pytest.fixture
def cuda_listed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """An ONNX Runtime that lists CUDA, whose driver then fails; what was asked for, by the first provider."""
    import onnxruntime

    asked: list[tuple[str, list[str]]] = []
    genuine = onnxruntime.InferenceSession

    def falls_back(model: bytes, options: Any, providers: list[str]) -> Any:
        asked.append((providers[0], providers))
        return genuine(model, options, providers=["CPUExecutionProvider"])

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    return asked


def test_auto_takes_the_cpu_where_cuda_fails_and_says_why(
    make_bundle: Callable[..., Path], cuda_listed: list[tuple[str, list[str]]]
) -> None:
    classifier = Classifier(make_bundle(variants=("int8", "fp16", "fp32")))
    assert (classifier.device, classifier.variant) == ("cpu", "int8"), "the variant follows the device"
    assert classifier.fallback
    assert "could not start CUDAExecutionProvider" in classifier.fallback
    assert [first for first, _ in cuda_listed] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_cuda_asked_for_by_name_is_not_replaced(
    make_bundle: Callable[..., Path], cuda_listed: list[tuple[str, list[str]]]
) -> None:
    with pytest.raises(LesionEdgeError, match="could not start CUDAExecutionProvider"):
        Classifier(make_bundle(variants=("int8", "fp16")), device="cuda")
    assert len(cuda_listed) == 1


@pytest.fixture
def cuda_wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """An ONNX Runtime whose CUDA starts, and adds one to all outputs where it is wrong."""
    import onnxruntime

    genuine = onnxruntime.InferenceSession

    def listed(wrong: bool) -> None:
        def session(model: bytes, options: Any, providers: list[str]) -> Any:
            opened = genuine(model, options, providers=["CPUExecutionProvider"])
            offset = np.float32(wrong and providers[0] == "CUDAExecutionProvider")
            return SimpleNamespace(
                run=lambda names, feeds: [values + offset for values in opened.run(names, feeds)],
                get_providers=lambda: providers,
                get_inputs=opened.get_inputs,
                get_outputs=opened.get_outputs,
            )

        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)

    return listed


@pytest.fixture
def tested_bundle(make_bundle: Callable[..., Path], edit: Callable[..., None]) -> Path:
    """int8, fp16 and fp32 with a self-test each."""
    folder = make_bundle(variants=("int8", "fp16", "fp32"))
    expected = expected_by(Classifier(folder, device="cpu"))

    def add(content: dict[str, Any]) -> None:
        for variant in content["variants"].values():
            variant["self_test"] = expected

    edit(folder, add)
    return folder


def test_auto_keeps_a_device_that_passes_the_self_test(
    tested_bundle: Path, cuda_wrong: Callable[[bool], None]
) -> None:
    cuda_wrong(False)
    classifier = Classifier(tested_bundle)
    assert (classifier.device, classifier.variant, classifier.fallback) == ("cuda", "fp16", None)


def test_auto_leaves_a_device_that_answers_otherwise(
    tested_bundle: Path, cuda_wrong: Callable[[bool], None]
) -> None:
    cuda_wrong(True)
    classifier = Classifier(tested_bundle)
    assert (classifier.device, classifier.variant) == ("cpu", "int8")
    assert str(classifier.fallback).startswith("self-test of fp16 on cuda: FAILED")


def test_named_device_that_answers_otherwise_gives_no_answer(
    tested_bundle: Path, cuda_wrong: Callable[[bool], None]
) -> None:
    cuda_wrong(True)
    classifier = Classifier(tested_bundle, device="cuda")
    with pytest.raises(LesionEdgeError, match=r"self-test of fp16 on cuda: FAILED.*; choose --device cpu"):
        list(classifier.predict([np.zeros((4, 4, 3), np.uint8)]))


@pytest.mark.parametrize(
    ("variants", "asked", "reason"),
    [
        pytest.param(("int8",), None, "the bundle has only int8, which is for the CPU", id="nothing else there"),
        pytest.param(("int8", "fp16"), "int8", "int8 is for the CPU", id="asked for"),
    ],
)
def test_auto_runs_int8_on_the_cpu_and_says_why(
    make_bundle: Callable[..., Path],
    cuda_wrong: Callable[[bool], None],
    variants: tuple[str, ...],
    asked: str | None,
    reason: str,
) -> None:
    cuda_wrong(False)
    classifier = Classifier(make_bundle(variants=variants), variant=asked)
    assert (classifier.device, classifier.variant, classifier.fallback) == ("cpu", "int8", reason)
