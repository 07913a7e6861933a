"""One answer per lesion, beside the rows of its images: from all of them, and never in silence from fewer."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lesion_edge import Classifier
from lesion_edge.errors import LesionEdgeError
from lesion_edge.inference import run
from lesion_edge.inference_options import InferenceOptions
from lesion_edge.lesions import Lesions, read_lesions
from lesion_edge.prediction import Prediction

pytest.importorskip("onnxruntime")

HEADER = "lesion,status,label,confidence,p_benign,p_malignant,images,out_of_distribution,errors,absent"


def prediction(path: Path, p: float | None, refused: bool = False) -> Prediction:
    if p is None:
        return Prediction(path=str(path), error="empty file")
    label = None if refused else "malignant" if p >= 0.5 else "benign"
    return Prediction(path=str(path), label=label, probabilities={"benign": 1 - p, "malignant": p})


@pytest.fixture
def lesions(tmp_path: Path, bundle: Path) -> Callable[..., Lesions]:
    """Lesions of rows `file,lesion`, written to `lesions.csv` in this test's folder."""

    def make(*rows: str, threshold: float = 0.5) -> Lesions:
        (tmp_path / "list.csv").write_text("\n".join(["file,lesion", *rows]))
        options = InferenceOptions([], lesions=tmp_path / "list.csv", lesions_output=tmp_path / "lesions.csv")
        return Lesions(options, Classifier(bundle, threshold=threshold))

    return make


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        pytest.param({"a": 0.2, "b": 0.9}, "x,ok,malignant,0.55,0.45,0.55,2,0,0,0", id="the mean decides"),
        pytest.param({"a": 0.2, "b": 0.7}, "x,ok,benign,0.55,0.55,0.45,2,0,0,0", id="not the largest"),
        pytest.param({"a": 0.2, "b": None}, "x,ok,benign,0.8,0.8,0.2,1,0,1,0", id="an error is counted"),
        pytest.param({"a": 0.2, "b": -0.9}, "x,ok,benign,0.8,0.8,0.2,1,1,0,0", id="a refused image has no say"),
        pytest.param({"a": -0.2, "b": -0.9}, "x,out_of_distribution,,,0.45,0.55,0,2,0,0", id="all refused"),
        pytest.param({"a": -0.2, "b": None}, "x,out_of_distribution,,,0.8,0.2,0,1,1,0", id="refused and error"),
        pytest.param({"a": None, "b": None}, "x,error,,,,,0,0,2,0", id="all errors"),
        pytest.param({"a": 0.2}, "x,ok,benign,0.8,0.8,0.2,1,0,0,1", id="one is absent"),
        pytest.param({}, "x,absent,,,,,0,0,0,2", id="all are absent"),
        pytest.param(
            {"a": 0.2, "./a": 0.4, "b": 0.4}, "x,ok,benign,0.6,0.6,0.4,2,0,0,0", id="the last row counts"
        ),
    ],
)
def test_a_lesion_is_answered_from_its_images(
    images: dict[str, float | None], expected: str, lesions: Callable[..., Lesions], tmp_path: Path
) -> None:
    """A negative probability stands for a refused image."""
    subject = lesions("a,x", "b,x")
    for name, p in images.items():
        refused = p is not None and p < 0
        subject.add(prediction(tmp_path / name, p if p is None else abs(p), refused))
    subject.write()
    assert (tmp_path / "lesions.csv").read_text().splitlines() == [HEADER, expected]
    assert subject.complete == expected.endswith(",0")


def test_lesions_keep_the_order_of_the_list_however_their_images_come(
    lesions: Callable[..., Lesions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = lesions("1,late", "2,early", '3,"a, b"', "4,late")
    for name, p in {"4": 0.9, "3": 0.1, "2": 0.3, "1": 0.7, "other": 0.5}.items():
        subject.add(prediction(tmp_path / name, p))
    subject.write()
    with (tmp_path / "lesions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["lesion"], row["p_malignant"], row["label"]) for row in rows] == [
        ("late", "0.8", "malignant"),
        ("early", "0.3", "benign"),
        ("a, b", "0.1", "benign"),
    ]
    said = capsys.readouterr().err
    assert "3 lesions: 2 benign, 1 malignant" in said
    assert "1 images are not in" in said


def test_the_threshold_is_that_of_the_images(lesions: Callable[..., Lesions], tmp_path: Path) -> None:
    subject = lesions("a,x", threshold=0.1)
    subject.add(prediction(tmp_path / "a", 0.2))
    subject.write()
    assert (tmp_path / "lesions.csv").read_text().splitlines()[1] == "x,ok,malignant,0.2,0.8,0.2,1,0,0,0"


@pytest.fixture
def options(tmp_path: Path, bundle: Path, paint: Callable[..., Path]) -> Callable[..., InferenceOptions]:
    """A request for three images of two lesions."""
    for name, level in {"a": 40, "b": 250, "c": 120}.items():
        paint(f"in/{name}.png", (level, 100, 100))
    (tmp_path / "list.csv").write_text("file,lesion\nin/a.png,x\nin/c.png,y\nin/b.png,x\n")

    def make(**changes: object) -> InferenceOptions:
        values = {"model": bundle, "output": tmp_path / "out.csv", "lesions": tmp_path / "list.csv", **changes}
        return InferenceOptions([str(tmp_path / "in")], **values)  # type: ignore[arg-type]

    return make


def test_a_run_that_goes_on_ends_with_the_same_lesions(
    options: Callable[..., InferenceOptions], tmp_path: Path
) -> None:
    assert run(options())
    whole = (tmp_path / "out.lesions.csv").read_bytes()
    assert whole.count(b"\n") == 3
    rows = (tmp_path / "out.csv").read_bytes().splitlines(keepends=True)
    for kept in (3, 2):  # the second time, the lesions are there already
        (tmp_path / "out.csv").write_bytes(b"".join(rows[:kept]))
        assert run(options(resume=True))
        assert (tmp_path / "out.lesions.csv").read_bytes() == whole


def test_a_watch_gives_its_lesions_when_it_ends(
    options: Callable[..., InferenceOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(options())
    whole = (tmp_path / "out.lesions.csv").read_bytes()

    def end(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("lesion_edge.watch.Watcher.poll", end)
    (tmp_path / "out.lesions.csv").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(options(watch=True))
    assert (tmp_path / "out.lesions.csv").read_bytes() == whole


def test_an_interrupted_run_gives_no_lesions(
    options: Callable[..., InferenceOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be answered from fewer images; --resume gives them."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lesion_edge.summary.Summary.add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(options())
    assert (tmp_path / "out.csv").exists()
    assert not (tmp_path / "out.lesions.csv").exists()


def test_json_lines_and_a_listed_image_that_is_not_there(
    options: Callable[..., InferenceOptions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "list.csv").open("a") as stream:
        stream.write("in/gone.png,y\n")
    output = tmp_path / "answers.jsonl"
    assert not run(options(format="jsonl", output=tmp_path / "out.jsonl", lesions_output=output))
    first, second = map(json.loads, output.read_text().splitlines())
    assert list(first) == HEADER.split(",")
    assert (first["lesion"], first["images"], first["absent"]) == ("x", 2, 0)
    assert (second["lesion"], second["images"], second["absent"]) == ("y", 1, 1)
    assert (
        f"1 images of {tmp_path / 'list.csv'} were not among those of the run, first " in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("file,label\na,x\n", "has no columns file,lesion; it has file, label", id="other columns"),
        pytest.param("", "has no columns file,lesion; it has $", id="empty"),
        pytest.param("file,lesion\n", "lists no images", id="a header alone"),
        pytest.param("file,lesion\na,\n", "a row without file or lesion: line 2", id="no lesion"),
        pytest.param("file,lesion\na\n", "a row without file or lesion: line 2", id="a short row"),
        pytest.param("file,lesion\na,x\n./a,y\n", r"lists ./a for two lesions \(line 3\)", id="two lesions"),
        pytest.param(None, "cannot read .*: No such file", id="no file"),
    ],
)
def test_a_wrong_list_is_refused(content: str | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "list.csv").write_text(content)
    with pytest.raises(LesionEdgeError, match=reason):
        read_lesions(tmp_path / "list.csv")


def test_a_list_may_name_an_image_twice_for_one_lesion(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("\ufefflesion,file\nx,a\nx,./a\n", encoding="utf-8")
    assert read_lesions(tmp_path / "list.csv") == {str(tmp_path / "a"): "x"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"output": None}, "--lesions needs a file to write", id="nowhere to write"),
        pytest.param({"lesions_output": "list.csv"}, "list.csv exists already", id="a file that exists"),
        pytest.param({"lesions_output": "no/lesions.csv"}, "its folder does not exist", id="no folder"),
        pytest.param({"lesions": None, "lesions_output": "x"}, "--lesions-output needs --lesions", id="no list"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    changes: dict[str, str | None], reason: str, options: Callable[..., InferenceOptions], tmp_path: Path
) -> None:
    paths = {name: value and tmp_path / value for name, value in changes.items()}
    with pytest.raises(LesionEdgeError, match=reason):
        run(options(**paths))
    assert not (tmp_path / "out.csv").exists()
