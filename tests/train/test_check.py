"""The command `lesion-check`, on files: what it reads, prints, writes and answers, without TensorFlow."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from lesion_edge.errors import LesionEdgeError
from lesion_train.check import check
from lesion_train.listing import list_labeled
from lesion_train.synthetic import write_dataset

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = "<img src=x onerror=alert(1)>.jpg"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of ten drawn images each."""
    folder = tmp_path_factory.mktemp("drawn") / "images"
    write_dataset(folder, 10, seed=5)
    return folder


@pytest.fixture
def table(images: Path, tmp_path: Path) -> Path:
    """A CSV with a fault of each kind that files alone can have."""
    for path in sorted(images.rglob("*.jpg")):
        shutil.copy(path, tmp_path / f"{path.parent.name}{path.name}")
    (tmp_path / NASTY).write_text("no image")
    with Image.open(tmp_path / "benign0001.jpg") as image:
        image.resize((100, 100)).save(tmp_path / "small.png")
    shutil.copy(tmp_path / "benign0002.jpg", tmp_path / "copy.jpg")
    rows = [f"{path.name},{path.name[:-8]},{path.name},a" for path in sorted(tmp_path.glob("*0???.jpg"))]
    rows += [f"{NASTY},benign,x,a", "small.png,benign,y,b", "copy.jpg,malignant,z,b", "gone.jpg,benign,,a"]
    rows += ["benign0003.jpg,malignant,,a", ",benign,,a"]
    path = tmp_path / "labels.csv"
    path.write_text("file,label,group,source\n" + "\n".join(rows) + "\n")
    return path


def run(*arguments: str | Path, without: str = "") -> subprocess.CompletedProcess[str]:
    hide = f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))\n"
    code = f"{hide}from lesion_train.check import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_needs_no_tensorflow_and_says_what_a_folder_cannot_tell(images: Path) -> None:
    finished = run(images, without="tensorflow keras tf2onnx onnx onnxruntime")
    assert finished.returncode == 0, finished.stderr
    header, row, *lines = finished.stdout.splitlines()
    assert header.split() == ["source", "images", "lesions", "benign", "malignant", "sides"]
    assert row.split()[:5] == ["all", "20", "20", "10", "10"]
    assert [line.split(":")[0] for line in lines if re.match("error|warning", line)] == ["warning"] * 4
    assert lines[-1] == "0 errors to mend, 4 warnings"


def test_every_fault_is_printed_and_shown(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(typer.Exit) as exit_code:
        check(table, report=page)
    assert exit_code.value.exit_code == 1
    printed = capsys.readouterr().out
    errors = re.findall(r"^error: (.*)$", printed, re.MULTILINE)
    for start in (
        "1 rows lack a file or a label, first line 27: benign",
        f"1 files do not exist below {tmp_path}, first gone.jpg (line 25)",
        "1 files are named by several rows, 1 of them under two labels, first benign0003.jpg: 'benign' (line 5), "
        "'malignant' (line 26)",
        f"1 images cannot be used, first {NASTY}: not an image",
        "1 sets of files are the same bytes and have two labels, first benign0002.jpg (benign) = copy.jpg",
        "1 sets of files are one photograph by their looks and count as different lesions, first benign0001.jpg",
    ):
        assert [error for error in errors if error.startswith(start)], (start, printed)
    content = page.read_text()
    assert content.count("data:image/jpeg;base64,") >= 6
    assert NASTY not in content
    assert html.escape(NASTY, quote=False) in content
    assert not re.search(r"https?:|src=\"(?!data:)|<script|<link", content)
    shown = html.unescape(content)
    assert [error for error in errors if error not in shown] == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_page_shows_its_images_on_a_phone(table: Path, tmp_path: Path) -> None:
    page, probe = tmp_path / "page.html", tmp_path / "probe.html"
    with pytest.raises(typer.Exit):
        check(table, report=page)
    script = (
        "<script>addEventListener('load', () => document.title = "
        "[...document.images].every((image) => image.naturalWidth) + ' ' + document.images.length + ' ' "
        "+ (document.documentElement.scrollWidth > innerWidth))</script></body>"
    )
    content = page.read_text().replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    shown = content.count("<img")
    probe.write_text(content.replace('loading="lazy"', "").replace("</body>", script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--window-size=390,900", "--virtual-time-budget=5000", "--dump-dom"]
    finished = subprocess.run(
        [str(BROWSER), *options, probe.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert f"<title>true {shown} false</title>" in finished.stdout


def test_a_split_folder_is_checked_with_its_test_part(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val", "test"):
        shutil.copytree(images, tmp_path / part)
    for number in range(10):
        for part in ("val", "test"):
            for name in ("benign", "malignant"):
                if not (part == "test" and name == "benign" and number == 0):
                    (tmp_path / part / name / f"{number:04}.jpg").unlink()
    for name, level in (("benign", 90), ("malignant", 200)):
        for part in ("val", "test"):
            Image.effect_noise((64, 64), level).save(tmp_path / part / name / "own.png")
    (tmp_path / "test" / "benign" / "scan.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "val" / "benign" / "caf\udce9.jpg").touch()
    with pytest.raises(typer.Exit):
        check(tmp_path)
    printed = capsys.readouterr().out
    assert "both sides of the split, first train/benign/0000.jpg (benign, train) = test/benign/0000.jpg" in printed
    assert "error: 1 files cannot be used, first test/benign/scan.heic" in printed
    assert "error: 1 images cannot be used, first val/benign/caf\\udce9.jpg: empty file" in printed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param({"data": "nowhere"}, "nowhere does not exist", id="no data"),
        pytest.param({"data": "labels.csv", "images": "nowhere"}, "--images .* is no folder", id="no images"),
        pytest.param({"data": "labels.csv", "report": "labels.csv"}, "exists already", id="an existing report"),
        pytest.param(
            {"data": "labels.csv", "report": "no/page.html"}, "its folder does not exist", id="no folder"
        ),
        pytest.param({"data": "empty.csv"}, "has no rows", id="no rows"),
        pytest.param({"data": "other.csv"}, "it needs the columns file,label", id="unknown columns"),
    ],
)
def test_a_wrong_request_is_refused(table: Path, tmp_path: Path, arguments: dict[str, str], reason: str) -> None:
    (tmp_path / "empty.csv").write_text("file,label\n")
    (tmp_path / "other.csv").write_text("photo,kind\na.jpg,benign\n")
    with pytest.raises(LesionEdgeError, match=reason):
        check(**{name: tmp_path / value for name, value in arguments.items()})  # type: ignore[arg-type]


def test_rows_with_another_word_for_their_part_are_left_out_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,label,split\na.jpg,x,train\nb.jpg,y,leaks\nc.jpg,y,Test\nd.jpg,x,\n"
    )
    for name in "abcd":
        (tmp_path / f"{name}.jpg").touch()
    listing = list_labeled(tmp_path / "labels.csv")
    assert [sample.file for sample in listing.samples] == ["a.jpg", "c.jpg"]
    assert listing.splits == ["train", "test"]
    assert "not checked: 1 '', 1 'leaks'" in capsys.readouterr().err
