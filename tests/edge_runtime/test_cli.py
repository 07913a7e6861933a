"""`lesion-infer` as its operator meets it: a process with arguments, streams and an exit code."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from lesion_edge import Classifier, Prediction, __version__
from lesion_edge.output import PredictionWriter

pytest.importorskip("onnxruntime")

COMMAND = [sys.executable, "-c", "from lesion_edge.cli import main; main()"]
RED, BLUE = (250, 30, 30), (20, 20, 240)
HEADER = ["path", "status", "label", "confidence", "p_benign", "p_malignant", "error"]

Paint = Callable[..., Path]
Run = subprocess.CompletedProcess[bytes]


def infer(
    *arguments: str | os.PathLike[Any],
    cwd: Path | None = None,
    stdin: bytes = b"",
    stdout: IO[Any] | int = subprocess.PIPE,
    environment: dict[str, str] | None = None,
) -> Run:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**inherited, **(environment or {})},
        timeout=60,
        check=False,
    )


def table(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images below folders named after their classes, three of them on the wrong side of a half."""
    root = tmp_path_factory.mktemp("labelled")
    for label, levels in {"benign": [0, 40, 80, 120, 220], "malignant": [90, 180, 200, 230, 250]}.items():
        (root / label).mkdir()
        for level in levels:
            Image.new("RGB", (60, 40), (level, 100, 100)).save(root / label / f"{level:03}.png")
    return root


@pytest.fixture
def mixed(paint: Paint, tmp_path: Path) -> Path:
    """A good image, a damaged one and another good one."""
    good = paint("mixed/a.png", RED)
    (tmp_path / "mixed/b.jpg").write_bytes(good.read_bytes()[:50])
    paint("mixed/c.png", BLUE)
    return tmp_path / "mixed"


def test_csv_holds_what_the_classifier_answers(bundle: Path, mixed: Path) -> None:
    run = infer(mixed, "--model", bundle)
    header, *rows = table(run.stdout)
    assert header == HEADER
    for row, prediction in zip(rows, Classifier(bundle).predict(sorted(mixed.iterdir())), strict=True):
        if prediction.status == "ok":
            values = [prediction.confidence, *prediction.probabilities.values()]
            assert row == [prediction.path, "ok", prediction.label, *(str(round(v or 0, 6)) for v in values), ""]
        else:
            assert row == [prediction.path, "error", "", "", "", "", prediction.error]
    assert [row[1] for row in rows] == ["ok", "error", "ok"]
    assert b"\r" not in run.stdout
    assert run.returncode == 1


def test_json_lines_hold_the_same_as_csv(bundle: Path, mixed: Path, tmp_path: Path) -> None:
    rows = table(infer(mixed, "--model", bundle).stdout)
    run = infer(mixed, "--model", bundle, "--format", "jsonl", "--output", tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [HEADER] * 3
    as_text = [["" if value is None else str(value) for value in line.values()] for line in lines]
    assert as_text == rows[1:]
    assert lines[1]["label"] is lines[1]["p_benign"] is None
    assert lines[0]["error"] is None
    assert run.stdout == b""


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_refused_image_is_a_row_without_label_and_no_failure(scored_bundle: Path, paint: Paint, kind: str) -> None:
    folder = paint("in/a.png", RED).parent
    paint("in/b.png", BLUE)  # 240 of blue, and the limit is 200
    run = infer(folder, "--model", scored_bundle, "--format", kind)
    if kind == "csv":
        header, *rows = table(run.stdout)
    else:
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        header = list(lines[0])
        rows = [["" if value is None else str(value) for value in line.values()] for line in lines]
    assert header == HEADER
    assert [row[1:4] for row in rows] == [["ok", "malignant", "0.987872"], ["out_of_distribution", "", ""]]
    assert [float(value) for value in rows[1][4:6]] == pytest.approx([0.90025, 0.09975], abs=1e-5)
    assert rows[1][6] == ""
    assert run.returncode == 0
    assert run.stderr == b"2 images on cpu (int8): 1 malignant, 1 out_of_distribution\n"


def test_columns_follow_the_classes_of_the_bundle(bundle3: Path, paint: Paint) -> None:
    run = infer(paint("a.png", (10, 200, 10)), "--model", bundle3)
    header, row = table(run.stdout)
    assert header == ["path", "status", "label", "confidence", "p_red", "p_green", "p_blue", "error"]
    assert row[2] == "green"


def test_all_is_well(bundle: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    run = infer(folder, "--model", bundle, "--output", output, "--threads", "2", "--batch-size", "3")
    _, *rows = table(output.read_bytes())
    assert run.returncode == 0
    assert [row[0] for row in rows] == [str(path) for path in sorted(folder.rglob("*.png"))]
    assert run.stdout == b""
    assert run.stderr == b"10 images on cpu (int8): 6 malignant, 4 benign\n"


def test_dicom_without_its_extra_is_an_error_row_that_names_it(bundle: Path, mixed: Path, tmp_path: Path) -> None:
    (mixed / "d.dcm").write_bytes(bytes(128) + b"DICM" + bytes(99))
    without = tmp_path / "without" / "pydicom"
    without.mkdir(parents=True)
    (without / "__init__.py").write_text("raise ImportError")
    environment = {"PYTHONPATH": os.pathsep.join([str(without.parent), os.environ.get("PYTHONPATH", "")])}
    run = infer(mixed, "--model", bundle, environment=environment)
    assert table(run.stdout)[-1][-1] == 'DICOM needs pydicom: pip install "lesion-edge[dicom]"'
    assert run.returncode == 1
    refused = infer(mixed, "--model", bundle, "--sr", tmp_path / "sr", environment=environment)
    assert refused.stderr == b'lesion-infer: DICOM needs pydicom: pip install "lesion-edge[dicom]"\n'
    assert (refused.returncode, refused.stdout) == (2, b"")


WRONG: list[Any] = [
    pytest.param(["{images}", "--model", "gone"], "gone is not a bundle", id="no such bundle"),
    pytest.param(["{images}", "--model", "{images}"], "is not a bundle", id="a folder that is no bundle"),
    pytest.param(["gone.png", "--model", "{model}"], "gone.png does not exist", id="no such image"),
    pytest.param(["{empty}", "--model", "{model}"], "no images in", id="a folder without images"),
    pytest.param(["-", "--model", "{model}"], "no images in -", id="an empty list"),
    pytest.param(
        ["{images}", "--model", "{model}", "--variant", "fp16"], "no variant 'fp16'", id="variant not there"
    ),
    pytest.param(
        ["{images}", "--model", "{model}", "--device", "directml"],
        "no DmlExecutionProvider",
        id="device not there",
    ),
    pytest.param(
        ["{images}", "--model", "{model}", "--output", "gone/a.csv"],
        "cannot write gone/a.csv",
        id="no such folder",
    ),
    pytest.param(
        ["{images}", "--model", "{model}", "--heatmaps", "{images}/heat"],
        "lies inside",
        id="heat maps among the images",
    ),
    pytest.param(["{images}", "--model", "{model}", "--device", "gpu"], "--device", id="unknown device"),
    pytest.param(["{images}", "--model", "{model}", "--format", "xml"], "--format", id="unknown format"),
    pytest.param(["{images}", "--model", "{model}", "--threads", "0"], "--threads", id="no threads"),
    pytest.param(["{images}", "--model", "{model}", "--batch-size", "0"], "--batch-size", id="no batch"),
    pytest.param(["{images}", "--model", "{model}", "--threshold", "2"], "--threshold", id="threshold"),
    pytest.param(["{images}", "--model", "{model}", "--quick"], "--quick", id="unknown option"),
    pytest.param([], "PATH", id="nothing at all"),
]


@pytest.mark.parametrize(("arguments", "reason"), WRONG)
def test_wrong_request_ends_with_2_and_one_reason(
    bundle: Path, folder: Path, tmp_path: Path, arguments: Sequence[str], reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"images": folder, "model": bundle, "empty": tmp_path / "empty"}
    run = infer(*(argument.format(**places) for argument in arguments), cwd=tmp_path)
    *usage, last = filter(None, run.stderr.decode().splitlines())
    assert run.returncode == 2
    assert reason in last
    assert [line.split()[0] for line in usage] in ([], ["Usage:", "Try"]), "at most how it is called"
    assert run.stdout == b""
    assert [path.name for path in tmp_path.iterdir()] == ["empty"], "nothing is written"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
def test_questions_are_answered(arguments: list[str]) -> None:
    run = infer(*arguments)
    assert run.returncode == 0
    assert run.stderr == b""
    if arguments == ["--version"]:
        assert run.stdout.decode() == f"lesion-edge {__version__}\n"
    else:
        assert b"--evaluate" in run.stdout


@pytest.mark.parametrize(
    ("words", "completed"), [(["--thr"], {"--threads", "--threshold"}), (["--variant", "fp"], {"fp16", "fp32"})]
)
def test_bash_completes_options_and_their_values(words: list[str], completed: set[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = infer("--completion", "bash").stdout.decode()
    ask = f"COMP_WORDS=(lesion-infer {' '.join(words)}); COMP_CWORD={len(words)}; _shtab_lesion_infer"
    shell = subprocess.run(
        [bash, "-c", f'{script}\n{ask}\necho "${{COMPREPLY[@]}}"'], capture_output=True, check=True
    )
    assert set(shell.stdout.decode().split()) == completed


def test_output_that_exists_is_left_alone(bundle: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    output.write_text("precious")
    run = infer(folder, "--model", bundle, "--output", output)
    assert run.returncode == 2
    assert run.stderr.decode().splitlines() == [
        f"lesion-infer: {output} exists already: choose another --output or remove it"
    ]
    assert output.read_text() == "precious"


def test_evaluation_compares_with_the_folder_names(bundle: Path, folder: Path) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    run = infer(folder, "--model", bundle, "--evaluate")
    _, *rows = table(run.stdout)
    labels = [Path(row[0]).parent.name == "malignant" for row in rows]
    predicted_positive = [row[2] == "malignant" for row in rows]
    table_lines = [line.split() for line in run.stderr.decode().splitlines()]
    figures = {line[0]: line[1] for line in table_lines if len(line) in (2, 4)}
    assert run.returncode == 0
    assert figures["images"] == "10"
    for name, value in {
        "accuracy": reference.accuracy_score(labels, predicted_positive),
        "precision": reference.precision_score(labels, predicted_positive),
        "f1": reference.f1_score(labels, predicted_positive),
        "sensitivity": reference.recall_score(labels, predicted_positive),
        "roc_auc": reference.roc_auc_score(labels, [float(row[5]) for row in rows]),
    }.items():
        assert figures[name] == f"{value:.3f}", name
    matrix = reference.confusion_matrix(labels, predicted_positive)
    assert [line[1:] for line in table_lines[-2:]] == [[str(count) for count in row] for row in matrix]


def test_evaluation_counts_the_images_without_a_truth(bundle: Path, paint: Paint) -> None:
    run = infer(paint("elsewhere/a.png", RED).parent, "--model", bundle, "--evaluate")
    assert "not compared: 1 images whose folder is not called like a class" in run.stderr.decode()
    assert "undefined" in run.stderr.decode()
    assert run.returncode == 1


@pytest.mark.parametrize(("threshold", "malignant"), [("0", 10), ("0.5", 6), ("0.9", 3), ("1", 0)])
def test_threshold_moves_the_label_and_not_the_probability(
    bundle: Path, folder: Path, threshold: str, malignant: int
) -> None:
    _, *rows = table(infer(folder, "--model", bundle, "--threshold", threshold).stdout)
    assert [row[2] for row in rows].count("malignant") == malignant
    for row in rows:
        assert (row[2] == "malignant") == (float(row[5]) >= float(threshold))
        assert row[3] == (row[5] if row[2] == "malignant" else row[4])


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="as it is"),
        pytest.param({"PYTHONIOENCODING": "utf-8:strict"}, id="the usual locale of a desktop"),
    ],
)
def test_any_file_name_comes_out_byte_for_byte(
    bundle: Path, paint: Paint, tmp_path: Path, environment: dict[str, str]
) -> None:
    names = [
        b"-rf.png",
        b"=1+1.png",
        b"a,b.png",
        b"caf\xe9.png",
        b"line\nbreak.png",
        b'quote".png',
        "\u00e9.png".encode(),
    ]
    content = paint("source/a.png", RED).read_bytes()
    (tmp_path / "images").mkdir()
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path / "images"), name), "wb") as file:
            file.write(content)
    run = infer("images", "--model", bundle, cwd=tmp_path, environment=environment)
    paths = [os.fsencode(row[0]) for row in table(run.stdout)[1:]]
    assert paths == [b"images/" + name for name in names]
    assert run.returncode == 0

    listable = [path for path in paths if b"\n" not in path]
    again = infer("-", "--model", bundle, cwd=tmp_path, stdin=b"\n".join(listable), environment=environment)
    assert [os.fsencode(row[0]) for row in table(again.stdout)[1:]] == listable
    assert (again.returncode, b"Traceback" in again.stderr) == (0, False)

    infer("images", "--model", bundle, "--output", "answers.csv", cwd=tmp_path, environment=environment)
    assert (tmp_path / "answers.csv").read_bytes() == run.stdout

    lines = infer("images", "--model", bundle, "--format", "jsonl", cwd=tmp_path, environment=environment).stdout
    assert [os.fsencode(json.loads(line)["path"]) for line in lines.splitlines()] == paths


def test_paths_stand_anywhere_and_behind_two_dashes_may_begin_with_one(
    bundle: Path, paint: Paint, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png", "-c.png"):
        paint(name, RED)
    run = infer("a.png", "--model", bundle, "b.png", "--", "-c.png", "a.png", cwd=tmp_path)
    assert [row[0] for row in table(run.stdout)[1:]] == ["a.png", "b.png", "-c.png", "a.png"]
    assert run.returncode == 0


def test_carriage_return_in_a_name_does_not_end_its_row(bundle: Path, paint: Paint) -> None:
    path = paint("a\rb.png", RED)
    rows = table(infer(path, "--model", bundle).stdout)
    assert [row[0] for row in rows] == ["path", str(path)]


def test_list_on_standard_input(bundle: Path, folder: Path) -> None:
    paths = [folder / "malignant/250.png", folder / "gone.png", folder / "benign/000.png"]
    run = infer("-", "--model", bundle, stdin="".join(f"{path}\n" for path in paths).encode())
    _, *rows = table(run.stdout)
    assert [row[0] for row in rows] == [str(path) for path in paths]
    assert [row[2] for row in rows] == ["malignant", "", "benign"]
    assert rows[1][-1] == "no such file"
    assert run.returncode == 1


def test_list_is_answered_line_by_line(bundle: Path, folder: Path) -> None:
    """A program that waits for a row before it names the next image is not kept waiting."""
    paths = [folder / "malignant/250.png", folder / "gone.png", folder / "benign/000.png"]
    with subprocess.Popen(
        [*COMMAND, "-", str(folder / "benign"), "--model", str(bundle), "--threads", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin
        assert process.stdout
        for number, path in enumerate(paths):
            process.stdin.write(f"{path}\n".encode())
            process.stdin.flush()
            if number == 0:
                assert process.stdout.readline().startswith(b"path,")
            assert process.stdout.readline().startswith(str(path).encode())
        process.stdin.close()
        assert len(process.stdout.readlines()) == 5, "the folder behind the list"


def test_reader_that_has_seen_enough_ends_the_run_quietly(bundle: Path, folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        run = infer(folder, "--model", bundle, stdout=pipe)
    assert run.stderr == b""
    assert run.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_full_disk_is_one_line_and_2(bundle: Path, folder: Path, kind: str) -> None:
    with open("/dev/full", "wb") as full:
        run = infer(folder, "--model", bundle, "--format", kind, stdout=full)
    assert run.stderr == b"lesion-infer: cannot write standard output: No space left on device\n"
    assert run.returncode == 2


def test_disk_that_fills_up_under_the_output_is_one_line_and_2(bundle: Path, folder: Path, tmp_path: Path) -> None:
    code = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (200, r.getrlimit(r.RLIMIT_FSIZE)[1])); "
    output = tmp_path / "answers.csv"
    run = subprocess.run(
        [sys.executable, "-c", code + COMMAND[2], folder, "--model", bundle, "--output", output],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert run.stderr == f"lesion-infer: cannot write {output}: File too large\n".encode()
    assert run.returncode == 2
    content = output.read_bytes()
    assert content.endswith(b"\n")
    assert [len(row) for row in table(content)] == [len(HEADER)] * 2, "whole rows alone"


def test_interrupted_run_keeps_what_is_finished_and_ends_with_130(bundle: Path, folder: Path) -> None:
    arguments = ["-", "--model", str(bundle), "--threads", "1"]
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(f"{folder}/benign/000.png\n".encode() * 4)
        process.stdin.flush()
        # Its answer is out, so the run now waits for the list to go on.
        first = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGINT)
        remaining, reasons = process.stdout.read(), process.stderr.read()
        process.stdin.close()
    rows = table(first + remaining)
    assert rows[0] == HEADER
    assert [row[1] for row in rows[1:]] == ["ok"] * len(rows[1:])
    assert rows[1:]
    assert all(len(row) == len(HEADER) for row in rows)
    assert b"Traceback" not in reasons
    assert process.returncode == 130


def test_image_far_over_the_size_limit_is_an_error_row_without_a_warning(
    bundle: Path, paint: Paint, tmp_path: Path
) -> None:
    path = tmp_path / "scan.png"
    Image.fromarray(np.zeros((10001, 10000), np.uint8)).convert("1").save(path)
    run = infer(path, "--model", bundle)
    assert table(run.stdout)[1][-1] == "too large: 10000x10001 pixels, limit 100000000"
    assert len(run.stderr.splitlines()) == 1
    assert run.returncode == 1


def closed(stream: int, *arguments: str | os.PathLike[Any]) -> Run:
    """Run the command with one of its standard streams closed."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=stream == 0,
        timeout=60,
        check=False,
        preexec_fn=lambda: os.close(stream),
    )


def test_closed_standard_input_is_one_sentence_and_2(bundle: Path) -> None:
    run = closed(0, "-", "--model", bundle)
    assert run.stderr == b"lesion-infer: standard input is closed: - needs a list of images there\n"
    assert run.returncode == 2


def test_closed_standard_input_does_not_matter_to_a_folder(bundle: Path, folder: Path) -> None:
    assert len(table(closed(0, folder, "--model", bundle).stdout)) == 11


@pytest.mark.parametrize("closed_stream", ["closed", "without a reader"])
def test_standard_error_that_nobody_reads_costs_no_row(
    bundle: Path, folder: Path, tmp_path: Path, closed_stream: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments: list[Any] = [*COMMAND, folder, "--model", bundle, "--output", tmp_path / "out.csv"]
    with open(writing, "wb") as pipe:
        run = subprocess.run(
            arguments,
            stdout=subprocess.PIPE,
            stderr=pipe,
            timeout=60,
            check=False,
            preexec_fn=(lambda: os.close(2)) if closed_stream == "closed" else None,
        )
    assert len(table((tmp_path / "out.csv").read_bytes())) == 11
    assert run.stdout == b""
    assert run.returncode == 0


def test_pipe_that_never_waits_loses_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b"." * 4096)
    with open(writing, "w") as pipe, open(reading, "rb") as reader, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(sys, "stdout", pipe)
        writing_rows = pool.submit(lambda: PredictionWriter(None, "csv", ["b", "m"]).add(Prediction(path="a")))
        assert reader.read(filled) == b"." * filled
        writing_rows.result(30)
        pipe.close()
        assert reader.read() == b"path,status,label,confidence,p_b,p_m,error\na,out_of_distribution,,,,,\n"


def test_closed_standard_output_is_2(bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert closed(1, folder, "--model", bundle).returncode == 2
    assert capfd.readouterr().err == "lesion-infer: standard output is closed: name a file with --output\n"


def test_overlay_that_cannot_be_written_is_named(bundle: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = infer(folder, "--model", bundle, "--heatmaps", tmp_path / "file")
    assert run.stderr.startswith(f"lesion-infer: cannot write {tmp_path / 'file'}".encode())
    assert run.returncode == 2


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_terminal_shows_a_summary_with_the_rate(bundle: Path, folder: Path, tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    with os.fdopen(screen, "rb") as shown:
        run = subprocess.run(
            [*COMMAND, folder, "--model", bundle, "--output", tmp_path / "out.csv"],
            stderr=terminal,
            timeout=60,
            check=False,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(terminal)
        text = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while part := shown.read1():
                text += part
    assert run.returncode == 0
    assert re.search(rb"10 images; 10 in [\d.]+ s, [\d.]+ images/s on cpu \(int8\)", text)
    assert re.search(rb"images: .*/s", text), "the bar was there"


def test_every_kind_of_failure_is_a_row_and_the_rest_goes_on(bundle: Path, paint: Paint, tmp_path: Path) -> None:
    good = paint("in/a.png", RED)
    folder = good.parent
    (folder / "b cut.png").write_bytes(good.read_bytes()[:-20])
    (folder / "c empty.jpg").touch()
    (folder / "d text.jpg").write_text("a letter")
    bomb = good.read_bytes()[:16] + (50_000).to_bytes(4, "big") * 2 + good.read_bytes()[24:]
    (folder / "e bomb.png").write_bytes(bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:])
    (folder / "f gone.png").symlink_to("nowhere")
    (folder / "g itself.png").symlink_to("g itself.png")
    (folder / "h loop").symlink_to("..")
    os.mkfifo(folder / "i pipe.png")
    (folder / "j device.png").symlink_to("/dev/zero")
    (folder / "k other.png").write_bytes(b"P6 1 1 255\nabc")
    paint("in/z.png", BLUE)
    run = infer(folder, "--model", bundle, "--threads", "3")
    assert {os.path.basename(row[0]): row[-1].split(" (")[0] for row in table(run.stdout)[1:]} == {
        "a.png": "",
        "b cut.png": "damaged or truncated",
        "c empty.jpg": "empty file",
        "d text.jpg": "not an image in an accepted format",
        "e bomb.png": "too large: more than 100000000 pixels",
        "f gone.png": "no such file",
        "g itself.png": "cannot be read",
        "i pipe.png": "not a regular file",
        "j device.png": "not a regular file",
        "k other.png": "not an image in an accepted format",
        "z.png": "",
    }
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1


def test_image_that_vanishes_or_is_forbidden_during_the_run_is_a_row(
    bundle: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [paint(f"{name}.png", RED) for name in "abc"]

    def vanishing() -> Iterator[Path]:
        for path in paths:
            if path.stem == "b":
                path.unlink()
            yield path

    assert [p.error for p in Classifier(bundle).predict(vanishing())] == [None, "no such file", None]
    genuine = open

    def forbid(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path) == str(paths[0]):
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", forbid)
    assert [p.error for p in Classifier(bundle).predict(paths[::2])] == ["no permission to read it", None]
