"""The graphs of a real export: what they are made of, and that they say what the Keras model says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesion_edge.manifest import load_manifest
from lesion_edge.preprocess import load_pixels
from lesion_export.operating_point import softmax
from lesion_export.quantization.qdq import ADD_STEPS

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, TrainedRun

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
keras = pytest.importorskip("keras")

VARIANTS = ("fp32", "fp16", "int8")
OUTPUTS = ("probabilities", "logits", "cam")
SIZE, CELLS = 64, 2


@pytest.fixture(scope="module")
def graphs(exported_bundle: ExportedBundle) -> dict[str, Any]:
    """Variant to `onnx.ModelProto`."""
    return {name: onnx.load(exported_bundle.folder / f"{name}.onnx") for name in VARIANTS}


@pytest.fixture(scope="module")
def sessions(graphs: dict[str, Any]) -> dict[str, Any]:
    """Variant to ONNX Runtime session."""
    return {
        name: runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        for name, graph in graphs.items()
    }


@pytest.fixture(scope="module")
def temperatures(exported_bundle: ExportedBundle) -> dict[str, float]:
    """Variant to the temperature in the manifest."""
    variants = load_manifest(exported_bundle.folder).variants
    return {name: variant.temperature for name, variant in variants.items()}


@pytest.fixture(scope="module")
def pixels(trained_run: TrainedRun) -> NDArray[np.uint8]:
    """The validation images, uint8 (N, S, S, 3)."""
    entries = trained_run.record["split"]["validation"]
    return np.stack([load_pixels(trained_run.data / entry["file"], SIZE) for entry in entries])


def run(session: Any, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": pixels}), strict=True))


def count(graph: Any, operator: str) -> int:
    return sum(node.op_type == operator for node in graph.graph.node)


def grad_cam(model: Any, images: NDArray[np.float32], positive_index: int) -> tuple[Any, Any]:
    """Logits (N, K) and Grad-CAM (N, h, w) of a class, by the gradient that TensorFlow computes."""
    import tensorflow as tf

    base = model.get_layer("resnet50")
    inner = keras.Model(base.input, base.get_layer("conv5_block3_out").output)
    maps = inner(keras.applications.resnet50.preprocess_input(images.copy()), training=False)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = model.get_layer("logits")(model.get_layer("hidden")(tf.reduce_mean(maps, axis=(1, 2))))
        score = tf.reduce_sum(logits[:, positive_index])
    weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
    return logits.numpy(), tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()


def test_float_graph_is_fifty_three_convolutions_and_one_transpose(graphs: dict[str, Any]) -> None:
    graph = graphs["fp32"]
    assert (count(graph, "Conv"), count(graph, "Transpose")) == (53, 1)
    assert (count(graph, "BatchNormalization"), count(graph, "Pad")) == (0, 0)
    assert [tensor.name for tensor in graph.graph.input] == ["image"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_is_valid(variant: str, graphs: dict[str, Any]) -> None:
    onnx.checker.check_model(graphs[variant])
    assert (count(graphs[variant], "Conv"), count(graphs[variant], "Transpose")) == (53, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_loads_on_older_devices(variant: str, graphs: dict[str, Any]) -> None:
    graph = graphs[variant]
    assert graph.ir_version <= 10
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] in (17, 18)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_and_outputs_are_the_contract(variant: str, sessions: dict[str, Any]) -> None:
    (taken,) = sessions[variant].get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(uint8)", ["N", SIZE, SIZE, 3])
    assert [(output.name, output.type, output.shape) for output in sessions[variant].get_outputs()] == [
        ("probabilities", "tensor(float)", ["N", 2]),
        ("logits", "tensor(float)", ["N", 2]),
        ("cam", "tensor(float)", ["N", CELLS, CELLS]),
    ]


def test_every_convolution_of_the_int8_graph_takes_dequantized_tensors(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    writers = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 53
    assert all([writers.get(name) for name in node.input] == ["DequantizeLinear"] * 3 for node in convolutions)


def test_nothing_but_input_and_head_of_the_int8_graph_is_float(sessions: dict[str, Any], tmp_path: Path) -> None:
    """Looks at what ONNX Runtime makes of the graph on this machine, since that is what runs."""
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    content = sessions["int8"]._model_bytes
    runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert operators["QLinearConv"] == 53
    assert operators["QLinearAdd"] == 16
    assert operators["QGemm"] == 2
    assert operators["Transpose"] == 2  # of the last feature map, for `cam`, and of its mean; none at full size
    assert not {"Conv", "Add", "BatchNormalization", "Pad", "FusedConv"} & set(operators)
    assert operators["QuantizeLinear"] <= 2  # the input, and the hidden layer


def test_sums_of_the_int8_graph_are_never_half_way_between_steps(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    writers = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    sums = [node for node in graph.node if node.op_type == "Add"]
    assert len(sums) == 16
    for node in sums:
        quantizer = readers[node.output[0]]
        assert quantizer.op_type == "QuantizeLinear"
        for name in node.input:
            ratio = constants[writers[name].input[1]] / constants[quantizer.input[1]] * ADD_STEPS
            assert ratio == pytest.approx(round(float(ratio)), abs=1e-3)


def test_int8_weights_have_seven_bits_and_a_scale_for_each_channel(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = {name: value for name, value in constants.items() if value.dtype == np.int8 and value.ndim == 4}
    assert len(weights) == 53
    assert all(value.min() >= -64 and value.max() <= 64 for value in weights.values())
    assert max(np.abs(value).max() for value in weights.values()) == 64
    for name, value in weights.items():
        assert constants[readers[name].input[1]].shape == (len(value),)
        assert not constants[readers[name].input[2]].any()
    others = [value for value in constants.values() if value.dtype == np.int8]
    assert all(value.min() >= -64 and value.max() <= 64 for value in others)


def test_int8_activations_are_unsigned(graphs: dict[str, Any]) -> None:
    graph = graphs["int8"].graph
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) >= 53
    assert {constants[node.input[2]] for node in quantizers} == {onnx.TensorProto.UINT8}


def test_int8_graph_is_about_a_quarter_of_the_size(exported_bundle: ExportedBundle) -> None:
    fp32, fp16, int8 = ((exported_bundle.folder / f"{name}.onnx").stat().st_size for name in VARIANTS)
    assert int8 < 0.3 * fp32
    assert fp16 < 0.51 * fp32


@pytest.mark.parametrize("variant", VARIANTS)
def test_probabilities_are_the_softmax_of_the_logits(
    variant: str, sessions: dict[str, Any], temperatures: dict[str, float], pixels: NDArray[np.uint8]
) -> None:
    answers = run(sessions[variant], pixels)
    expected = softmax(answers["logits"] / temperatures[variant])
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_of_three_is_three_single_calls(
    variant: str, sessions: dict[str, Any], pixels: NDArray[np.uint8]
) -> None:
    together = run(sessions[variant], pixels[:3])
    alone = [run(sessions[variant], pixels[index : index + 1]) for index in range(3)]
    assert np.ptp(together["logits"][:, 0]) > 0
    for name in OUTPUTS:
        np.testing.assert_allclose(together[name], np.concatenate([one[name] for one in alone]), atol=1e-5)


def test_float_graph_gives_the_logits_of_keras(
    sessions: dict[str, Any], trained_model: Any, pixels: NDArray[np.uint8]
) -> None:
    logits, _ = grad_cam(trained_model, pixels.astype(np.float32), 1)
    np.testing.assert_allclose(run(sessions["fp32"], pixels)["logits"], logits, atol=1e-3)


def test_cam_is_grad_cam_of_the_positive_class(
    sessions: dict[str, Any], trained_model: Any, pixels: NDArray[np.uint8]
) -> None:
    _, expected = grad_cam(trained_model, pixels.astype(np.float32), 1)
    largest = expected.max(axis=(1, 2))
    assert (largest > 0).any()
    cam = run(sessions["fp32"], pixels)["cam"]
    assert (np.abs(cam - expected).max(axis=(1, 2)) <= 1e-4 * largest.max()).all()
    assert np.ptp(expected[largest.argmax()]) > 0


def test_smaller_graphs_decide_as_the_float_graph(sessions: dict[str, Any], pixels: NDArray[np.uint8]) -> None:
    fp32, fp16, int8 = (run(sessions[name], pixels)["logits"] for name in VARIANTS)
    assert (fp32.argmax(axis=1) == int8.argmax(axis=1)).all()
    assert 0 < np.abs(fp32 - int8).max() < 0.5
    assert 0 < np.abs(fp32 - fp16).max() < 0.05
