"""Whatever ends a run, `--resume` brings it to what an undisturbed run writes."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lesion_edge import Classifier, LesionEdgeError, Prediction
from lesion_edge.inference import run
from lesion_edge.inference_options import InferenceOptions
from lesion_edge.output import Format, PredictionWriter, read_predictions
from lesion_edge.resume import CompletedRows, Record

pytest.importorskip("onnxruntime")

COMMAND = [sys.executable, "-c", "from lesion_edge.cli import main; main()"]
NAMES = [
    "plain.png",
    "=1+1.png",
    "-rf.png",
    'quo"te.png',
    "line\nbreak.png",
    "comma,.png",
    "caf\udce9.png",
    "\r.png",
]
CLASSES = ("benign", "malignant")

Finishing = subprocess.CompletedProcess[bytes]


def infer(*arguments: str | os.PathLike[Any], cwd: Path | None = None) -> Finishing:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, cwd=cwd, timeout=60, check=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with every kind of name, one of them damaged."""
    folder = tmp_path_factory.mktemp("images")
    for index, name in enumerate(NAMES):
        Image.new("RGB", (40, 40), (30 * index, 100, 100)).save(folder / name)
    (folder / "damaged.jpg").write_bytes(b"no image")
    return folder


def written(path: Path, kind: Format, predictions: list[Prediction]) -> bytes:
    with PredictionWriter(path, kind, CLASSES) as writer:
        for prediction in predictions:
            writer.add(prediction)
    return path.read_bytes()


def labelled(path: str, label: str, malignant: float) -> Prediction:
    probabilities = {"benign": 1 - malignant, "malignant": malignant}
    return Prediction(path=path, label=label, confidence=probabilities[label], probabilities=probabilities)


PREDICTIONS = [
    *(labelled(name, "malignant", 0.75) for name in NAMES),
    Prediction(path="damaged.jpg", error='broken, "really"'),
    Prediction(path="cat.jpg", probabilities={"benign": 0.875, "malignant": 0.125}),
    labelled("last.png", "benign", 0.5),
]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_is_written_is_read_back(tmp_path: Path, kind: Format) -> None:
    content = written(tmp_path / "out", kind, PREDICTIONS)
    read = list(read_predictions(tmp_path / "out", kind, CLASSES))
    assert [prediction for prediction, _ in read] == PREDICTIONS
    assert [prediction.status for prediction, _ in read[-3:]] == ["error", "out_of_distribution", "ok"]
    assert read[-1][1] == len(content)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_cut_at_any_byte_goes_on_to_the_same_whole(tmp_path: Path, kind: Format) -> None:
    undisturbed = written(tmp_path / "whole", kind, PREDICTIONS)
    path = tmp_path / "cut"
    for length in range(len(undisturbed) + 1):
        path.write_bytes(undisturbed[:length])
        restored: list[Prediction] = []
        completed = CompletedRows(path, kind, CLASSES, restored.append)
        assert restored == PREDICTIONS[: len(restored)]
        remaining = list(completed.remaining([prediction.path for prediction in PREDICTIONS]))
        with PredictionWriter(path, kind, CLASSES, completed.bytes) as writer:
            for prediction in PREDICTIONS[-len(remaining) :] if remaining else []:
                writer.add(prediction)
        assert path.read_bytes() == undisturbed, f"cut after {length} bytes"


def test_image_named_twice_has_two_rows(tmp_path: Path) -> None:
    written(tmp_path / "out", "csv", [PREDICTIONS[0]])
    completed = CompletedRows(tmp_path / "out", "csv", CLASSES, lambda prediction: None)
    assert list(completed.remaining(["plain.png", "a", "plain.png", "plain.png"])) == [
        "a",
        "plain.png",
        "plain.png",
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("path,status,label,confidence,p_red,p_green,error\n", id="other classes"),
        pytest.param("a shopping list\nmilk\n", id="no predictions"),
        pytest.param("precious", id="no predictions and no line break"),
        pytest.param("path,status,label,confidence,p_benign,p_malignant,error\na,ok\n", id="a row too short"),
        pytest.param(
            "path,status,label,confidence,p_benign,p_malignant,error\na,ok,benign,x,y,z,\n", id="no numbers"
        ),
        pytest.param('{"path": "a.png"}\n', id="the other format"),
    ],
)
def test_file_that_is_no_output_of_this_model_is_left_alone(
    bundle: Path, images: Path, tmp_path: Path, content: str
) -> None:
    output = tmp_path / "out.csv"
    output.write_text(content)
    run = infer(images, "--model", bundle, "--output", output, "--resume")
    assert run.returncode == 2
    assert f"{output}, row ".encode() in run.stderr
    assert b"Traceback" not in run.stderr
    assert output.read_text() == content


@pytest.mark.parametrize(("threshold", "code"), [("0.5", 0), ("0.51", 0), ("0.6", 2), ("0.4", 0), ("0.25", 2)])
def test_another_threshold_is_noticed_without_a_record(
    bundle: Path, tmp_path: Path, threshold: str, code: int
) -> None:
    """One image of ten lies between the thresholds: the least sure one of its label."""
    levels = [10, 60, 105, 130, 170, 200, 210, 220, 230, 250]
    for level in levels:
        Image.new("RGB", (40, 40), (level, 100, 100)).save(tmp_path / f"{level:03}.png")
    output = tmp_path / "out.csv"
    assert run(InferenceOptions([str(tmp_path)], model=bundle, output=output, threshold=0.5))
    content = output.read_bytes()
    (tmp_path / ".out.csv.resume").unlink()
    resumed = infer(tmp_path, "--model", bundle, "--output", output, "--threshold", threshold, "--resume")
    assert resumed.returncode == code
    assert (b"another model, variant or threshold" in resumed.stderr) == (code == 2)
    assert output.read_bytes() == content


def test_another_model_is_noticed(bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 100, 100)).save(tmp_path / "a.png")
    answer = next(Classifier(bundle).predict([tmp_path / "a.png"]))
    assert answer.label is not None
    other = labelled(answer.path, answer.label, answer.probabilities["malignant"] - 0.002)
    written(tmp_path / "out", "csv", [other])
    completed = CompletedRows(tmp_path / "out", "csv", CLASSES, lambda prediction: None)
    with pytest.raises(LesionEdgeError, match="another model"):
        completed.check_model(Classifier(bundle))
    os.remove(tmp_path / "a.png")
    completed.check_model(Classifier(bundle))


def test_refused_rows_are_finished_and_another_model_shows_in_them(
    bundle: Path, scored_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40), (100, 100, 240)).save(tmp_path / "in" / name)
    output = tmp_path / "out.csv"
    first = infer(tmp_path / "in", "--model", scored_bundle, "--output", output)
    assert first.stderr == b"2 images on cpu (int8): 2 out_of_distribution\n"
    content = output.read_bytes()
    again = infer(tmp_path / "in", "--model", scored_bundle, "--output", output, "--resume")
    assert (again.returncode, again.stderr) == (0, first.stderr)
    without_score = infer(tmp_path / "in", "--model", bundle, "--output", output, "--resume")
    assert without_score.returncode == 2
    assert b"another model, variant or threshold" in without_score.stderr
    assert output.read_bytes() == content


def resumed(bundle: Path, folder: Path | str, output: Path, **options: Any) -> bool:
    return run(InferenceOptions([str(folder)], model=bundle, output=output, resume=True, **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of one colour each."""
    (tmp_path / "in").mkdir()
    for name, level in (("a.png", 30), ("b.png", 220)):
        Image.new("RGB", (40, 40), (level, 100, 100)).save(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.mark.parametrize("change", [{"threshold": 0.7}, {"variant": "fp32"}], ids=str)
def test_another_threshold_or_variant_is_refused_where_no_answer_shows_it(
    bundle: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    output = tmp_path / "out.csv"
    assert not resumed(bundle, tmp_path / "broken.jpg", output)
    content = output.read_bytes()
    (name,) = change
    with pytest.raises(
        LesionEdgeError, match=f"another model, variant or threshold .{name} .*, now {change[name]}"
    ):
        resumed(bundle, tmp_path / "broken.jpg", output, **change)
    assert output.read_bytes() == content


def test_overwritten_image_is_answered_again_once_and_said(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    resumed(bundle, folder, output)
    first = output.read_bytes()
    Image.new("RGB", (41, 40), (230, 100, 100)).save(folder / "a.png")
    capsys.readouterr()
    for _ in range(2):
        resumed(bundle, folder, output)
        assert output.read_bytes().startswith(first)
        rows = list(csv.reader(output.open(newline="")))
        assert [(Path(row[0]).name, row[2]) for row in rows[1:]] == [
            ("a.png", "benign"),
            ("b.png", "malignant"),
            ("a.png", "malignant"),
        ]
    said = f"{folder / 'a.png'} has changed since its row was written: answered again"
    assert capsys.readouterr().err.splitlines().count(said) == 1


@pytest.mark.parametrize("spelling", ["in", "./in", "in/../in/", "{absolute}"])
def test_folder_spelled_otherwise_doubles_no_row(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    resumed(bundle, "in", tmp_path / "out.csv")
    content = (tmp_path / "out.csv").read_bytes()
    resumed(bundle, spelling.format(absolute=folder), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == content


def test_output_that_another_run_writes_is_refused(bundle: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    resumed(bundle, folder, output)
    content = output.read_bytes()
    with Record(output):
        second = infer(folder, "--model", bundle, "--output", output, "--resume")
    assert second.stderr.decode() == (
        f"lesion-infer: {output} is being written by another run: choose another --output\n"
    )
    assert second.returncode == 2
    assert output.read_bytes() == content


def test_record_cut_at_any_byte_loses_and_doubles_no_row(bundle: Path, folder: Path, tmp_path: Path) -> None:
    output, record = tmp_path / "out.csv", tmp_path / ".out.csv.resume"
    resumed(bundle, folder, output)
    rows, lines = output.read_bytes(), record.read_bytes()
    assert len(lines.splitlines()) == 3
    for length in range(0, len(lines), 7):
        record.write_bytes(lines[:length])
        resumed(bundle, folder, output)
        assert output.read_bytes() == rows, f"record cut after {length} bytes"
    assert json.loads(record.read_bytes().splitlines()[0])["variant"] == "int8"


def test_resume_without_a_file_begins_one_and_without_a_name_is_refused(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    infer(images, "--model", bundle, "--output", output, "--resume")
    assert len(list(csv.reader(output.open(newline="", errors="surrogateescape")))) == len(NAMES) + 2
    refused = infer(images, "--model", bundle, "--resume")
    assert refused.returncode == 2
    assert refused.stderr == b"lesion-infer: --resume needs --output, the file to go on with\n"


def test_earlier_rows_count_in_summary_and_evaluation(bundle: Path, tmp_path: Path) -> None:
    for label, level in (("benign", 20), ("malignant", 240)):
        (tmp_path / "in" / label).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (40, 40), (level, 100, 100)).save(tmp_path / "in" / label / f"{index}.png")
    options: list[Any] = ["--model", bundle, "--evaluate", "--format", "jsonl", "--output"]
    undisturbed = infer(tmp_path / "in", *options, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(lines[:4]) + lines[4][:9])
    resumed = infer(tmp_path / "in", *options, tmp_path / "part.jsonl", "--resume")
    assert resumed.stderr == undisturbed.stderr
    assert (tmp_path / "part.jsonl").read_text() == "".join(lines)
    assert [json.loads(line)["status"] for line in lines] == ["ok"] * 6


def test_killed_run_resumed_is_the_undisturbed_run(bundle: Path, images: Path, tmp_path: Path) -> None:
    """Killed as soon as a random number of rows is out, again and again."""
    undisturbed, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    infer(images, "--model", bundle, "--output", undisturbed)
    rng = random.Random(0)
    kills = 0
    for _ in range(4):
        arguments: list[Any] = [images, "--model", bundle, "--output", output, "--resume", "--threads", "1"]
        with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE) as process:
            kill_at = rng.randrange(1, len(undisturbed.read_bytes()))
            while process.poll() is None:
                if output.exists() and output.stat().st_size >= kill_at:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
    infer(images, "--model", bundle, "--output", output, "--resume")
    assert output.read_bytes() == undisturbed.read_bytes()
    assert kills
