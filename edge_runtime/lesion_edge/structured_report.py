"""DICOM structured reports: what a bundle says of a DICOM image, for the archive that holds the image.

Enhanced SR after template TID 1500 "Measurement Report" (PS3.16): one measurement group (TID 1501) with the
algorithm (TID 4019), the probability of each class, the label, and the image or frame that they come from. Without
being asked, a report holds nothing of the patient but the unique identifiers of study, series and image.
"""

from __future__ import annotations

import io
import threading
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lesion_edge import __version__
from lesion_edge.atomic import write_bytes
from lesion_edge.dicom import read_header
from lesion_edge.images import split_frame
from lesion_edge.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lesion_edge.classifier import Classifier
    from lesion_edge.prediction import Prediction

ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
NOT_FOR_DIAGNOSIS = "Research tool, not for diagnosis: a model's answer, not seen by a physician."

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
"""Attributes that a report has to have and may leave empty; copied from the image where patients are asked for."""

OWN_CODES = "99LESION_EDGE"
"""Coding scheme of what has no standard code: the classes of a bundle."""

Code = tuple[str, str, str]
"""Value, scheme and meaning."""

SKIN_LESION: Code = ("95324001", "SCT", "Skin lesion")

LABELS: dict[str, Code] = {
    "malignant": ("21594007", "SCT", "Malignant"),
    "benign": ("30807003", "SCT", "Benign"),
}


class StructuredReportWriter:
    """Writer of one structured report per DICOM image or frame into a folder, which mirrors those of the images.

    Args:
        folder: for the reports.
        paths: of the request.
        classifier: that the predictions come from.
        with_patient: whether reports name patient and study as the images do.
    """

    def __init__(
        self, folder: Path, paths: Sequence[str], classifier: Classifier, with_patient: bool = False
    ) -> None:
        self._mirror = Mirror(folder, paths)
        self._with_patient = with_patient
        self._positive_class = classifier.manifest.positive_class
        self._parameters = {
            "bundle": classifier.manifest.digest,
            "variant": classifier.variant,
            "device": classifier.device,
            "threshold": classifier.threshold,
            "site": classifier.site and classifier.site.digest,
        }
        self._lock = threading.Lock()
        self._without, self._first = 0, ""

    def write(self, prediction: Prediction) -> Prediction:
        """Write the report of an image that has an answer, and return the prediction.

        Raises:
            OSError: it cannot be written.
        """
        if prediction.error is not None:
            return prediction
        path, frame = split_frame(prediction.path)
        content = io.BytesIO()
        try:
            self._report(prediction, read_header(path), frame).save_as(content, enforce_file_format=True)
        except Exception:  # no DICOM, no UIDs or none that the standard allows, or it has vanished since
            with self._lock:
                self._without += 1
                self._first = self._first or prediction.path
            return prediction
        file = self._mirror.file_of(prediction.path, ".sr.dcm")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content.getvalue())
        return prediction

    def sentence(self) -> str:
        """How many images have no report, in one line; empty where all have one."""
        if not self._without:
            return ""
        return (
            f"--sr: no report for images that are no DICOM files with UIDs: {self._without}, first {self._first}"
        )

    def _report(self, prediction: Prediction, header: Any, frame: int | None) -> Any:
        from pydicom import config
        from pydicom.datadict import dictionary_VR
        from pydicom.dataelem import DataElement
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian

        for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if not UID(header[name].value).is_valid:
                raise ValueError(name)
        now = datetime.now()
        # The same answer to the same image is the same report, also when it is written again.
        answer = (header.SOPInstanceUID, frame, __version__, *self._parameters.values(), prediction.probabilities)
        report = Dataset()
        report.file_meta = FileMetaDataset()
        report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        report.SpecificCharacterSet = "ISO_IR 192"
        report.SOPClassUID = ENHANCED_SR
        report.SOPInstanceUID = _uid("report", *answer)
        for name in (*PATIENT, *STUDY):
            value = str(header.get(name) or "") if self._with_patient else ""
            # As it stands there, the standard's or not: it is the archive that knows the patient by it.
            report[name] = DataElement(name, dictionary_VR(name), value, validation_mode=config.IGNORE)
        report.StudyInstanceUID = header.StudyInstanceUID
        report.Modality = "SR"
        report.SeriesInstanceUID = _uid("series", header.StudyInstanceUID, *self._parameters.values())
        report.SeriesNumber = 1
        report.InstanceNumber = 1
        report.Manufacturer = "Lesion Edge"
        report.ManufacturerModelName = "lesion-infer"
        report.SoftwareVersions = __version__
        report.ReferencedPerformedProcedureStepSequence = []
        report.PerformedProcedureCodeSequence = []
        report.ContentDate = report.InstanceCreationDate = now.strftime("%Y%m%d")
        report.ContentTime = report.InstanceCreationTime = now.strftime("%H%M%S")
        report.CompletionFlag = "COMPLETE"
        report.VerificationFlag = "UNVERIFIED"
        report.PreliminaryFlag = "PRELIMINARY"
        report.CodingSchemeIdentificationSequence = [
            _dataset(
                CodingSchemeDesignator=OWN_CODES,
                CodingSchemeName="Classes of Lesion Edge bundles",
                CodingSchemeResponsibleOrganization="Lesion Edge",
            )
        ]
        image = _dataset(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
        series = _dataset(SeriesInstanceUID=header.SeriesInstanceUID, ReferencedSOPSequence=[image])
        report.CurrentRequestedProcedureEvidenceSequence = [
            _dataset(StudyInstanceUID=header.StudyInstanceUID, ReferencedSeriesSequence=[series])
        ]
        report.update(self._content(prediction, header, frame))
        return report

    def _content(self, prediction: Prediction, header: Any, frame: int | None) -> Any:
        """Root of the content tree (TID 1500)."""

        def image(relationship: str, name: Code) -> Any:
            reference = _dataset(
                ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID
            )
            if frame is not None:
                reference.ReferencedFrameNumber = frame
            return _item(relationship, "IMAGE", name, ReferencedSOPSequence=[reference])

        source = ("121112", "DCM", "Source of Measurement")
        label = prediction.label or prediction.status
        probabilities = [
            _item(
                "CONTAINS",
                "NUM",
                self._probability_of(name),
                image("INFERRED FROM", source),
                MeasuredValueSequence=[
                    _dataset(
                        NumericValue=f"{100 * probability:.4f}",
                        MeasurementUnitsCodeSequence=[_code(("%", "UCUM", "Percent"))],
                    )
                ],
            )
            for name, probability in prediction.probabilities.items()
        ]
        group = _container(
            "CONTAINS",
            ("125007", "DCM", "Measurement Group"),
            "1501",
            _text("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), "whole image"),
            _item(
                "HAS OBS CONTEXT",
                "UIDREF",
                ("112040", "DCM", "Tracking Unique Identifier"),
                UID=_uid("tracking", header.SOPInstanceUID, frame),
            ),
            *([_coded("CONTAINS", ("121071", "DCM", "Finding"), SKIN_LESION)] if prediction.label else []),
            _text("HAS CONCEPT MOD", ("111001", "DCM", "Algorithm Name"), "lesion-edge"),
            _text("HAS CONCEPT MOD", ("111003", "DCM", "Algorithm Version"), __version__),
            *(
                _text("HAS CONCEPT MOD", ("111002", "DCM", "Algorithm Parameters"), f"{name}: {value}")
                for name, value in self._parameters.items()
                if value is not None
            ),
            *probabilities,
            _coded(
                "CONTAINS",
                ("278201002", "SCT", "Classification"),
                LABELS.get(label.casefold(), _own_code(label)),
            ),
            _text("CONTAINS", ("121106", "DCM", "Comment"), NOT_FOR_DIAGNOSIS),
        )
        return _container(
            None,
            ("126000", "DCM", "Imaging Measurement Report"),
            "1500",
            _coded(
                "HAS CONCEPT MOD",
                ("121049", "DCM", "Language of Content Item and Descendants"),
                ("en", "RFC5646", "English"),
            ),
            _coded("HAS OBS CONTEXT", ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),
            _item(
                "HAS OBS CONTEXT",
                "UIDREF",
                ("121012", "DCM", "Device Observer UID"),
                UID=_uid("device", __version__, *self._parameters.values()),
            ),
            _text("HAS OBS CONTEXT", ("121013", "DCM", "Device Observer Name"), "lesion-edge"),
            _coded(
                "HAS CONCEPT MOD",
                ("121058", "DCM", "Procedure reported"),
                ("446078004", "SCT", "Dermoscopic photography"),
            ),
            _container(
                "CONTAINS",
                ("111028", "DCM", "Image Library"),
                "1600",
                _container(
                    "CONTAINS",
                    ("126200", "DCM", "Image Library Group"),
                    None,
                    image("CONTAINS", ("260753009", "SCT", "Source")),
                ),
            ),
            _container("CONTAINS", ("126010", "DCM", "Imaging Measurements"), None, group),
        )

    def _probability_of(self, name: str) -> Code:
        if name == self._positive_class and name.casefold() == "malignant":
            return ("111047", "DCM", "Probability of cancer")
        return _own_code(f"p_{name}", f"Probability of {name}")


def _own_code(value: str, meaning: str | None = None) -> Code:
    return value, OWN_CODES, (meaning or value)[:64]


def _uid(*content: object) -> str:
    """UID that stands for a content, of the root for UUIDs (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, repr(content)).int}"


def _dataset(**attributes: Any) -> Any:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def _code(code: Code) -> Any:
    value, scheme, meaning = code
    kind = "CodeValue" if len(value) <= 16 else "LongCodeValue"
    return _dataset(**{kind: value}, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(relationship: str | None, kind: str, name: Code, *children: Any, **attributes: Any) -> Any:
    """Content item of a tree; None stands for the root's relationship."""
    item = _dataset(ValueType=kind, ConceptNameCodeSequence=[_code(name)], **attributes)
    if relationship is not None:
        item.RelationshipType = relationship
    if children:
        item.ContentSequence = list(children)
    return item


def _text(relationship: str, name: Code, text: str) -> Any:
    return _item(relationship, "TEXT", name, TextValue=text)


def _coded(relationship: str, name: Code, value: Code) -> Any:
    return _item(relationship, "CODE", name, ConceptCodeSequence=[_code(value)])


def _container(relationship: str | None, name: Code, template: str | None, *children: Any) -> Any:
    item = _item(relationship, "CONTAINER", name, *children, ContinuityOfContent="SEPARATE")
    if template is not None:
        item.ContentTemplateSequence = [_dataset(MappingResource="DCMR", TemplateIdentifier=template)]
    return item
