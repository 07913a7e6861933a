"""A DICOM image gives the answer of the same pixels saved as PNG, and no name of a patient leaves it."""

from __future__ import annotations

import csv
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesion_edge import Classifier, Prediction, dicom
from lesion_edge.color import adobe_rgb
from lesion_edge.dicom import DicomFile
from lesion_edge.errors import ImageError
from lesion_edge.images import PassedOver, find_images
from lesion_edge.inference import run
from lesion_edge.inference_options import InferenceOptions
from lesion_edge.preprocess import load_pixels
from lesion_edge.watch import Pace, Watcher

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("openjpeg")
pytest.importorskip("onnxruntime")

from pydicom import uid  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

SIZE = 32
SECRETS = ("Muster^Erika", "ID-4711")
EXPLICIT = uid.ExplicitVRLittleEndian
DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
Levels = NDArray[Any]


def scene(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth image without any symmetry."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 80 + 120 * x * y], axis=-1).astype(np.uint8)


RGB = scene()
GRAY = RGB[..., 0]
PACKED = np.packbits(GRAY > 99, bitorder="little").tobytes()
GRAY16 = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)


def dataset(
    levels: Levels | bytes, photometric: str, syntax: str = uid.ExplicitVRLittleEndian, **more: Any
) -> Any:
    """A data set of stored levels (H, W[, 3]) or (N, H, W[, 3]), or of the frames in `levels` as they stand."""
    shape, bits = (RGB.shape, 8) if isinstance(levels, bytes) else (levels.shape, 8 * levels.dtype.itemsize)
    color = photometric in dicom.COLOR
    content = pydicom.Dataset()
    content.file_meta = pydicom.dataset.FileMetaDataset()
    content.file_meta.TransferSyntaxUID = uid.UID(syntax)
    content.SOPClassUID = DERMOSCOPIC
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(content, name, uid.generate_uid())
    content.PatientName, content.PatientID = SECRETS
    content.SamplesPerPixel = 3 if color else 1
    content.PhotometricInterpretation = photometric
    if color:
        content.PlanarConfiguration = 0
    place = len(shape) - 3 if color or isinstance(levels, bytes) else len(shape) - 2
    content.Rows, content.Columns = shape[place], shape[place + 1]
    if place:
        content.NumberOfFrames = shape[0]
    content.BitsAllocated = content.BitsStored = bits
    content.HighBit, content.PixelRepresentation = bits - 1, 0
    content.PixelData = levels if isinstance(levels, bytes) else levels.tobytes()
    content["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in more.items():
        setattr(content, name, value)
    if "BitsStored" in more:
        content.HighBit = content.BitsStored - 1
    return content


def encoded(content: Any) -> bytes:
    stream = io.BytesIO()
    content.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def compressed(syntax: str, levels: Levels = RGB, photometric: str = "RGB", **more: Any) -> bytes:
    content = dataset(levels, photometric, **more)
    content.compress(syntax, generate_instance_uid=False)
    return encoded(content)


def jpeg(levels: Levels = RGB, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def wrapped(frame: bytes, photometric: str, syntax: str = uid.JPEGBaseline8Bit, **more: Any) -> bytes:
    return encoded(dataset(encapsulate([frame]), photometric, syntax, **more))


def png(levels: Levels | Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    (levels if isinstance(levels, Image.Image) else Image.fromarray(levels)).save(stream, "PNG", **options)
    return stream.getvalue()


def ybr(rgb: Levels = RGB) -> NDArray[np.uint8]:
    """YBR_FULL after PS3.3, C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    levels: NDArray[np.uint8] = np.clip(np.rint(rgb @ matrix.T + (0, 128, 128)), 0, 255).astype(np.uint8)
    return levels


def from_ybr(levels: Levels) -> NDArray[np.uint8]:
    y, b, r = np.moveaxis(levels.astype(float), -1, 0) - np.array([0, 128, 128]).reshape(3, 1, 1)
    rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=-1)
    pixels: NDArray[np.uint8] = np.clip(np.floor(rgb + 0.5), 0, 255).astype(np.uint8)
    return pixels


def subsampled(levels: Levels) -> Levels:
    """Of each two pixels in a row the brightness of both and the color of the first: Y Y B R."""
    return np.stack([levels[:, ::2, 0], levels[:, 1::2, 0], levels[:, ::2, 1], levels[:, ::2, 2]], axis=-1)


def palette(bits: int) -> dict[str, Any]:
    tables = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 2]) * (257 if bits == 16 else 1)
    more: dict[str, Any] = {}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        more[f"{name}PaletteColorLookupTableData"] = table.astype(f"uint{bits}").tobytes()
    return more


def in_colors(levels: Levels) -> NDArray[np.uint8]:
    """What `palette` shows."""
    return np.stack([levels, 255 - levels, levels // 2], axis=-1)


def decoded(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


SAME: list[Any] = [
    pytest.param(encoded(dataset(GRAY, "MONOCHROME2")), png(GRAY), id="MONOCHROME2, 8 bits"),
    pytest.param(encoded(dataset(GRAY, "MONOCHROME1")), png(255 - GRAY), id="MONOCHROME1, 8 bits"),
    pytest.param(encoded(dataset(GRAY16, "MONOCHROME2")), png(GRAY16), id="MONOCHROME2, 16 bits"),
    pytest.param(encoded(dataset(GRAY16, "MONOCHROME1")), png(65535 - GRAY16), id="MONOCHROME1, 16 bits"),
    pytest.param(
        encoded(dataset(GRAY16 >> 4, "MONOCHROME2", BitsStored=12)),
        png(np.rint((GRAY16 >> 4) / 4095 * 65535).astype(np.uint16)),
        id="MONOCHROME2, 12 bits",
    ),
    pytest.param(
        encoded(dataset((GRAY16 ^ 0x8000).view(np.int16), "MONOCHROME2", PixelRepresentation=1)),
        png(GRAY16),
        id="MONOCHROME2, signed",
    ),
    pytest.param(
        encoded(
            dataset(
                np.packbits(GRAY > 99, bitorder="little").tobytes(), "MONOCHROME2", BitsAllocated=1, BitsStored=1
            )
        ),
        png(GRAY > 99),
        id="MONOCHROME2, 1 bit",
    ),
    pytest.param(encoded(dataset(RGB, "RGB")), png(RGB), id="RGB"),
    pytest.param(encoded(dataset(RGB, "RGB", uid.ImplicitVRLittleEndian)), png(RGB), id="RGB, implicit VR"),
    pytest.param(encoded(dataset(RGB, "RGB", uid.ExplicitVRBigEndian)), png(RGB), id="RGB, big-endian"),
    pytest.param(encoded(dataset(RGB, "RGB", uid.DeflatedExplicitVRLittleEndian)), png(RGB), id="RGB, deflated"),
    pytest.param(
        encoded(dataset(np.moveaxis(RGB, 2, 0).tobytes(), "RGB", PlanarConfiguration=1)),
        png(RGB),
        id="RGB, planes",
    ),
    pytest.param(encoded(dataset(RGB * np.uint16(257), "RGB")), png(RGB), id="RGB, 16 bits"),
    pytest.param(encoded(dataset(RGB.astype(np.uint16) << 4, "RGB", BitsStored=12)), png(RGB), id="RGB, 12 bits"),
    pytest.param(encoded(dataset(ybr(), "YBR_FULL")), png(from_ybr(ybr())), id="YBR_FULL"),
    pytest.param(
        encoded(dataset(subsampled(ybr()).tobytes(), "YBR_FULL_422")),
        png(from_ybr(np.concatenate([ybr()[..., :1], ybr()[:, ::2, 1:].repeat(2, axis=1)], axis=-1))),
        id="YBR_FULL_422",
    ),
    pytest.param(
        encoded(dataset(GRAY, "PALETTE COLOR", **palette(16))), png(in_colors(GRAY)), id="palette of 16 bits"
    ),
    pytest.param(
        encoded(dataset(GRAY, "PALETTE COLOR", **palette(8))), png(in_colors(GRAY)), id="palette of 8 bits"
    ),
    pytest.param(
        encoded(dataset(RGB, "RGB", ICCProfile=adobe_rgb())), png(RGB, icc_profile=adobe_rgb()), id="color profile"
    ),
    pytest.param(compressed(uid.RLELossless), png(RGB), id="RLE"),
    pytest.param(compressed(uid.RLELossless, GRAY16, "MONOCHROME2"), png(GRAY16), id="RLE, 16 bits"),
    pytest.param(
        compressed(uid.RLELossless, (GRAY16 - 32768.0).astype(np.int16), "MONOCHROME2", PixelRepresentation=1),
        png(GRAY16),
        id="RLE, signed",
    ),
    pytest.param(
        encoded(dataset(GRAY16 >> 4 | 0xF000, "MONOCHROME2", BitsStored=12)),
        png(np.rint((GRAY16 >> 4) / 4095 * 65535).astype(np.uint16)),
        id="unused bits that are set",
    ),
    pytest.param(compressed(uid.JPEG2000Lossless), png(RGB), id="JPEG 2000, YBR_RCT"),
    pytest.param(
        compressed(uid.JPEG2000Lossless, GRAY16, "MONOCHROME2"), png(GRAY16), id="JPEG 2000, gray, 16 bits"
    ),
    pytest.param(wrapped(jpeg(subsampling=0), "YBR_FULL"), png(decoded(jpeg(subsampling=0))), id="JPEG, YBR_FULL"),
    pytest.param(
        wrapped(jpeg(subsampling=1), "YBR_FULL_422"), png(decoded(jpeg(subsampling=1))), id="JPEG, YBR_FULL_422"
    ),
    pytest.param(
        wrapped(jpeg(progressive=True), "YBR_FULL_422"),
        png(decoded(jpeg(progressive=True))),
        id="JPEG, progressive",
    ),
    pytest.param(wrapped(jpeg(keep_rgb=True), "RGB"), png(decoded(jpeg(keep_rgb=True))), id="JPEG, RGB"),
    pytest.param(
        wrapped(jpeg(), "RGB"), png(decoded(jpeg())), id="JPEG, called RGB, but JFIF says that it is YBR"
    ),
    pytest.param(wrapped(jpeg(GRAY), "MONOCHROME2"), png(decoded(jpeg(GRAY))), id="JPEG, gray"),
    pytest.param(
        wrapped(jpeg(icc_profile=adobe_rgb()), "YBR_FULL_422"),
        png(decoded(jpeg()), icc_profile=adobe_rgb()),
        id="JPEG with a color profile of its own",
    ),
]


@pytest.mark.parametrize(("content", "same"), SAME)
def test_pixels_and_logits_are_those_of_the_png(content: bytes, same: bytes, bundle3: Path) -> None:
    pixels = np.stack([load_pixels(source, SIZE) for source in (content, same)])
    assert np.array_equal(pixels[0], pixels[1])
    logits = Classifier(bundle3).run(pixels)["logits"]
    assert np.array_equal(logits[0], logits[1])
    assert pixels[0].std() > 20, "there is something to see"


BROUGHT = Path(pydicom.__file__).parent / "data"
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def lookup(descriptor: list[int], data: list[int], representation: str = "US") -> Any:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = descriptor, data
    item["LUTData"].VR = representation
    if representation == "OW":
        item.LUTData = np.array(data, "<u2").tobytes()
    return pydicom.Sequence([item])


def window(levels: Levels, center: float, width: float) -> Levels:
    """Linear window after PS3.3, C.11.2.1.2.1, of float levels; 0 to 255."""
    return ((levels - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        pytest.param({"WindowCenter": 100, "WindowWidth": 51}, window(RAMP * 1.0, 100, 51), id="window"),
        pytest.param(
            {"WindowCenter": [100, 9], "WindowWidth": [51, 9]},
            window(RAMP * 1.0, 100, 51),
            id="first window",
        ),
        pytest.param(
            {"WindowCenter": -400, "WindowWidth": 201, "RescaleSlope": 2, "RescaleIntercept": -600},
            window(RAMP * 2.0 - 600, -400, 201),
            id="window of rescaled levels",
        ),
        pytest.param({"RescaleSlope": 3, "RescaleIntercept": -7}, RAMP, id="rescaling alone is no change"),
        pytest.param({"RescaleSlope": -1, "RescaleIntercept": 0}, 255 - RAMP, id="rescaling that turns it around"),
        pytest.param(
            {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": "SIGMOID"},
            255 / (1 + np.exp(-4 * (RAMP - 128.0) / 256)),
            id="sigmoid",
        ),
        pytest.param(
            {"VOILUTSequence": lookup([256, 0, 10], [1023 - 4 * level for level in range(256)])},
            (1023 - 4.0 * RAMP) / 1023 * 255,
            id="lookup table",
        ),
        pytest.param(
            {"ModalityLUTSequence": lookup([256, 0, 16], [level * level for level in range(256)], "OW")},
            RAMP.astype(float) ** 2 / 65535 * 255,
            id="modality lookup table",
        ),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_gray_levels_are_shown_as_the_header_says(more: dict[str, Any], shown: Levels, photometric: str) -> None:
    image = DicomFile(io.BytesIO(encoded(dataset(RAMP, photometric, **more)))).decode(None)
    expected = shown if photometric == "MONOCHROME2" else 255 - shown
    assert np.abs(np.asarray(image) - expected).max() <= 0.5 + 1e-6


def test_window_of_a_functional_group_holds_for_its_frame() -> None:
    def groups(center: int) -> Any:
        voi, item = pydicom.Dataset(), pydicom.Dataset()
        voi.WindowCenter, voi.WindowWidth = center, 51
        item.FrameVOILUTSequence = [voi]
        return item

    content = dataset(np.stack([RAMP, RAMP]), "MONOCHROME2")
    content.PerFrameFunctionalGroupsSequence = [groups(100), groups(150)]
    file = encoded(content)
    for number, center in ((1, 100), (2, 150)):
        image = DicomFile(io.BytesIO(file)).decode(number)
        assert np.abs(np.asarray(image) - window(RAMP * 1.0, center, 51)).max() <= 0.5


@pytest.mark.parametrize("refusing", [True, False], ids=["photographs alone", "every kind of image"])
def test_every_file_that_pydicom_brings_gives_an_answer_or_a_reason(
    refusing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not refusing:
        monkeypatch.setattr(dicom, "PHOTOGRAPHS", frozenset(uid.UID_dictionary))
    dicom._count_frames.cache_clear()
    answers, reasons = 0, set()
    for file in sorted(BROUGHT.rglob("*")):
        for path in list(find_images([str(file)]))[:2] if file.is_file() else ():
            try:
                pixels = load_pixels(path, SIZE)
            except ImageError as error:
                reasons.add(str(error))
            else:
                answers += 1
                assert pixels.shape == (SIZE, SIZE, 3)
                assert refusing or np.abs(pixels - reference(path).astype(int)).max() <= 1, path
    dicom._count_frames.cache_clear()
    assert answers > 30
    assert len(reasons) > 5
    assert any(reason.startswith("no decoder for lossy JPEG with more than 8 bits: ") for reason in reasons)
    assert not any("^" in reason for reason in reasons), "no name is quoted"


def reference(path: str) -> NDArray[np.uint8]:
    """Pixels of a file as pydicom makes them, shown by its own functions."""
    # pydicom alone has no decoder for the one; the other is the same image.
    path = path.replace("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm")
    name, _, frame = path.partition("#frame=")
    content = pydicom.dcmread(name, force=True)
    if "TransferSyntaxUID" not in content.file_meta:
        content.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    levels = pydicom.pixels.pixel_array(content, index=int(frame or 1) - 1)
    photometric = content.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        levels = pydicom.pixels.apply_color_lut(levels, content) // 256
    elif levels.ndim == 2:
        modality = pydicom.pixels.apply_modality_lut(levels, content).astype(float)
        extremes = np.array([-1e9, 1e9])
        if "WindowWidth" in content:
            low, high = pydicom.pixels.apply_windowing(extremes, content)
            modality = pydicom.pixels.apply_windowing(modality, content)
        else:
            low = -(1 << content.BitsStored - 1) if content.PixelRepresentation else 0
            low, high = pydicom.pixels.apply_modality_lut(
                np.array([low, low + (1 << content.BitsStored) - 1]), content
            )
        levels = np.rint((modality - low) / (high - low) * 255)
        levels = 255 - levels if photometric == "MONOCHROME1" else levels
    elif levels.dtype != np.uint8:
        levels = levels >> 8
    image = Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def changed(name: str, value: Any, **more: Any) -> bytes:
    """A good image with one wrong attribute, written as a program would that does not care."""
    content = dataset(GRAY, "MONOCHROME2", **more)
    content[name].value = value
    return encoded(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(
            changed("SOPClassUID", uid.CTImageStorage), "not a photograph (CT Image Storage)", id="no photograph"
        ),
        pytest.param(
            changed("PhotometricInterpretation", "HSV"),
            "photometric interpretation is not read (HSV",
            id="HSV",
        ),
        pytest.param(
            changed("PhotometricInterpretation", "RGB"),
            "photometric interpretation is not read (RGB",
            id="gray RGB",
        ),
        pytest.param(changed("BitsAllocated", 32), "levels have no defined brightness range (32", id="32 bits"),
        pytest.param(changed("HighBit", 6), "levels have no defined brightness range (they are", id="high bit"),
        pytest.param(changed("Rows", 0), "damaged or truncated (it has no image)", id="no rows"),
        pytest.param(
            changed("Rows", 60000, Columns=60000), "too large: 60000x60000 pixels, limit 100000000", id="too large"
        ),
        pytest.param(
            changed("Rows", 49), "damaged or truncated (pixel data of DICOM, ValueError)", id="a row too few"
        ),
        pytest.param(encoded(dataset(GRAY, "MONOCHROME2"))[:-9], "damaged or truncated (pixel data", id="cut off"),
        pytest.param(encoded(dataset(GRAY, "MONOCHROME2"))[:300], "damaged or truncated (", id="header cut off"),
        pytest.param(wrapped(jpeg()[:-200], "YBR_FULL_422"), "damaged or truncated (", id="JPEG cut off"),
        pytest.param(
            wrapped(jpeg(RGB[:40]), "YBR_FULL_422"),
            "damaged or truncated (the frame is another image than the header describes)",
            id="JPEG of another size",
        ),
        pytest.param(
            wrapped(jpeg(GRAY), "YBR_FULL_422"),
            "damaged or truncated (the frame is another image than the header describes)",
            id="gray JPEG called color",
        ),
        pytest.param(
            wrapped(jpeg(), "YBR_FULL", uid.MPEG2MPML),
            "transfer syntax is not read (MPEG2 Main Profile",
            id="video",
        ),
        pytest.param(
            encoded(dataset(np.stack([GRAY] * 3), "MONOCHROME2")),
            "it holds 3 frames: name one, with #frame=1 behind the path",
            id="several frames and none named",
        ),
        pytest.param(
            compressed(uid.RLELossless)[:-99], "damaged or truncated (pixel data of DICOM", id="RLE cut off"
        ),
        pytest.param(
            compressed(uid.RLELossless).replace(b"\3\0\0\0\x40\0\0\0", b"\2\0\0\0\x40\0\0\0"),
            "damaged or truncated (it has 2 segments, not 3)",
            id="RLE of another number of samples",
        ),
        pytest.param(
            changed("NumberOfFrames", 90000, NumberOfFrames=1),
            "damaged or truncated (it cannot hold 90000 frames)",
            id="more frames than bytes",
        ),
        pytest.param(
            encoded(dataset(GRAY16, "MONOCHROME2", VOILUTSequence=lookup([300, 0, 8], [0] * 300))),
            "lookup table is not read (more than 256 entries of 8 bits)",
            id="table that pydicom reads wrong",
        ),
    ],
)
def test_what_cannot_be_read_right_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as raised:
        load_pixels(content, SIZE)
    assert str(raised.value).startswith(reason)


def test_size_is_refused_before_anything_is_inflated() -> None:
    content = encoded(dataset(RGB, "RGB", uid.DeflatedExplicitVRLittleEndian))
    start = 144 + int.from_bytes(content[140:144], "little")
    header = zlib.decompress(content[start:], -zlib.MAX_WBITS)[: -RGB.size]
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = bomb.compress(header) + bomb.compress(bytes(1 << 25)) + bomb.flush()
    file = DicomFile(io.BytesIO(content[:start] + body))
    file.check()
    assert np.asarray(file.decode(None)).shape == RGB.shape
    assert file._stream.seek(0, io.SEEK_END) <= dicom.HEADER_BYTES + 8 * RGB.size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A PNG, a DICOM image without an ending, a multi-frame one, a directory and a report."""
    images = tmp_path / "in"
    images.mkdir()
    (images / "a.png").write_bytes(png(RGB))
    (images / "IM0001").write_bytes(encoded(dataset(RGB, "RGB")))
    levels = np.full((3, 40, 40, 3), 100, np.uint8)
    levels[..., 0] = np.array([30, 220, 90])[:, None, None]
    (images / "m.dcm").write_bytes(encoded(dataset(levels, "RGB")))
    for name, sop_class in (("DICOMDIR", uid.MediaStorageDirectoryStorage), ("sr.dcm", uid.EnhancedSRStorage)):
        content = pydicom.Dataset()
        content.file_meta = pydicom.dataset.FileMetaDataset()
        content.file_meta.TransferSyntaxUID = EXPLICIT
        content.SOPClassUID, content.SOPInstanceUID = sop_class, uid.generate_uid()
        (images / name).write_bytes(encoded(content))
    return images


def infer(bundle: Path, folder: Path, **options: Any) -> list[dict[str, str]]:
    output = folder.parent / "out.csv"
    run(InferenceOptions([str(folder)], model=bundle, output=output, **options))
    with output.open(newline="") as stream:
        return list(csv.DictReader(stream))


ROWS = ["IM0001", "a.png", "m.dcm#frame=1", "m.dcm#frame=2", "m.dcm#frame=3"]


def test_folder_has_one_row_per_image_and_frame(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = infer(bundle, folder)
    assert [Path(row["path"]).name for row in rows] == ROWS
    assert [row["label"] for row in rows[2:]] == ["benign", "malignant", "benign"]
    assert rows[0]["p_benign"] == rows[1]["p_benign"]
    assert capsys.readouterr().err.startswith(f"passed over, no images: {folder}/DICOMDIR, {folder}/sr.dcm\n")


def test_one_frame_can_be_named(bundle: Path, folder: Path) -> None:
    path = f"{folder}/m.dcm#frame=2"
    assert list(find_images([path])) == [path]
    (prediction,) = Classifier(bundle).predict([path], digest=True)
    assert (prediction.label, prediction.path) == ("malignant", path)
    (missing, no_frames) = Classifier(bundle).predict([f"{folder}/m.dcm#frame=4", f"{folder}/a.png#frame=1"])
    assert missing.error == "it has no frame 4, only 3"
    assert no_frames.error == "it has no frames, since it is no DICOM file"


def test_file_that_is_called_like_a_frame_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a.png#frame=1").write_bytes(png(RGB))
    assert load_pixels(tmp_path / "a.png#frame=1", SIZE).shape == (SIZE, SIZE, 3)


def test_interrupted_run_goes_on_with_the_next_frame(bundle: Path, folder: Path) -> None:
    infer(bundle, folder)
    output, record = folder.parent / "out.csv", folder.parent / ".out.csv.resume"
    rows, lines = output.read_bytes(), record.read_bytes()
    for length in range(0, len(rows), 41):
        output.write_bytes(rows[:length])
        record.write_bytes(lines[: max(len(lines) * length // len(rows), 1)])
        infer(bundle, folder, resume=True)
        assert output.read_bytes() == rows, f"cut after {length} bytes"


def test_overwritten_file_is_answered_again_frame_by_frame(bundle: Path, folder: Path) -> None:
    infer(bundle, folder)
    (folder / "m.dcm").write_bytes(encoded(dataset(np.full((2, 40, 41, 3), 9, np.uint8), "RGB")))
    rows = infer(bundle, folder, resume=True)
    assert [Path(row["path"]).name for row in rows] == [*ROWS, "m.dcm#frame=1", "m.dcm#frame=2"]


def test_watched_folder_gives_each_frame_once(folder: Path) -> None:
    (folder / "copy.dcm.part").write_bytes((folder / "m.dcm").read_bytes())
    time = iter((0.0, 2.0, 2.0, 2.0))
    watcher = Watcher([str(folder)], {}, Pace(settled=2.0), clock=lambda: next(time))
    assert watcher.poll() == []
    ready = watcher.poll()
    assert [Path(path).name for path in ready] == ROWS
    assert watcher.accept(Prediction(path=ready[2], label="benign"))
    assert [Path(path).name for path in watcher.poll()] == [*ROWS[:2], *ROWS[3:]]


@pytest.mark.parametrize("patient", [False, True])
def test_no_output_names_the_patient_unless_asked_for(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str], patient: bool
) -> None:
    broken = dataset(GRAY, "MONOCHROME2")
    broken["BitsStored"].value = 17
    (folder / "broken.dcm").write_bytes(encoded(broken))
    out = folder.parent / "made"
    out.mkdir()
    others: dict[str, Any] = {"report": out / "r.html", "audit": out / "a.jsonl", "heatmaps": out}
    infer(bundle, folder, sr=out / "sr", sr_patient=patient, **others)
    said = capsys.readouterr().err.encode()
    written = [path.read_bytes() for path in out.iterdir() if path.is_file()]
    everything = [said, *written, (folder.parent / "out.csv").read_bytes()]
    assert not any(secret.encode() in content for secret in SECRETS for content in everything)
    reports = [path.read_bytes() for path in (out / "sr").iterdir()]
    assert len(reports) == 4
    assert all((secret.encode() in content) is patient for secret in SECRETS for content in reports)


def test_list_and_pass_over_know_dicom_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(encoded(dataset(RGB, "RGB")))
    (tmp_path / "data.db").write_bytes(b"SQLite format 3\0")
    passed_over = PassedOver()
    assert list(find_images([str(tmp_path)], pass_over=passed_over.add)) == [str(tmp_path / "notes.txt")]
    assert passed_over.count == 1


def test_data_set_without_a_preamble_is_read() -> None:
    content = dataset(RGB, "RGB", uid.ImplicitVRLittleEndian)
    stream = io.BytesIO()
    del content.file_meta
    content.save_as(stream, implicit_vr=True, little_endian=True)
    assert np.array_equal(load_pixels(stream.getvalue(), SIZE), load_pixels(png(RGB), SIZE))
