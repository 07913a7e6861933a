"""How int8 is int8_variant: from the cache where it can be, and with noisy blocks in float where it must."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lesion_export.quantization import calibration_cache, int8
from lesion_export.quantization.float_fallback import noisiest_first, residual_blocks
from lesion_export.quantization.gptq import RoundedModel
from lesion_export.quantization.int8 import make_int8
from lesion_export.quantization.qdq import activation_scales
from lesion_train.run import load_run

if TYPE_CHECKING:
    from tests.conftest import ExportedBundle, TrainedRun

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def graph(exported_bundle: ExportedBundle) -> Any:
    return exported_bundle.float_model()


@pytest.fixture
def quick_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached is looked at, not how good it is; rounding takes half a minute."""
    scales = {"a": np.array([1, 2], np.float32), "b": np.array([3], np.float32)}
    monkeypatch.setattr(calibration_cache, "equalize", lambda graph, pixels: graph)
    monkeypatch.setattr(
        calibration_cache, "round_weights", lambda graph, pixels, seed: RoundedModel(graph, scales)
    )


@pytest.mark.usefixtures("quick_rounding")
def test_second_export_takes_the_ranges_of_the_first(graph: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    first = calibration_cache.prepare(graph, pixels, 0, tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    second = calibration_cache.prepare(graph, pixels, 0, tmp_path)
    assert [file.read_bytes()] == [path.read_bytes() for path in tmp_path.iterdir()] == [content]
    assert second.rounded.model == first.rounded.model
    assert {name: values.tolist() for name, values in second.rounded.scales.items()} == {
        name: values.tolist() for name, values in first.rounded.scales.items()
    }
    for name, histogram in first.histograms.items():
        assert (second.histograms[name].low, second.histograms[name].high) == (histogram.low, histogram.high)
        np.testing.assert_array_equal(second.histograms[name].counts, histogram.counts)
    other = calibration_cache.prepare(graph, 255 - pixels, 0, tmp_path)
    assert {name: h.high for name, h in other.histograms.items()} != {
        name: h.high for name, h in first.histograms.items()
    }
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("quick_rounding")
def test_damaged_cache_is_made_again(graph: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    first = calibration_cache.prepare(graph, pixels, 0, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"not an archive")
    assert calibration_cache.prepare(graph, pixels, 0, tmp_path).histograms.keys() == first.histograms.keys()


@pytest.mark.usefixtures("quick_rounding")
def test_cache_that_cannot_be_written_only_costs_time(
    graph: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    (tmp_path / "file").write_bytes(b"")
    assert calibration_cache.prepare(graph, pixels, 0, tmp_path / "file").histograms
    assert "cannot keep" in capsys.readouterr().err


def test_blocks_go_back_to_float_until_the_gates_hold(
    trained_run: TrainedRun, exported_bundle: ExportedBundle, graph: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def passes_at_the_third(candidate: Any) -> bool:
        convolutions = [node for node in candidate.graph.node if node.op_type == "Conv"]
        writers = {name: node.op_type for node in candidate.graph.node for name in node.output}
        asked.append(sum(writers.get(node.input[1]) != "DequantizeLinear" for node in convolutions))
        return len(asked) == 3

    int8_variant = make_int8(load_run(trained_run.folder), graph, passes_at_the_third, exported_bundle.cache)
    assert asked[0] == 0 < asked[1] < asked[2]
    assert len(int8_variant.record["float_blocks"]) == 2
    assert int8_variant.record["float_blocks_time_ratio"] > 0
    said = capsys.readouterr().err
    assert f"activation ranges from {exported_bundle.cache}" in said
    assert all(
        f"residual block {block} of 16 stays float" in said for block in int8_variant.record["float_blocks"]
    )


def test_all_blocks_go_back_to_float_at_the_worst(
    trained_run: TrainedRun, graph: Any, exported_bundle: ExportedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "quantize", lambda graph, *others: copy.deepcopy(graph))
    monkeypatch.setattr(int8, "noisiest_first", lambda *arguments: [2, 0, 1])
    int8_variant = make_int8(load_run(trained_run.folder), graph, lambda candidate: False, exported_bundle.cache)
    assert int8_variant.record["float_blocks"] == [3, 1, 2]


def test_block_with_added_noise_ranks_first(graph: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    quantized = copy.deepcopy(graph)
    blocks = residual_blocks(graph)
    assert len(blocks) == 16
    # Stand-ins for dequantized activations: those of the float graph, but for one block that is noisy.
    order = [node.name for node in graph.graph.node]
    for index, block in enumerate(blocks):
        name = next(node.output[0] for node in graph.graph.node if node.name == max(block, key=order.index))
        factor = onnx.numpy_helper.from_array(np.float32(1.1 if index == 6 else 1.0), f"factor{index}")
        quantized.graph.initializer.append(factor)
        node = onnx.helper.make_node("Mul", [name, f"factor{index}"], [f"{name}_DequantizeLinear_Output"])
        quantized.graph.node.append(node)
    assert noisiest_first(graph, quantized, pixels)[0] == 6
    assert sorted(noisiest_first(graph, quantized, pixels)) == list(range(16))


def test_scales_cover_the_ranges_and_hold_zero() -> None:
    add = onnx.helper.make_node("Add", ["a", "b"], ["sum"])
    relu = onnx.helper.make_node("Relu", ["sum"], ["out"])
    graph = onnx.helper.make_graph([add, relu], "g", [], [])
    ranges = {"a": (0.0, 3.0), "b": (-1.0, 2.0), "sum": (-1.0, 5.0), "out": (0.5, 5.0)}
    scales = activation_scales(graph, ranges)
    for name, (low, high) in ranges.items():
        scale, zero_point = scales[name]
        assert -float(zero_point) * scale <= min(low, 0) + scale
        assert (255 - float(zero_point)) * scale >= high - scale
    assert scales["out"][0] == pytest.approx(5 / 255)
    for name in "ab":
        steps = float(scales[name][0] / scales["out"][0]) * 511
        assert steps == pytest.approx(round(steps), abs=1e-3)
