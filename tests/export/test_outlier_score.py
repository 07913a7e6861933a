"""The outlier score inside the graphs says what the training's arrays say, and the device acts on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge import Classifier, LesionEdgeError
from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels
from lesion_edge.selftest import self_test
from lesion_export import gates, onnx_graph, outlier_graph
from lesion_export.operating_point import Answers, OperatingPoint, Outputs
from lesion_export.outlier_graph import append_score, fit_limit
from lesion_export.quantization import calibrate, int8
from lesion_export.quantization.calibration_cache import prepare
from lesion_export.quantization.equalize import equalize
from lesion_export.quantization.float_fallback import residual_blocks
from lesion_export.quantization.qdq import quantize
from lesion_train.run import load_run

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, TrainedRun

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")
trained = pytest.importorskip("lesion_train.outlier_score")

VARIANTS = ("fp32", "fp16", "int8")
SIZE = 64


@pytest.fixture(scope="module")
def graphs(scored_export: ExportedBundle) -> dict[str, Any]:
    """Variant to `onnx.ModelProto`."""
    return {name: onnx.load(scored_export.folder / f"{name}.onnx") for name in VARIANTS}


@pytest.fixture(scope="module")
def limits(scored_export: ExportedBundle) -> dict[str, float]:
    """Variant to the limit in the manifest."""
    variants = load_manifest(scored_export.folder).variants
    return {name: variant.outlier_limit or 0 for name, variant in variants.items()}


@pytest.fixture(scope="module")
def pixels(scored_run: TrainedRun) -> NDArray[np.uint8]:
    """All images of the run and eight that are far from them, uint8 (N, S, S, 3)."""
    split = scored_run.record["split"]
    entries = split["train"] + split["validation"]
    images = [load_pixels(scored_run.data / entry["file"], SIZE) for entry in entries]
    return np.stack([*images, *others()])


@pytest.fixture(scope="module")
def expected(scored_run: TrainedRun, trained_model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The score (N,) that NumPy computes from the features of Keras, before a limit is fitted."""
    reference = trained.OutlierScore.load(scored_run.folder)
    assert reference is not None
    pooled, _ = trained.pool_and_predict(trained_model, pixels, reference.layer)
    return np.asarray(reference.score(pooled))


def others() -> list[NDArray[np.uint8]]:
    """Blank walls, lines of a page, stripes and a checkerboard: nothing that the run has seen."""
    y, x = np.mgrid[:SIZE, :SIZE]
    page = np.where((y % 8 < 3) & (np.random.default_rng(0).random((SIZE, SIZE)) < 0.6), 20, 245)
    patterns = [page, (x // 8 % 2) * 255, ((x // 4 + y // 4) % 2) * 255, x * 4, (x + y) // 8 % 2 * 200]
    grey = [np.repeat(pattern[..., None], 3, axis=-1).astype(np.uint8) for pattern in patterns]
    return [*grey, *(np.full((SIZE, SIZE, 3), level, np.uint8) for level in (0, 128, 255))]


def scores(graph: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return onnx_graph.run_model(graph, pixels, ["outlier"], "score")[0]


def assert_close(
    scores: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float, reach: float = 4
) -> None:
    """Far beyond the limit of 1 an image leaves the ranges of int8: its score shrinks, but stays beyond it."""
    far = expected > reach
    np.testing.assert_allclose(scores[~far], expected[~far], rtol=tolerance, atol=tolerance)
    assert (scores[far] > 2).all()


def test_float_graph_gives_the_score_of_keras_and_numpy(
    graphs: dict[str, Any], limits: dict[str, float], pixels: NDArray[np.uint8], expected: NDArray[np.float32]
) -> None:
    actual = scores(graphs["fp32"], pixels)
    assert actual.shape == (len(pixels),)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(actual * limits["fp32"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("variant", "tolerance", "reach"), [("fp16", 0.01, np.inf), ("int8", 0.15, 4)])
def test_smaller_graphs_give_nearly_the_score_of_the_float_graph(
    variant: str, tolerance: float, reach: float, graphs: dict[str, Any], pixels: NDArray[np.uint8]
) -> None:
    expected, actual = scores(graphs["fp32"], pixels), scores(graphs[variant], pixels)
    assert np.abs(actual - expected).max() > 0
    assert_close(actual, expected, tolerance, reach)


@pytest.mark.parametrize(("variant", "tolerance"), [("fp32", 0), ("int8", 0), ("fp16", 0.01)])
def test_score_changes_no_other_output(
    variant: str,
    tolerance: float,
    graphs: dict[str, Any],
    exported_bundle: ExportedBundle,
    pixels: NDArray[np.uint8],
) -> None:
    """The same model exported without a score gives the same bits; fp16 is computed in float32 in both."""
    without = onnx.load(exported_bundle.folder / f"{variant}.onnx")
    assert (onnx_graph.has_outlier_score(graphs[variant]), onnx_graph.has_outlier_score(without)) == (True, False)
    names = ["logits", "probabilities", "cam"]
    for one, other in zip(
        *(onnx_graph.run_model(graph, pixels, names, variant) for graph in (graphs[variant], without)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_no_node_of_the_score_is_quantized(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    writers = {name: node for node in graph.node for name in node.output}
    of_score = [node for node in graph.node if node.name.startswith(onnx_graph.OUTLIER)]
    assert len(of_score) == 16
    sources = Counter(
        writers[name].op_type
        for node in of_score
        for name in node.input
        if name in writers and not writers[name].name.startswith(onnx_graph.OUTLIER)
    )
    assert sources == {"DequantizeLinear": 1}, "the feature map alone comes from int8"
    types = {tensor.name: tensor.data_type for tensor in graph.initializer if tensor.name.startswith("outlier")}
    assert {types[name] for name in types if name != "outlier_row"} == {onnx.TensorProto.FLOAT}


def test_score_breaks_no_fusion(scored_export: ExportedBundle, tmp_path: Path) -> None:
    """Looks at what ONNX Runtime makes of the graph on this machine, since that is what runs."""
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    runtime.InferenceSession(scored_export.folder / "int8.onnx", options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (operators["QLinearConv"], operators["QLinearAdd"], operators["QGemm"]) == (53, 16, 2)
    assert not {"Conv", "Add", "FusedConv"} & set(operators)
    assert operators["QuantizeLinear"] <= 2  # the input, and the hidden layer


def test_evened_out_channels_leave_the_score(graphs: dict[str, Any], pixels: NDArray[np.uint8]) -> None:
    even = equalize(graphs["fp32"], pixels[:8])
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in even.graph.initializer}
    assert np.ptp(constants[onnx_graph.OUTLIER_CHANNELS]) > 0.1, "the feature map was rescaled"
    np.testing.assert_allclose(scores(even, pixels), scores(graphs["fp32"], pixels), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("blocks", [[13], [14], [13, 14], list(range(1, 17))])
def test_blocks_in_float_leave_the_score(
    blocks: list[int],
    scored_run: TrainedRun,
    scored_export: ExportedBundle,
    pixels: NDArray[np.uint8],
) -> None:
    """The score's feature map is the output of block 13 and the input of block 14."""
    run = load_run(scored_run.folder)
    graph = scored_export.float_model()
    prepared = prepare(graph, int8.range_pixels(run), int8.SEED, scored_export.cache)
    in_order = residual_blocks(prepared.rounded.model)
    keep_float = set().union(*(in_order[number - 1] for number in blocks))
    ranges = calibrate.ranges_by("min-max", prepared.histograms)
    mixed = quantize(prepared.rounded.model, ranges, prepared.rounded.scales, keep_float)
    assert_close(scores(mixed, pixels), scores(graph, pixels), 0.2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_device_is_refused_of_other_images_and_answers_for_lesions(
    variant: str, scored_export: ExportedBundle, scored_run: TrainedRun
) -> None:
    classifier = Classifier(scored_export.folder, "cpu", variant=variant)
    far = list(classifier.predict(others()))
    assert [prediction.status for prediction in far] == ["out_of_distribution"] * len(far)
    assert all(sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5) for prediction in far)
    files = [scored_run.data / entry["file"] for entry in scored_run.record["split"]["validation"]]
    assert {prediction.status for prediction in classifier.predict(files)} == {"ok"}


def test_manifest_card_and_self_test_speak_of_the_score(
    scored_export: ExportedBundle, exported_bundle: ExportedBundle, graphs: dict[str, Any]
) -> None:
    card = (scored_export.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name, variant in load_manifest(scored_export.folder).variants.items():
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graphs[name].graph.initializer}
        assert variant.outlier_limit == pytest.approx(float(constants[onnx_graph.OUTLIER_LIMIT]), rel=1e-6)
        assert variant.metrics["out_of_distribution"] <= gates.MAX_REFUSED
        assert (
            f"- `{name}`: {variant.metrics['out_of_distribution']:.2%} of the validation images are out of" in card
        )
        outcome = self_test(Classifier(scored_export.folder, "cpu", variant=name))
        assert outcome.passed
        assert len(variant.self_test["outlier"]) == len(variant.self_test["logits"])
    assert "lesions refused unlike fp32" in card
    older = load_manifest(exported_bundle.folder).variants
    assert {variant.outlier_limit for variant in older.values()} == {None}
    plain = (exported_bundle.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "of the validation images are out of" not in plain


ARRAYS = trained.OutlierScore(
    mean=np.ones(4, np.float32),
    directions=np.eye(4, 2, dtype=np.float32),
    weights=np.ones(2, np.float32),
    residual=np.array(0.5, np.float32),
    probe=np.ones(4, np.float32),
    probe_bias=np.array(-1, np.float32),
    layer="conv4_block6_out",
)


def test_layer_that_the_model_lacks_is_refused(exported_bundle: ExportedBundle) -> None:
    graph = onnx.load(exported_bundle.folder / "fp32.onnx")
    with pytest.raises(LesionEdgeError, match="has no layer 'conv4_block7_out'"):
        append_score(graph, trained.OutlierScore(**{**vars(ARRAYS), "layer": "conv4_block7_out"}))


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        pytest.param([0.2, 0.8, 0.5], 0.808, id="few lesions: all pass, by a hair"),
        pytest.param([3.0, *[0.5] * 65], 3.03, id="1.5 % of 66 is none"),
        pytest.param([3.0, *[0.5] * 66], 1.75, id="of 67 it is one: half-way to the next"),
        pytest.param([3.0, 2.0, 1.0, *[0.5] * 197], 0.75, id="three of 200"),
    ],
)
def test_limit_lets_as_many_lesions_pass_as_it_should(values: list[float], limit: float) -> None:
    shuffled = np.random.default_rng(0).permutation(np.array(values, np.float32))
    assert fit_limit(shuffled) == pytest.approx(limit, rel=1e-6)
    assert (shuffled > limit).mean() <= 1 - outlier_graph.ACCEPTANCE_RATE


@pytest.mark.parametrize(
    "foreign", [pytest.param(60, id="enough lesions"), pytest.param(49, id="too few to have a say")]
)
def test_no_source_is_refused_more_often_than_it_may_be(foreign: int) -> None:
    """Its lesions, of another camera, are all further away than those of the large source."""
    scores = np.array([0.5] * 5000 + list(np.linspace(1, 1.9, foreign)), np.float32)
    sources = ["large"] * 5000 + ["foreign"] * foreign
    allowed = outlier_graph.SOURCE_ACCEPTANCE_RATE
    fitted = fit_limit(scores, sources)
    refused = float((scores[5000:] > fitted).mean())
    assert (refused <= 1 - allowed) is (foreign >= outlier_graph.SOURCE_LESIONS)
    assert fit_limit(scores, [None] * len(scores)) == pytest.approx(fit_limit(scores))


GATES = ["lesions refused", "lesions refused unlike fp32"]
LOGITS = np.zeros((100, 2), np.float32)


def refusing(*indices: int, value: float = 2) -> Answers:
    outliers = np.zeros(100, np.float32)
    outliers[list(indices)] = value
    return OperatingPoint(1.0, 0.5, 1, outlier_limit=1.0).apply(Outputs(LOGITS, outliers))


WITHOUT_SCORE = OperatingPoint(1.0, 0.5, 1).apply(Outputs(LOGITS))


@pytest.mark.parametrize(
    ("reference", "answers", "failed"),
    [
        pytest.param(refusing(1), refusing(1), [], id="the same one"),
        pytest.param(refusing(1), refusing(1, 2), [], id="one more"),
        pytest.param(refusing(1), refusing(2), [], id="two change places"),
        pytest.param(refusing(1, 2), refusing(3, 4), GATES[1:], id="others altogether"),
        pytest.param(refusing(1, 2), refusing(1, 2, 3), GATES[:1], id="too many"),
        pytest.param(
            refusing(),
            refusing(1, 2, 3, value=np.nan),
            GATES,
            id="no numbers",
        ),
        pytest.param(WITHOUT_SCORE, WITHOUT_SCORE, [], id="no score"),
    ],
)
def test_gates_of_refusal(reference: Answers, answers: Answers, failed: list[str]) -> None:
    measured = gates.refusal_gates("int8", reference, answers)
    assert [gate.name for gate in measured if not gate.passed] == failed
    assert len(measured) == (0 if answers.refused is None else 2)


def test_score_gate_measures_the_largest_difference() -> None:
    gate = gates.score_gate(np.array([0.5, 2], np.float32), np.array([0.5, 2.5], np.float32))
    assert (gate.value, gate.passed) == (0.5, False)
    assert gates.score_gate(np.array([0.5], np.float32), np.array([0.505], np.float32)).passed
