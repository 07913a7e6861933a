"""A camera writes into a folder: each complete file once, none before its time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier, LesionEdgeError, Prediction
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.inference import run
from lesion_edge.inference_options import InferenceOptions
from lesion_edge.resume import stamp_of
from lesion_edge.watch import Pace, Watcher

pytest.importorskip("onnxruntime")

PACE = Pace()


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "camera").mkdir()
    return tmp_path / "camera"


def answer(path: Path | str, error: str | None = None) -> Prediction:
    return Prediction(path=str(path), label=None if error else "benign", error=error)


def test_file_is_tried_once_it_has_not_changed_for_a_while(folder: Path, clock: Clock) -> None:
    watcher = Watcher([str(folder)], {}, clock=clock)
    path = folder / "a.jpg"
    path.write_bytes(b"1")
    assert watcher.poll() == []
    clock.sleep(PACE.settled - 0.1)
    path.write_bytes(b"12")
    assert watcher.poll() == [], "it grew"
    clock.sleep(PACE.settled - 0.1)
    os.utime(path, ns=(1, 1))
    assert watcher.poll() == [], "it was written to"
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(path)]
    assert watcher.accept(answer(path))
    assert watcher.poll() == [], "it has its row"


def test_unusable_file_gets_its_row_only_when_it_has_stopped_changing_for_long(folder: Path, clock: Clock) -> None:
    watcher = Watcher([str(folder)], {}, clock=clock)
    path = folder / "slow.jpg"
    path.write_bytes(b"1")
    watcher.poll()
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(path)]
    assert not watcher.accept(answer(path, "truncated"))
    path.write_bytes(b"12")
    clock.sleep(PACE.patience)
    assert watcher.poll() == [], "the rest is coming"
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(path)]
    assert not watcher.accept(answer(path, "truncated"))
    clock.sleep(PACE.patience)
    assert watcher.poll() == [str(path)]
    assert watcher.accept(answer(path, "truncated"))
    assert watcher.poll() == []


def test_refused_image_is_finished_at_once(folder: Path, clock: Clock) -> None:
    watcher = Watcher([str(folder)], {}, clock=clock)
    path = folder / "cat.jpg"
    path.write_bytes(b"1")
    watcher.poll()
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(path)]
    assert watcher.accept(Prediction(path=str(path), probabilities={"benign": 0.9, "malignant": 0.1}))
    assert watcher.poll() == []


def test_what_is_done_vanished_or_no_image_is_passed_over(folder: Path, clock: Clock) -> None:
    for name in ("done.jpg", "gone.jpg", "notes.txt", ".hidden.jpg", "new.jpg"):
        (folder / name).write_bytes(b"1")
    watcher = Watcher([str(folder)], {str(folder / "done.jpg"): None}, clock=clock)
    watcher.poll()
    os.remove(folder / "gone.jpg")
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(folder / "new.jpg")]


def test_overwritten_file_is_answered_again_and_said(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "latest.jpg"
    path.write_bytes(b"1")
    watcher = Watcher([str(folder)], {str(path): stamp_of(str(path))}, clock=clock)
    clock.sleep(PACE.settled)
    assert watcher.poll() == [], "it has its row"
    path.write_bytes(b"22")
    assert watcher.poll() == []
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(path)]
    assert watcher.accept(answer(path))
    assert capsys.readouterr().err == f"{path} has changed since its row was written: answered again\n"
    assert watcher.poll() == []


def test_folder_that_is_away_for_a_while_is_waited_for(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.jpg").write_bytes(b"1")
    watcher = Watcher([str(folder)], {str(folder / "a.jpg"): None}, clock=clock)
    watcher.poll()
    away = folder.rename(folder.with_name("away"))
    assert watcher.poll() == watcher.poll() == []
    assert capsys.readouterr().err == f"{folder} is not there any more: waiting for it\n"
    away.rename(folder)
    (folder / "b.jpg").write_bytes(b"1")
    watcher.poll()
    clock.sleep(PACE.settled)
    assert watcher.poll() == [str(folder / "b.jpg")], "a.jpg has its row still"


def test_watch_on_a_missing_folder_is_refused_before_anything_is_written(bundle: Path, tmp_path: Path) -> None:
    options = InferenceOptions([str(tmp_path / "gone")], model=bundle, output=tmp_path / "out.csv", watch=True)
    with pytest.raises(LesionEdgeError, match="gone does not exist"):
        run(options)
    assert list(tmp_path.iterdir()) == []


def test_predictions_come_as_the_files_do(bundle: Path, folder: Path, clock: Clock) -> None:
    """The camera: a whole image, then half of one, whose other half comes later, and one that stays broken."""
    Image.new("RGB", (40, 40), (240, 20, 20)).save(folder / "a.png")
    content = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(content[:60])
    (folder / "c.png").write_bytes(content[:60])
    watcher = Watcher([str(folder)], {}, clock=clock)
    naps = 0

    def sleep(seconds: float) -> None:
        nonlocal naps
        naps += 1
        clock.sleep(seconds)
        if naps == 10:
            (folder / "b.png").write_bytes(content)

    predictions = list(islice(watcher.predictions(Classifier(bundle).predict, sleep), 3))
    assert [(Path(p.path).name, p.status) for p in predictions] == [
        ("a.png", "ok"),
        ("b.png", "ok"),
        ("c.png", "error"),
    ]
    assert clock.now >= PACE.patience


WATCH = """
import sys
from pathlib import Path
from lesion_edge.console import exit_codes
from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.inference import run
from lesion_edge.inference_options import InferenceOptions
from lesion_edge.watch import Pace
folder, model, output = sys.argv[1:]
with exit_codes("lesion-infer"):
    pace = Pace(settled=0.05, interval=0.05)
    run(InferenceOptions([folder], Path(model), Path(output), watch=True, pace=pace, evaluate=True))
"""


def test_restart_goes_on_with_the_output(bundle: Path, folder: Path, tmp_path: Path) -> None:
    """Two watches in a row, each ended with Ctrl-C, give each file one row."""
    output = tmp_path / "out.csv"
    for number in (1, 2):
        Image.new("RGB", (40, 40), (100 * number, 20, 20)).save(folder / f"{number}.png")
        with subprocess.Popen(
            [sys.executable, "-c", WATCH, folder, bundle, output],
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            while not output.exists() or len(output.read_bytes().splitlines()) < number + 1:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.02)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr
            said = process.stderr.read().decode()
            assert said.startswith(f"{number} images on cpu")
            assert f"not compared: {number} images" in said, "it is evaluated at the end"
    paths = [line.split(",")[0] for line in output.read_text().splitlines()[1:]]
    assert paths == [str(folder / "1.png"), str(folder / "2.png")]


@pytest.mark.skipif(not SHIPPED_BUNDLE.is_dir(), reason="no model ships with this checkout")
def test_replaced_bundle_is_said_once_and_not_taken(
    folder: Path, clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, later = tmp_path / "bundle", tmp_path / "later"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    shutil.copytree(SHIPPED_BUNDLE, later)
    os.utime(later / "manifest.json", ns=(1, 1))
    classifier = Classifier.load(bundle, "cpu")
    watcher = Watcher([str(folder)], {}, PACE, classifier.manifest_file, clock)
    watcher.poll()
    shutil.rmtree(bundle)
    watcher.poll()
    assert capsys.readouterr().err == "", "half-way through an exchange"
    later.rename(bundle)
    watcher.poll()
    watcher.poll()
    said = capsys.readouterr().err
    assert said.startswith(f"{bundle / 'manifest.json'} was replaced: --watch goes on with the one it began with")
    assert said.count("\n") == 1
    (prediction,) = classifier.predict([np.zeros((8, 8, 3), np.uint8)])
    assert prediction.error is None
