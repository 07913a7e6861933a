"""Structured reports say what the rows say, of the image or frame they come from, and other tools read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesion_edge import Classifier, LesionEdgeError, Prediction
from lesion_edge.inference import run
from lesion_edge.inference_options import InferenceOptions

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("onnxruntime")

from lesion_edge.structured_report import StructuredReportWriter  # noqa: E402
from tests.edge_runtime.test_dicom import RGB, dataset, encoded, png  # noqa: E402


@pytest.fixture
def reports(scored_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """Reports of a dermoscopic image, of two frames and of an image that is out of distribution.

    Two more images get none, which is said.
    """
    images = tmp_path / "in"
    (images / "sub").mkdir(parents=True)
    (images / "sub" / "a.dcm").write_bytes(encoded(dataset(RGB, "RGB")))
    levels = np.full((2, 40, 40, 3), 100, np.uint8)
    true_color = pydicom.uid.MultiFrameTrueColorSecondaryCaptureImageStorage
    (images / "m.dcm").write_bytes(encoded(dataset(levels, "RGB", SOPClassUID=true_color)))
    blue = np.full((40, 40, 3), (100, 100, 240), np.uint8)
    (images / "blue.dcm").write_bytes(encoded(dataset(blue, "RGB")))
    (images / "photo.png").write_bytes(png(RGB))
    (images / "no.dcm").write_bytes(encoded(dataset(RGB, "RGB", StudyInstanceUID="")))
    assert run(InferenceOptions([str(images)], model=scored_bundle, output=tmp_path / "o.csv", sr=tmp_path / "sr"))
    said = "--sr: no report for images that are no DICOM files with UIDs: 2, first "
    assert sum(line.startswith(said) for line in capsys.readouterr().err.splitlines()) == 1
    return {str(path.relative_to(tmp_path / "sr")): path for path in (tmp_path / "sr").rglob("*.dcm")}


def items(node: Any) -> dict[str, Any]:
    """Content items of a tree by the meaning of their names; the last of several."""
    found: dict[str, Any] = {}
    for item in node.get("ContentSequence", []):
        found |= {item.ConceptNameCodeSequence[0].CodeMeaning: item} | items(item)
    return found


def test_report_says_what_the_row_says(reports: dict[str, Path], scored_bundle: Path, tmp_path: Path) -> None:
    assert sorted(reports) == [
        "blue.dcm.sr.dcm",
        "m.dcm#frame=1.sr.dcm",
        "m.dcm#frame=2.sr.dcm",
        "sub/a.dcm.sr.dcm",
    ]
    classifier = Classifier(scored_bundle)
    image = tmp_path / "in" / "sub" / "a.dcm"
    (prediction,) = classifier.predict([image])
    header, report = pydicom.dcmread(image), pydicom.dcmread(reports["sub/a.dcm.sr.dcm"])
    assert report.StudyInstanceUID == header.StudyInstanceUID
    assert (report.PatientName, report.PatientID, report.StudyDate) == ("", "", "")
    content = items(report)
    probability = content["Probability of cancer"].MeasuredValueSequence[0]
    assert float(probability.NumericValue) == pytest.approx(100 * prediction.probabilities["malignant"], abs=1e-4)
    assert probability.MeasurementUnitsCodeSequence[0].CodeValue == "%"
    assert content["Classification"].ConceptCodeSequence[0].CodeMeaning.lower() == prediction.label
    assert content["Comment"].TextValue.startswith("Research tool, not for diagnosis")
    parameters = [
        item.TextValue
        for item in content["Measurement Group"].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Algorithm Parameters"
    ]
    assert f"bundle: {classifier.manifest.digest}" in parameters
    (reference,) = content["Source of Measurement"].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert "ReferencedFrameNumber" not in reference


def test_report_names_its_frame_and_refuses_a_label_where_the_row_does(reports: dict[str, Path]) -> None:
    frame = items(pydicom.dcmread(reports["m.dcm#frame=2.sr.dcm"]))
    assert frame["Source of Measurement"].ReferencedSOPSequence[0].ReferencedFrameNumber == 2
    refused = items(pydicom.dcmread(reports["blue.dcm.sr.dcm"]))
    assert refused["Classification"].ConceptCodeSequence[0].LongCodeValue == "out_of_distribution"
    assert "Finding" not in refused


def test_report_written_again_is_the_same_instance(reports: dict[str, Path], scored_bundle: Path) -> None:
    path = reports["sub/a.dcm.sr.dcm"]
    image = path.parents[2] / "in" / "sub" / "a.dcm"
    before = pydicom.dcmread(path).SOPInstanceUID
    for threshold, same in ((None, True), (0.01, False)):
        classifier = Classifier(scored_bundle, threshold=threshold)
        writer = StructuredReportWriter(path.parents[1], [str(image.parents[1])], classifier)
        for prediction in classifier.predict([str(image)]):
            writer.write(prediction)
        assert (pydicom.dcmread(path).SOPInstanceUID == before) is same


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        pytest.param(["dsrdump", "+Pf", "+Pc"], ("E:", "F:", "invalid"), id="dsrdump of DCMTK"),
        pytest.param(["dciodvfy"], ("Error",), id="dciodvfy of dicom3tools"),
    ],
)
def test_other_tools_accept_the_reports(
    reports: dict[str, Path], command: list[str], wrong: tuple[str, ...]
) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    for path in reports.values():
        finished = subprocess.run([*command, path], capture_output=True, text=True, timeout=60, check=False)
        output = finished.stdout + finished.stderr
        assert finished.returncode == 0, output
        assert "Enhanced" in output
        assert not any(line.startswith(wrong) for line in output.splitlines()), output


def test_highdicom_finds_the_measurement(reports: dict[str, Path]) -> None:
    highdicom = pytest.importorskip("highdicom")
    for path in reports.values():
        report = highdicom.sr.srread(path)
        (group,) = report.content.get_image_measurement_groups()
        assert [measurement.unit.value for measurement in group.get_measurements()] == ["%", "%"]
        assert len(report.content.get_observer_contexts()) == 1


def test_patients_are_copied_as_they_stand_where_they_are_asked_for(bundle: Path, tmp_path: Path) -> None:
    content = dataset(RGB, "RGB", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Özgül")
    content.PatientBirthDate, content.StudyDate = "19700131", "20260102"
    # Many programs write dates as no standard has them.
    (tmp_path / "a.dcm").write_bytes(encoded(content).replace(b"19700131", b"31.01.70"))
    classifier = Classifier(bundle)
    writer = StructuredReportWriter(tmp_path / "sr", [str(tmp_path)], classifier, with_patient=True)
    for prediction in classifier.predict([str(tmp_path / "a.dcm")]):
        writer.write(prediction)
    report = pydicom.dcmread(tmp_path / "sr" / "a.dcm.sr.dcm")
    assert str(report.PatientName) == "Müller^Özgül"
    assert (report.PatientBirthDate, report.StudyDate) == ("31.01.70", "20260102")


def test_header_that_the_standard_does_not_allow_ends_no_run(bundle: Path, tmp_path: Path) -> None:
    content = encoded(dataset(RGB, "RGB", SOPInstanceUID="1.2.3.4"))
    (tmp_path / "a.dcm").write_bytes(content.replace(b"1.2.3.4\0", b"1.2.x.4\0"))
    classifier = Classifier(bundle)
    writer = StructuredReportWriter(tmp_path / "sr", [str(tmp_path)], classifier)
    for prediction in classifier.predict([str(tmp_path / "a.dcm")]):
        assert prediction.status == "ok"
        assert writer.write(prediction) is prediction
    assert writer.sentence().endswith("a.dcm")
    writer.write(Prediction(path="b.dcm", error="broken"))
    assert ": 1, first" in writer.sentence()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"sr": "in/sr"}, "--sr .*in/sr lies inside .*in, whose images are classified", id="inside"),
        pytest.param({"sr_patient": True}, "--sr-patient needs --sr, the folder for the reports", id="no folder"),
    ],
)
def test_wrong_request_is_refused(bundle: Path, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(encoded(dataset(RGB, "RGB")))
    if "sr" in options:
        options = {"sr": tmp_path / options["sr"]}
    with pytest.raises(LesionEdgeError, match=reason):
        run(InferenceOptions([str(tmp_path / "in")], model=bundle, **options))
