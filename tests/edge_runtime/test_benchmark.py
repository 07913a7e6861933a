"""The benchmark: what is timed is counted right, what is answered is compared, and each variant has its turn."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesion_edge import Classifier, benchmark
from lesion_edge.benchmark import Answers, Effort, format_result, measure, percentiles
from lesion_edge.cpu import available_cpus, cpu_model
from lesion_edge.errors import LesionEdgeError
from tests.edge_runtime.conftest import expected_by

pytest.importorskip("onnxruntime")

Edit = Callable[..., None]


@pytest.fixture
def tested_bundle(make_bundle: Callable[..., Path], edit: Edit) -> Path:
    """Two variants with a golden self-test each."""
    folder = make_bundle()
    expected = expected_by(Classifier(folder))
    edit(folder, lambda content: [entry.update(self_test=expected) for entry in content["variants"].values()])
    return folder


def options(bundle: Path, **changes: object) -> dict[str, Any]:
    return {
        **{"model": bundle, "device": "cpu", "variant": "int8", "threads": 1, "batch_size": None, "trust": None},
        "format": "jsonl",
        **changes,
    }


def ticking(step: float) -> Callable[[], float]:
    """A clock that goes on by `step` seconds whenever it is read."""
    count = itertools.count()
    return lambda: next(count) * step


def test_a_variant_is_measured_by_the_clock(tested_bundle: Path) -> None:
    result = measure(options(tested_bundle), Effort(queries=5, seconds=0.2, starts=1), ticking(0.01))
    assert result["queries"] == 7, "each reads the clock three times: 0.2 s are over in the seventh"
    assert result["image_ms"] == pytest.approx({"p50": 20, "p90": 20, "p99": 20})
    assert result["network_ms"] == pytest.approx({"p50": 10, "p90": 10, "p99": 10})
    assert (result["load_ms"], result["first_inference_ms"]) == pytest.approx((10, 10))
    assert result["cold_start_ms"] == {"median": 10.0, "starts": 1}
    assert (result["variant"], result["device"], result["provider"]) == ("int8", "cpu", "CPUExecutionProvider")
    stream = 20  # the clock is read after each image, until 0.2 s are over
    assert result["images_per_second"] == pytest.approx(stream / 0.21, rel=0.01)
    assert result["answers"] == {
        "compared": 7 + stream + 1,
        "largest_difference": 0,
        "tolerance": 1e-3,
        "agree": True,
    }
    assert result["machine"]["cpus"] == available_cpus()
    assert sys.platform == "win32" or 10 < result["peak_memory_mib"] < 4096
    json.dumps(result, allow_nan=False)


def test_queries_are_as_many_as_asked_for_however_fast(tested_bundle: Path) -> None:
    result = measure(options(tested_bundle), Effort(queries=9, seconds=0.001, starts=1), ticking(0.01))
    assert result["queries"] == 9


def test_other_answers_are_told(
    tested_bundle: Path, edit: Edit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(tested_bundle, lambda content: content["variants"]["int8"]["self_test"]["logits"].reverse())
    monkeypatch.setitem(benchmark.EFFORTS, "quick", Effort(3, 0, 1))
    assert not benchmark.benchmark(options(tested_bundle, format="csv"), "quick")
    assert "NOT all as released: largest difference " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outputs", "agree"),
    [
        pytest.param({"logits": [[1.0, 2.0]], "probabilities": [[0.3, 0.7]]}, True, id="as released"),
        pytest.param({"probabilities": [[0.3004, 0.6996]]}, True, id="within the tolerance"),
        pytest.param({"probabilities": [[0.31, 0.69]]}, False, id="another probability"),
        pytest.param({"logits": [[1.0, 2.1]], "probabilities": [[0.3, 0.7]]}, False, id="another logit"),
        pytest.param({"probabilities": [[float("nan"), 0.7]]}, False, id="not a number"),
    ],
)
def test_an_answer_is_compared(outputs: dict[str, Any], agree: bool) -> None:
    expected = {"logits": [[0.0, 0.0], [1.0, 2.0]], "probabilities": [[0.5, 0.5], [0.3, 0.7]], "tolerance": 1e-3}
    answers = Answers(expected, "int8")
    answers.compare(1, {name: np.array(values, np.float32) for name, values in outputs.items()})
    answers.compare(0, {"probabilities": np.array([[0.5, 0.5]], np.float32)})
    assert (answers.agree, answers.compared) == (agree, 2)


def test_a_bundle_without_a_self_test_is_refused(bundle: Path) -> None:
    with pytest.raises(LesionEdgeError, match="no self-test for int8"):
        measure(options(bundle), Effort(1, 0, 1))


def test_percentiles_are_times_of_queries() -> None:
    assert percentiles([float(value) for value in range(1, 101)]) == {"p50": 50, "p90": 90, "p99": 99}
    assert percentiles([3.0, 1.0, 2.0]) == {"p50": 2, "p90": 3, "p99": 3}


def test_each_variant_has_a_process_of_its_own(
    tested_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = "from lesion_edge import benchmark as b, cli; b.EFFORTS['quick'] = b.Effort(3, 0, 1); cli.main()"
    monkeypatch.setattr(benchmark, "COMMAND", [sys.executable, "-c", quick])
    assert benchmark.benchmark(options(tested_bundle, variant=None, threads=1, batch_size=2), "quick")
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(result["variant"], result["threads"], result["batch_size"]) for result in results] == [
        ("int8", 1, 2),
        ("fp32", 1, 2),
    ]


def test_text_says_what_is_not_known(tested_bundle: Path) -> None:
    result = measure(options(tested_bundle), Effort(1, 0, 1))
    result["peak_memory_mib"] = result["machine"]["load"] = result["answers"]["largest_difference"] = None
    text = format_result(result)
    assert "peak memory      unknown MiB" in text
    assert "largest difference unknown" in text
    assert "load unknown before" in text


def test_cpu_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert cpu_model(tmp_path / "cpuinfo", tmp_path / "model") == "Some CPU @ 2 GHz"
    assert cpu_model(tmp_path / "none", tmp_path / "model") == "Raspberry Pi 5 Model B Rev 1.0"
    assert cpu_model(tmp_path / "none", tmp_path / "none")
