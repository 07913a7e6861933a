"""An audit log tells what was answered, and which line somebody touched."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lesion_edge import Classifier
from lesion_edge.audit import FIRST, AuditLog, verify_audit
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from tests.conftest import FinishedCommand

pytest.importorskip("onnxruntime")
IMAGES = {"red": (250, 60, 60), "blue": (60, 60, 250), "green": (60, 250, 60), "dark": (30, 20, 20)}


@pytest.fixture
def images(paint: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Four images, the second of them out of distribution for `scored_bundle`, and a broken one."""
    (tmp_path / "broken.png").write_text("no image")
    return [*(paint(f"{name}.png", color) for name, color in IMAGES.items()), tmp_path / "broken.png"]


def record(
    log: Path, classifier: Classifier, images: list[Path], with_paths: bool = False
) -> list[dict[str, Any]]:
    with AuditLog(log, classifier, with_paths) as audit:
        for prediction in classifier.predict(images, digest=True):
            audit.add(prediction)
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_line_says_who_answered_what(scored_bundle: Path, images: list[Path], tmp_path: Path) -> None:
    classifier = Classifier.load(scored_bundle, "cpu", threshold=0.5)
    lines = record(tmp_path / "log", classifier, images)
    assert [line["status"] for line in lines] == ["ok", "out_of_distribution", "ok", "ok", "error"]
    assert [line["label"] for line in lines] == ["malignant", None, "benign", "malignant", None]
    assert [line["image"] for line in lines] == [hashlib.sha256(p.read_bytes()).hexdigest() for p in images]
    for number, (line, prediction) in enumerate(zip(lines, classifier.predict(images), strict=True), start=1):
        assert line["audit"] == number
        assert line["probability"] == prediction.probabilities.get("malignant")
        assert line["bundle"] == classifier.manifest.digest
        assert (line["site"], line["variant"], line["device"], line["threshold"]) == (None, "int8", "cpu", 0.5)
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
        assert "path" not in line
    assert [line["previous"] for line in lines] == [FIRST, *(line["digest"] for line in lines[:-1])]
    assert verify_audit(tmp_path / "log") == (5, lines[-1]["digest"])


def test_log_is_appended_to_and_names_paths_by_choice(bundle: Path, images: list[Path], tmp_path: Path) -> None:
    classifier = Classifier.load(bundle)
    record(tmp_path / "log", classifier, images[:2])
    lines = record(tmp_path / "log", classifier, images[2:], with_paths=True)
    assert [line.get("path") for line in lines] == [None, None, *map(str, images[2:])]
    assert verify_audit(tmp_path / "log")[0] == 5


def test_image_that_cannot_be_read_has_no_digest(bundle: Path, tmp_path: Path) -> None:
    (line,) = record(tmp_path / "log", Classifier.load(bundle), [tmp_path / "gone\udcff.png"], with_paths=True)
    assert (line["image"], line["status"], line["error"]) == (None, "error", "no such file")
    assert line["path"].endswith("gone\ufffd.png")


def swap(lines: list[bytes], one: int, other: int) -> None:
    lines[one], lines[other] = lines[other], lines[one]


def change(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'"benign"', b'"malignant"')


def change_with_digest(lines: list[bytes]) -> None:
    from lesion_edge.manifest import canonical_json, digest_of

    entry = json.loads(lines[2])
    del entry["digest"]
    entry["label"] = "malignant"
    lines[2] = canonical_json({**entry, "digest": digest_of(entry)}) + b"\n"


EDITS: list[Any] = [
    pytest.param(change, "line 3 was changed", id="changed"),
    pytest.param(
        change_with_digest, "line 3 was changed: line 4 does not follow it", id="changed, digest made to fit"
    ),
    pytest.param(lambda lines: lines.pop(1), "line 2 was removed or moved: line 3 stands", id="removed"),
    pytest.param(lambda lines: lines.pop(0), "line 1 was removed or moved: line 2 stands", id="first removed"),
    pytest.param(lambda lines: swap(lines, 1, 3), "line 2 was removed or moved: line 4 stands", id="swapped"),
    pytest.param(lambda lines: lines.insert(2, lines[1]), "line 3 is line 2 of this log", id="repeated"),
    pytest.param(lambda lines: lines.insert(2, b"\n"), "line 3 was changed", id="empty line"),
    pytest.param(lambda lines: lines.insert(2, b"{}\n"), "line 3 was changed", id="another line"),
    pytest.param(lambda lines: lines.append(lines.pop()[:-9]), "line 5 is not whole", id="torn"),
]


@pytest.mark.parametrize(("edit", "reason"), EDITS)
def test_first_line_that_somebody_touched_is_named(
    edit: Callable[[list[bytes]], object], reason: str, bundle: Path, images: list[Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    record(log, Classifier.load(bundle, threshold=0.5), images)
    lines = log.read_bytes().splitlines(keepends=True)
    edit(lines)
    log.write_bytes(b"".join(lines))
    with pytest.raises(LesionEdgeError, match=reason):
        verify_audit(log)


def test_every_changed_byte_is_noticed(bundle: Path, images: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    record(log, Classifier.load(bundle), images[:2])
    content = log.read_bytes()
    for place in range(len(content)):
        log.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(LesionEdgeError, match=r"line [12]"):
            verify_audit(log)


@pytest.mark.parametrize("keep", [1, 5, 9, 40, -1])
def test_torn_last_line_is_mended_and_said(
    keep: int, bundle: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, classifier = tmp_path / "log", Classifier.load(bundle)
    record(log, classifier, images[:2])
    whole = log.read_bytes()
    record(log, classifier, images[2:3])
    torn = log.read_bytes()[len(whole) :][:keep]
    log.write_bytes(whole + torn)
    capsys.readouterr()
    lines = record(log, classifier, images[2:])
    assert f"its last line was not whole and is removed ({len(torn)} bytes)" in capsys.readouterr().err
    assert verify_audit(log) == (5, lines[-1]["digest"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"path,status\n", "its last line was changed", id="a table"),
        pytest.param(b"notes without an end", "is no audit log", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(300_000), "is no audit log", id="an image"),
        pytest.param(b'{}\n{"au', "its last line was changed", id="another log, torn"),
    ],
)
def test_file_that_is_no_log_stays_as_it_is(content: bytes, reason: str, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(LesionEdgeError, match=reason):
        AuditLog(tmp_path / "log", Classifier.load(bundle))
    assert (tmp_path / "log").read_bytes() == content


def test_log_belongs_to_one_run_at_a_time(bundle: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(bundle)
    with AuditLog(tmp_path / "log", classifier), pytest.raises(LesionEdgeError, match="in use by another run"):
        AuditLog(tmp_path / "log", classifier)
    AuditLog(tmp_path / "log", classifier).__exit__()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_place_that_takes_nothing_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match="cannot write --audit"):
        AuditLog(tmp_path / "no" / "log", Classifier.load(bundle))


def test_command_writes_and_verifies(
    bundle: Path, images: list[Path], tmp_path: Path, command: Callable[..., FinishedCommand]
) -> None:
    log, rows = tmp_path / "log", tmp_path / "rows.csv"
    finished = command(
        "lesion-infer", *images, "--model", bundle, "--output", rows, "--audit", log, "--audit-paths"
    )
    assert finished.returncode == 1, finished.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["path"] for line in lines] == list(map(str, images))
    finished = command("lesion-infer", "--verify-audit", log)
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr.startswith(f"{log}: 5 lines, none changed")
    assert lines[-1]["digest"] in finished.stderr
    log.write_bytes(log.read_bytes().replace(b'"ok"', b'"no"', 1))
    finished = command("lesion-infer", "--verify-audit", log)
    assert (finished.returncode, finished.stderr) == (2, f"lesion-infer: {log}: line 1 was changed\n")
    assert command("lesion-infer", tmp_path, "--audit-paths").returncode == 2


ANSWER_FOR_EVER = """
import itertools, sys
from pathlib import Path
from lesion_edge import Classifier
from lesion_edge.audit import AuditLog
with AuditLog(Path(sys.argv[2]), classifier := Classifier.load(sys.argv[1], "cpu", 1)) as audit:
    for prediction in classifier.predict(itertools.repeat(sys.argv[3])):
        audit.add(prediction)
        print(flush=True)
"""


def test_killed_run_leaves_a_log_that_goes_on(bundle: Path, images: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(3):
        arguments = [sys.executable, "-c", ANSWER_FOR_EVER, *map(str, (bundle, log, images[0]))]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            for _ in range(20):
                assert running.stdout.readline()
            running.send_signal(signal.SIGKILL)
    AuditLog(log, Classifier.load(bundle)).__exit__()
    assert verify_audit(log)[0] >= 60
