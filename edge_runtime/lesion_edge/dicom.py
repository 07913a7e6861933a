"""Frames of DICOM files as images. pydicom, of the extra `dicom`, is imported with the first such file.

The gray levels or colors are those that PS3.3 of the standard defines: modality and VOI lookup tables or window
(C.11.1, C.11.2), palettes (C.7.9), YBR (C.7.6.3.1.2). No reason of an error tells what a header says of a patient.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from lesion_edge.errors import ImageError
from lesion_edge.images import FRAME
from lesion_edge.integrity import check_content, check_decoded_jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PHOTOGRAPHS = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in ("7", "7.1", "7.2", "7.3", "7.4", "77.1.1", "77.1.2", "77.1.4", "77.1.7")
)
"""SOP classes that are read: secondary capture; endoscopic, microscopic, photographic and dermoscopic ones."""

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"

RLE = "1.2.840.10008.1.2.5"
DEFLATED = b"1.2.840.10008.1.2.1.99"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))

DECODERS = {
    **dict.fromkeys(JPEG_LS, ("JPEG-LS", ("pyjpegls", "gdcm", "pylibjpeg"), "pyjpegls")),
    **dict.fromkeys(JPEG, ("JPEG with more than 8 bits", ("gdcm", "pylibjpeg"), "python-gdcm")),
    JPEG_EXTENDED: ("lossy JPEG with more than 8 bits", ("pylibjpeg",), "pylibjpeg-libjpeg"),
    **dict.fromkeys(JPEG_2000, ("JPEG 2000", ("pylibjpeg", "pillow", "gdcm"), "pylibjpeg-openjpeg")),
}
"""Transfer syntax to its name, pydicom's plugins that decode it, and a package that brings one."""

HEADER_BYTES = 1 << 20
"""Bytes of a deflated file that are inflated to find out how many more there may be."""

ADOBE_RGB = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
"""JPEG segment by which Adobe's programs say that the colors are RGB, for those that say so in DICOM alone."""


@contextlib.contextmanager
def _short_reasons(part: str) -> Iterator[None]:
    """Turn what pydicom and decoders raise into a reason that quotes nothing of the header."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ImageError(f"damaged or truncated ({part} of DICOM, {type(error).__name__})") from error


def count_frames(path: str) -> int:
    """Number of frames of a DICOM file; 0 where it is known to hold no image, 1 where its row will be an error."""
    try:
        status = os.stat(path)
        return _count_frames(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return 1


@functools.lru_cache(maxsize=1 << 16)  # --watch asks again and again
def _count_frames(path: str, size: int, time: int) -> int:
    with open(path, "rb") as file, contextlib.suppress(ImageError):
        dicom = DicomFile(file)
        if dicom.holds_no_image:
            return 0
        dicom.check()
        return dicom.frames
    return 1


def read_header(path: str) -> Any:
    """Data set of a DICOM file without its pixels.

    Raises:
        ImageError: it is none, or pydicom is not installed.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return DicomFile(file).header


class DicomFile:
    """An open DICOM file.

    Args:
        file: stream, at its beginning.

    Raises:
        ImageError: pydicom is not installed, or the header cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        dcmread = import_pydicom().dcmread
        self._stream = file
        self._inflate: Any = None
        beginning = file.read(512)
        self._bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        with _short_reasons("header"):
            if DEFLATED in beginning:
                # By itself pydicom inflates everything, however much it is.
                file.seek(144 + int.from_bytes(beginning[140:144], "little"))
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                self._stream = io.BytesIO(self._inflate.decompress(file.read(), HEADER_BYTES))
            self.header = dcmread(self._stream, stop_before_pixels=True, force=True)
            self._offset = self._stream.tell()
            self.syntax = self._find_syntax()
            self.frames = int(self.header.get("NumberOfFrames") or 1)
            self.size = (int(self.header.get("Columns") or 0), int(self.header.get("Rows") or 0))

    def _find_syntax(self) -> Any:
        """UID of the transfer syntax; of the one that pydicom has guessed where none is named."""
        from pydicom import uid

        named = self.header.file_meta.get("TransferSyntaxUID")
        if named and self._inflate is None:
            return named
        if self.header.is_implicit_VR:
            return uid.ImplicitVRLittleEndian
        return uid.ExplicitVRLittleEndian if self.header.is_little_endian else uid.ExplicitVRBigEndian

    @property
    def holds_no_image(self) -> bool:
        """Whether it is a directory, a report or another object of the standard that has no pixels."""
        return 0 in self.size and self._sop_class.name != self._sop_class and self._sop_class not in PHOTOGRAPHS

    @property
    def _sop_class(self) -> Any:
        from pydicom.uid import UID

        meta = self.header.file_meta.get("MediaStorageSOPClassUID")
        return UID(self.header.get("SOPClassUID") or meta or "")

    @_short_reasons("header")
    def check(self) -> None:
        """Refuse what is no photograph, or has no defined brightness or color, before anything is decoded.

        Raises:
            ImageError: why it is not read.
        """
        from pydicom.pixels import get_decoder

        header, sop_class = self.header, self._sop_class
        if sop_class.name != sop_class and sop_class not in PHOTOGRAPHS:
            raise ImageError(f"not a photograph ({sop_class.name})")
        try:
            get_decoder(self.syntax)
        except NotImplementedError:  # video, and what pydicom does not know
            raise ImageError(f"transfer syntax is not read ({self.syntax.name})") from None
        if 0 in self.size or "PhotometricInterpretation" not in header:
            raise ImageError("damaged or truncated (it has no image)")
        photometric, bits = header.PhotometricInterpretation, header.get("BitsStored")
        samples = header.get("SamplesPerPixel")
        if photometric not in (*GRAY, *COLOR, PALETTE) or samples != (3 if photometric in COLOR else 1):
            raise ImageError(f"photometric interpretation is not read ({photometric}, {samples} samples)")
        if header.get("BitsAllocated") not in (1, 8, 16) or not bits or bits > header.BitsAllocated:
            raise ImageError(f"levels have no defined brightness range ({header.get('BitsAllocated')} bits)")
        if header.get("HighBit", bits - 1) != bits - 1 or (
            header.get("PixelRepresentation") and photometric in COLOR
        ):
            raise ImageError("levels have no defined brightness range (they are signed, or not the lowest bits)")
        least = 16 if self.syntax.is_encapsulated else self.size[0] * self.size[1] * header.BitsAllocated // 8
        largest = self._bytes if self._inflate is None else 1032 * self._bytes  # no deflated byte stands for more
        if not 0 < self.frames <= max(1, largest // max(1, least)):
            raise ImageError(f"damaged or truncated (it cannot hold {self.frames} frames)")

    @_short_reasons("pixel data")
    def decode(self, number: int | None) -> Image.Image:
        """One frame, in mode L or RGB, with its color profile.

        Args:
            number: of the frame, from 1; None where there is one alone.

        Raises:
            ImageError: it is not there, is damaged, or no decoder for it is installed.
        """
        if number is None and self.frames > 1:
            raise ImageError(f"it holds {self.frames} frames: name one, with {FRAME}1 behind the path")
        index = (number or 1) - 1
        if index >= self.frames:
            raise ImageError(f"it has no frame {number}, only {self.frames}")
        stored = self._decode(index)
        image = stored if isinstance(stored, Image.Image) else self._show(stored, index)
        paths = self.header.get("OpticalPathSequence") or [{}]
        profile = self.header.get("ICCProfile") or paths[0].get("ICCProfile") or image.info.get("icc_profile")
        image.info = {"icc_profile": bytes(profile)} if profile and image.mode == "RGB" else {}
        return image

    def _decode(self, index: int) -> Image.Image | NDArray[Any]:
        """Stored levels (H, W), levels of colors (H, W, 3), or a decoded image in RGB."""
        from pydicom.encaps import get_frame
        from pydicom.pixels import as_pixel_options, get_decoder

        header, syntax = self.header, self.syntax
        if self._inflate is not None:
            pixels = 8 * self.frames * self.size[0] * self.size[1]
            self._stream.seek(0, os.SEEK_END)
            self._stream.write(self._inflate.decompress(self._inflate.unconsumed_tail, pixels))
        self._stream.seek(self._offset + 4)  # behind the tag
        representation = self._stream.read(2)
        explicit = representation in (b"OB", b"OW")  # whatever the transfer syntax says
        self._stream.seek(self._offset + (12 if explicit else 8))
        options = {**as_pixel_options(header), "pixel_keyword": "PixelData"}
        options["pixel_vr"] = representation.decode() if explicit else "OW"
        decoder = get_decoder(syntax)
        if syntax in JPEG | JPEG_2000 or syntax == RLE:
            place = self._stream.tell()
            frame = get_frame(
                self._stream,
                index,
                number_of_frames=self.frames,
                extended_offsets=options.get("extended_offsets"),
            )
            self._stream.seek(place)
            if syntax == RLE:
                return self._decode_rle(frame)
            if syntax in JPEG and header.BitsAllocated == 8:
                return self._decode_jpeg(frame)
            _check_frame_size(frame, self.size)
        name, plugins, package = DECODERS.get(syntax, (syntax.name, ("gdcm",), "python-gdcm"))
        if syntax.is_encapsulated and not set(plugins) & set(decoder.available_plugins):
            raise ImageError(f"no decoder for {name}: pip install {package}")
        levels: NDArray[Any] = decoder.as_array(self._stream, index=index, **options)[0]
        return levels

    def _decode_jpeg(self, content: bytes) -> Image.Image | NDArray[Any]:
        """Decode as a JPEG file is, at its full size."""
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        told = "adobe_transform" in image.info or "jfif" in image.info
        if self.header.PhotometricInterpretation == "RGB" and not told:
            content = content[:2] + ADOBE_RGB + content[2:]
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        if image.size != self.size or image.mode != ("RGB" if self.header.SamplesPerPixel == 3 else "L"):
            raise ImageError("damaged or truncated (the frame is another image than the header describes)")
        check_content(content, image)
        image.load()
        check_decoded_jpeg(content, image, image.size, max(image.size))
        return image if image.mode == "RGB" else np.asarray(image)

    def _decode_rle(self, content: bytes) -> NDArray[Any]:
        """Decode segments of PackBits (PS3.5, annex G): the bytes of each sample, the high ones first.

        By Pillow's decoder: pydicom's is slow, and that of pylibjpeg-rle ends the process at a damaged segment.
        """
        width, height = self.size
        count, *offsets = struct.unpack_from("<16I", content)
        size = self.header.BitsAllocated // 8
        samples = self.header.SamplesPerPixel
        if count != size * samples:
            raise ImageError(f"damaged or truncated (it has {count} segments, not {size * samples})")
        ends = [*offsets[1:count], len(content)]
        planes = [
            Image.frombytes("L", (width * height, 1), content[start:end], "packbits", "L")
            for start, end in zip(offsets, ends, strict=False)
        ]
        levels = np.stack([np.asarray(plane)[0] for plane in planes], axis=-1).reshape(
            height, width, samples, size
        )
        stored = levels.view(f">{'i' if self.header.get('PixelRepresentation') else 'u'}{size}")[..., 0]
        return stored[..., 0] if samples == 1 else stored

    def _show(self, stored: NDArray[Any], index: int) -> Image.Image:
        """Image of stored levels."""
        header, bits = self.header, self.header.BitsStored
        if stored.ndim == 3:
            return Image.fromarray(_eight_bits(stored, bits))
        low = -(1 << bits - 1) if header.get("PixelRepresentation") else 0
        levels = np.arange(low, low + (1 << bits), dtype=np.int32)
        palette = header.PhotometricInterpretation == PALETTE
        table = self._palette(levels) if palette else self._brightness(levels, index)
        return Image.fromarray(table[(stored.astype(np.int32) - low) & ((1 << bits) - 1)])

    def _palette(self, levels: NDArray[np.int32]) -> NDArray[np.uint8]:
        from pydicom.pixels import apply_color_lut

        self._check_table(self.header.RedPaletteColorLookupTableDescriptor)
        colors = apply_color_lut(levels, self.header)[:, :3]
        # Some say 16 bits of levels that have 8.
        return _eight_bits(colors, 16 if colors.max() > 255 else 8)

    def _brightness(self, levels: NDArray[np.int32], index: int) -> NDArray[np.uint8]:
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

        tables = self._tables(index)
        modality, voi = tables.get("ModalityLUTSequence"), tables.get("VOILUTSequence")
        for item in (modality, voi):
            if item:
                self._check_table(item[0].LUTDescriptor)
        values = apply_modality_lut(levels, tables)
        shown = np.asarray(apply_voi_lut(values, tables), np.float64)
        if voi:
            black, white = 0.0, float((1 << voi[0].LUTDescriptor[2]) - 1)
        elif tables.get("WindowWidth") is not None:
            black, white = (float(end) for end in apply_windowing(np.array([-1e12, 1e12]), tables))
        elif modality:
            black, white = 0.0, float((1 << modality[0].LUTDescriptor[2]) - 1)
        else:
            black, white = float(shown.min()), float(shown.max())
        share = ((shown - black) / (white - black)).clip(0, 1)
        if self.header.PhotometricInterpretation == "MONOCHROME1":
            share = 1 - share
        return np.floor(share * 255 + 0.5).astype(np.uint8)

    def _tables(self, index: int) -> Any:
        """Data set with the modality and VOI tables of a frame, which functional groups may hold."""
        tables = self.header.group_dataset(0x0028)
        tables.file_meta = self.header.file_meta
        shared = self.header.get("SharedFunctionalGroupsSequence") or []
        frames = self.header.get("PerFrameFunctionalGroupsSequence") or []
        for groups in (*shared[:1], *frames[index : index + 1]):
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                tables.update((groups.get(name) or [{}])[0])
        return tables

    def _check_table(self, descriptor: Any) -> None:
        """Refuse lookup tables that pydicom is known to read wrong.

        Raises:
            ImageError: the table, in a few words.
        """
        if not self.syntax.is_little_endian:
            raise ImageError("lookup table is not read (big-endian)")
        if descriptor[2] == 8 and not 0 < descriptor[0] <= 256:
            raise ImageError("lookup table is not read (more than 256 entries of 8 bits)")


def import_pydicom() -> Any:
    """pydicom, without the warnings that it prints of values in a header.

    Raises:
        ImageError: it is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise ImageError('DICOM needs pydicom: pip install "lesion-edge[dicom]"') from None
    warnings.filterwarnings("ignore", module=r"pydicom|lesion_edge\.dicom")
    return pydicom


def _check_frame_size(content: bytes, size: tuple[int, int]) -> None:
    """Refuse a frame that would be decoded to another size than the one that was checked."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "JPEG2000")) as image:
            agrees = image.size == size
    except UnidentifiedImageError:  # perhaps another decoder knows it
        return
    if not agrees:
        raise ImageError("damaged or truncated (the frame is another image than the header describes)")


def _eight_bits(levels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Levels of colors with 8 bits; of more, the high ones, as Pillow takes them from PNG and TIFF."""
    if bits < 8:
        return (levels.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    return (levels >> (bits - 8)).astype(np.uint8)
