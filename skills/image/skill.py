# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow>=12,<14"]
#
# [tool.silo]
# namespace = "image"
# description = "Look at, resize and convert pictures; camera and location data are removed."
# memory_mib = 1024
# timeout_s = 60
# ///
"""Look at, resize and convert pictures (PNG, JPEG, WebP, GIF, TIFF, BMP; AVIF can be read).

New pictures carry no camera data and no location unless somebody asks for it. Drawing, filters and recognition are not
here.
"""

import struct
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from silo import AgentResponse, File, Range, Skill

skill = Skill("image")

Format = Literal["png", "jpeg", "webp", "gif", "tiff", "bmp"]
Fit = Literal["contain", "cover", "fill"]

MAX_PIXELS = 32_000_000
"""8,000 x 4,000. The WebP encoder, the hungriest, takes about 19 bytes for each pixel: 600 MB of a guest of 1 GiB."""

MAX_FILE_BYTES = 32 * 1024 * 1024
"""The most that silo accepts as the files of one result."""

MAX_SIDE = 16_383
"""The limit of WebP. The other formats allow more, but no picture to look at needs it."""

READABLE = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""Pillow reads about forty formats. The parsers of rare ones are more fragile, and EPS would start another program."""

MEDIA_TYPES: dict[str, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "avif": "image/avif",
}

ENDINGS: dict[str, str] = {"jpeg": "jpg", "tiff": "tif"}
KEEPS_EXIF = frozenset({"png", "jpeg", "webp"})
"""Formats in which Exif data can be kept. In TIFF it is mixed with the tags that lay out the pixels."""

KEEPS_PROFILE = KEEPS_EXIF | {"tiff"}

CAMERA_TAGS = frozenset(
    {
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.Copyright,
        ExifTags.Base.ImageDescription,
        ExifTags.Base.ExifOffset,
        ExifTags.Base.GPSInfo,
    }
)
"""Tags about the camera, the time, the place or the person; every TIFF has other tags, too (TIFF 6.0, section 8)."""

DAMAGE = (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, EOFError, OverflowError, struct.error)
"""What Pillow raises for files that break the rules of their format."""


class Info(TypedDict):
    """Properties of a picture. Width and height are as shown, after the rotation that the camera recorded."""

    format: str
    media_type: str
    width: int
    height: int
    mode: str
    frames: int
    has_transparency: bool
    has_camera_data: bool
    has_location: bool
    size_bytes: int


@dataclass(frozen=True)
class _Picture:
    """The first frame of a picture, upright, and the metadata of its file that may be kept."""

    pixels: Image.Image
    kind: str
    frames: int
    has_camera_data: bool
    exif: bytes
    profile: bytes


class _RefusedError(Exception):
    """A tool can't do what was asked; the text is for a model to act on."""


@skill.tool(title="Look at a picture's properties", read_only=True, idempotent=True)
def info(image: File) -> Info | AgentResponse:
    """Tell a picture's format, size, colour mode, number of frames, and whether it holds camera data or a location.

    Args:
        image: a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file.
    """
    try:
        picture = _open(image)
        exif = picture.getexif()
        # In orientations 5 to 8 the stored picture lies on its side (Exif 2.32, tag 0x0112).
        is_turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = picture.size[::-1] if is_turned else picture.size
        kind = _kind(picture)
        return {
            "format": kind,
            "media_type": MEDIA_TYPES[kind],
            "width": width,
            "height": height,
            "mode": picture.mode,
            "frames": getattr(picture, "n_frames", 1),
            "has_transparency": picture.has_transparency_data,
            "has_camera_data": not CAMERA_TAGS.isdisjoint(exif),
            "has_location": bool(exif.get_ifd(ExifTags.IFD.GPSInfo)),
            "size_bytes": image.size,
        }
    except _RefusedError as refused:
        return _failed(refused)
    except DAMAGE as error:
        return _failed(_RefusedError(f"The picture is damaged: {error}. Ask for another copy."))


@skill.tool(title="Resize a picture", read_only=True, idempotent=True)
def resize(
    image: File,
    width: Annotated[int, Range(ge=1, le=MAX_SIDE)] | None = None,
    height: Annotated[int, Range(ge=1, le=MAX_SIDE)] | None = None,
    fit: Fit = "contain",
    quality: Annotated[int, Range(ge=1, le=100)] = 85,
    keep_metadata: bool = False,
) -> AgentResponse:
    """Scale a picture and return it as a new file of the same format (AVIF becomes PNG).

    With only one of width and height the other follows from the picture's proportions.

    Args:
        image: a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file.
        width: in pixels.
        height: in pixels.
        fit: what to do if width and height have other proportions than the picture. contain: as large as fits within
            them; cover: fill them and cut off what is over, evenly; fill: stretch.
        quality: of a JPEG or WebP.
        keep_metadata: keep camera data and location (Exif). They are removed unless this is true.
    """
    try:
        original = _upright(_open(image))
        size = _target(original.pixels.size, width, height, fit)
        if fit == "cover" and width and height:
            scaled = ImageOps.fit(_scalable(original.pixels), size, Image.Resampling.LANCZOS)
        else:
            scaled = _scalable(original.pixels).resize(size, Image.Resampling.LANCZOS)
        kind = "png" if original.kind == "avif" else original.kind
        return _answer(image.name, replace(original, pixels=scaled), kind, quality, keep_metadata)
    except _RefusedError as refused:
        return _failed(refused)


@skill.tool(title="Convert a picture", read_only=True, idempotent=True)
def convert(
    image: File,
    format: Format,  # noqa: A002 - the agent's word for it
    quality: Annotated[int, Range(ge=1, le=100)] = 85,
    keep_metadata: bool = False,
) -> AgentResponse:
    """Convert a picture to another format and return the new file.

    JPEG and BMP know no transparency: transparent parts become white. Of an animation the first frame is taken.

    Args:
        image: a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file.
        format: the format of the new file.
        quality: of a JPEG or WebP.
        keep_metadata: keep camera data and location (Exif). They are removed unless this is true.
    """
    try:
        return _answer(image.name, _upright(_open(image)), format, quality, keep_metadata)
    except _RefusedError as refused:
        return _failed(refused)


@skill.instructions()
def manual() -> str:
    """Tell a model how to use the skill."""
    return (
        "Pictures go in and come out as files. Camera data and location are removed from every new picture; set "
        "`keep_metadata` only if a person asks for it. Photos: jpeg or webp; drawings, screenshots and transparency: "
        "png or webp."
    )


@skill.warmup()
def warm() -> None:
    """Write and read each format once: Pillow loads its codecs when the first picture of a kind is opened or saved."""
    picture = Image.new("RGBA", (48, 32), (200, 80, 40, 128))
    stream = BytesIO()
    picture.save(stream, "PNG")
    png = File(stream.getvalue(), "image/png", "warm.png")
    formats: tuple[Format, ...] = ("png", "jpeg", "webp", "gif", "tiff", "bmp")
    for kind in formats:
        (file,) = convert(png, kind).files
        info(file)
        resize(file, width=24)
    resize(png, width=16, height=16, fit="cover")
    info(File(b"no picture"))


def _open(image: File) -> Image.Image:
    """Open a picture and check its size, which its first bytes give; the pixels are not unpacked yet."""
    if not image.data:
        raise _RefusedError("The file is empty.")
    try:
        with warnings.catch_warnings():
            # Pillow warns at 89 million pixels and raises at twice that; both are beyond the limit here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(image.data), formats=READABLE)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _RefusedError(f"The picture has more than {MAX_PIXELS:,} pixels; ask for a smaller one.") from error
    except UnidentifiedImageError as error:
        raise _RefusedError(
            "This is not a picture that can be read: PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF."
        ) from error
    except DAMAGE as error:
        raise _RefusedError(f"The picture is damaged: {error}. Ask for another copy.") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise _RefusedError(
            f"The picture has {picture.width:,} x {picture.height:,} pixels; "
            f"at most {MAX_PIXELS:,} can be handled here."
        )
    return picture


def _kind(picture: Image.Image) -> str:
    """Return the format in lower case. MPO, which some cameras write, is a JPEG followed by further pictures."""
    kind = (picture.format or "").lower()
    return "jpeg" if kind == "mpo" else kind


def _upright(picture: Image.Image) -> _Picture:
    """Unpack the first frame and rotate it as the camera recorded; return it with the file's metadata.

    The rotation must happen before the metadata is dropped: otherwise a phone's pictures would lie on their side.
    """
    try:
        exif = picture.getexif()
        pixels = ImageOps.exif_transpose(picture)
        has_camera_data = not CAMERA_TAGS.isdisjoint(exif)
        exif.pop(ExifTags.Base.Orientation, None)
        kind = _kind(picture)
        original = _Picture(
            pixels=pixels,
            kind=kind,
            frames=getattr(picture, "n_frames", 1),
            has_camera_data=has_camera_data,
            exif=exif.tobytes() if has_camera_data and kind != "tiff" else b"",
            profile=picture.info.get("icc_profile") or b"",
        )
    except DAMAGE as error:
        raise _RefusedError(f"The picture is damaged: {error}. Ask for another copy.") from error
    # Only the rotated copy is needed, and two copies would not fit into the guest.
    picture.close()
    return original


def _scalable(picture: Image.Image) -> Image.Image:
    """Return the picture in a mode that can be scaled smoothly: palettes and bitmaps have no colours in between."""
    if picture.mode in ("P", "PA", "1"):
        return picture.convert("RGBA" if picture.has_transparency_data else "L" if picture.mode == "1" else "RGB")
    return picture


def _target(old: tuple[int, int], width: int | None, height: int | None, fit: Fit) -> tuple[int, int]:
    """Return the size in pixels of the new picture."""
    old_width, old_height = old
    if width is None and height is None:
        raise _RefusedError("Give width, height or both, in pixels.")
    if width is not None and height is not None and fit != "contain":
        size = (width, height)
    else:
        scale = min(
            width / old_width if width is not None else float("inf"),
            height / old_height if height is not None else float("inf"),
        )
        size = (max(1, round(old_width * scale)), max(1, round(old_height * scale)))
    if size[0] * size[1] > MAX_PIXELS or max(size) > MAX_SIDE:
        raise _RefusedError(f"The new picture would have {size[0]:,} x {size[1]:,} pixels; ask for less.")
    return size


def _answer(source_name: str, picture: _Picture, kind: str, quality: int, keep_metadata: bool) -> AgentResponse:
    """Write the picture and return it as the result."""
    notes = []
    if kind in ("jpeg", "bmp") and picture.pixels.has_transparency_data:
        notes.append("Transparent parts became white.")
    if picture.frames > 1:
        notes.append(f"Only the first of {picture.frames} frames was taken.")
    exif = picture.exif if keep_metadata and kind in KEEPS_EXIF else b""
    if keep_metadata and picture.has_camera_data and not exif:
        notes.append("The camera data was dropped: it is kept from and to JPEG, PNG and WebP only.")
    data = _encode(picture, kind, quality, exif)
    if len(data) > MAX_FILE_BYTES:
        raise _RefusedError(
            f"The new file would have {len(data):,} bytes, and {MAX_FILE_BYTES:,} is the most; "
            "ask for a smaller size, or for jpeg or webp."
        )
    file = File(data, MEDIA_TYPES[kind], f"{Path(source_name).stem or 'image'}.{ENDINGS.get(kind, kind)}")
    width, height = picture.pixels.size
    return AgentResponse(
        llm_text=" ".join([f"{file.name}: {width} x {height} pixels, {file.size} bytes.", *notes]),
        raw_data={
            "name": file.name,
            "media_type": file.media_type,
            "width": width,
            "height": height,
            "size_bytes": file.size,
            "note": " ".join(notes),
        },
        files=(file,),
    )


def _encode(picture: _Picture, kind: str, quality: int, exif: bytes) -> bytes:
    """Write the picture with nothing but its pixels, its colour profile and, if given, its Exif data."""
    pixels = picture.pixels
    # Pillow copies comments, XMP and text chunks from `info` into some formats, and these may reveal a person or a
    # place.
    pixels.info = {key: value for key, value in pixels.info.items() if key == "transparency"}
    if kind in ("jpeg", "bmp"):
        pixels = _flatten(pixels)
    elif kind == "webp" and pixels.mode not in ("RGB", "RGBA"):
        pixels = pixels.convert("RGBA" if pixels.has_transparency_data else "RGB")
    elif kind == "png" and pixels.mode == "I":
        pixels = pixels.convert("I;16")
    elif kind in ("png", "gif") and pixels.mode not in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"):
        pixels = pixels.convert("RGB")
    options: dict[str, Any] = {}
    if kind in ("jpeg", "webp"):
        options["quality"] = quality
    if kind in ("jpeg", "png"):
        options["optimize"] = True
    if kind == "tiff":
        options["compression"] = "tiff_lzw"
    # A profile for CMYK is meaningless once the picture is RGB.
    if kind in KEEPS_PROFILE and picture.profile[16:20] == _colour_space(pixels):
        options["icc_profile"] = picture.profile
    if exif:
        options["exif"] = exif
    stream = BytesIO()
    try:
        pixels.save(stream, kind.upper(), **options)
    except (OSError, ValueError, KeyError) as error:
        raise _RefusedError(f"The picture can't be written as {kind}: {error}.") from error
    return stream.getvalue()


def _flatten(picture: Image.Image) -> Image.Image:
    """Return the picture without transparency, on white, in a mode that JPEG and BMP have."""
    if picture.has_transparency_data:
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def _colour_space(picture: Image.Image) -> bytes:
    """Return the colour space signature in the header of an ICC profile for this mode (ICC.1:2022 §7.2.6)."""
    return b"GRAY" if picture.mode in ("1", "L", "LA", "I", "I;16") else b"CMYK" if picture.mode == "CMYK" else b"RGB "


def _failed(refused: _RefusedError) -> AgentResponse:
    return AgentResponse(status="error", error_message=str(refused))


if __name__ == "__main__":
    skill.run()
