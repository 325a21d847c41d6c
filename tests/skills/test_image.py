"""The built-in skill `image`, its functions called directly on pictures that Pillow draws here."""

import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from silo import AgentResponse, File

FORMATS = ["png", "jpeg", "webp", "gif", "tiff", "bmp"]
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def skill(load_script):
    return load_script("skills/image/skill.py")


def write(picture: Image.Image, kind: str = "PNG", name: str = "", **options) -> File:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return File(stream.getvalue(), f"image/{kind.lower()}", name)


def two_halves(width: int = 80, height: int = 40) -> Image.Image:
    """Return a picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def camera_data(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "ACME Camera"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif


def read(response) -> Image.Image:
    assert response.status == "success", response.error_message
    (file,) = response.files
    picture = Image.open(io.BytesIO(file.data))
    picture.load()
    assert response.raw_data["width"], response.raw_data["height"] == picture.size
    return picture


def error_of(response) -> str:
    assert isinstance(response, AgentResponse)
    assert response.status == "error"
    assert not response.files
    return response.error_message


def is_near(pixel, colour) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(pixel, colour, strict=False))


def test_info_tells_what_a_picture_is(skill):
    file = write(two_halves(), "JPEG", exif=camera_data())
    assert skill.info(file) == {
        "format": "jpeg",
        "media_type": "image/jpeg",
        "width": 80,
        "height": 40,
        "mode": "RGB",
        "frames": 1,
        "has_transparency": False,
        "has_camera_data": True,
        "has_location": True,
        "size_bytes": file.size,
    }


def test_info_gives_the_size_as_it_is_shown(skill):
    told = skill.info(write(two_halves(), "JPEG", exif=camera_data(orientation=6)))
    assert (told["width"], told["height"]) == (40, 80)


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_each_format_converts_into_each_other(skill, source, target):
    response = skill.convert(write(two_halves(), source.upper(), f"halves.{source}"), target)
    picture = read(response)
    assert picture.format == target.upper()
    assert picture.size == (80, 40)
    assert is_near(picture.convert("RGB").getpixel((10, 20)), RED)
    assert is_near(picture.convert("RGB").getpixel((70, 20)), BLUE)
    (file,) = response.files
    assert file.media_type == f"image/{target}"
    assert file.name == "halves." + {"jpeg": "jpg", "tiff": "tif"}.get(target, target)


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
def test_each_colour_mode_converts_into_each_format_or_says_why_not(skill, mode, target):
    picture = Image.new("RGB", (20, 10), RED)
    picture = Image.new(mode, (20, 10)) if mode in ("I;16", "I", "F") else picture.convert(mode)
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    assert read(skill.convert(write(picture, kind), target)).size == (20, 10)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 40}, (40, 20)),
        ({"height": 10}, (20, 10)),
        ({"width": 20, "height": 20}, (20, 10)),
        ({"width": 160, "height": 160}, (160, 80)),
        ({"width": 20, "height": 20, "fit": "cover"}, (20, 20)),
        ({"width": 20, "height": 30, "fit": "fill"}, (20, 30)),
        ({"width": 40, "fit": "cover"}, (40, 20)),
        ({"width": 1}, (1, 1)),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_resize_keeps_the_format_and_reaches_the_size(skill, kind, options, size):
    picture = read(skill.resize(write(two_halves(), kind.upper()), **options))
    assert picture.format == kind.upper()
    assert picture.size == size


def test_cover_cuts_off_both_sides_evenly(skill):
    picture = read(skill.resize(write(two_halves()), width=20, height=20, fit="cover"))
    assert is_near(picture.getpixel((2, 10)), RED)
    assert is_near(picture.getpixel((17, 10)), BLUE)


@given(
    old=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
)
def test_contain_never_exceeds_the_box_and_touches_one_side(skill, old, width, height):
    new = skill._target(old, width, height, "contain")
    assert new[0] <= width
    assert new[1] <= height
    assert new[0] == width or new[1] == height


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_camera_data_and_location_are_removed_unless_asked_for(skill, kind):
    file = write(two_halves(), kind, exif=camera_data())
    target = kind.lower()
    assert skill.info(file)["has_location"] is True
    for response in (skill.convert(file, target), skill.resize(file, width=40)):
        (stripped,) = response.files
        assert skill.info(stripped)["has_location"] is False
        assert b"ACME" not in stripped.data
    for response in (
        skill.convert(file, target, keep_metadata=True),
        skill.resize(file, width=40, keep_metadata=True),
    ):
        (kept,) = response.files
        assert skill.info(kept)["has_location"] is True
        assert b"ACME" in kept.data


def test_comments_and_text_chunks_are_removed(skill):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "ACME person")
    chunks.add_itxt("XML:com.adobe.xmp", "<x>ACME xmp</x>")
    files = [
        write(two_halves(), "PNG", pnginfo=chunks),
        write(two_halves(), "JPEG", comment=b"ACME comment"),
        write(two_halves(), "GIF", comment=b"ACME comment"),
        write(two_halves(), "WEBP", xmp=b"<x>ACME xmp</x>"),
        write(two_halves(), "TIFF", description="ACME description"),
    ]
    for file in files:
        assert b"ACME" in file.data
        for target in FORMATS:
            (converted,) = skill.convert(file, target).files
            assert b"ACME" not in converted.data
        (resized,) = skill.resize(file, width=20).files
        assert b"ACME" not in resized.data


@pytest.mark.parametrize(("source", "target"), [("JPEG", "bmp"), ("JPEG", "tiff"), ("TIFF", "jpeg")])
def test_camera_data_that_cannot_be_kept_is_dropped_and_the_answer_says_so(skill, source, target):
    exif = camera_data()
    file = write(two_halves(), source, exif=exif)
    assert skill.info(file)["has_camera_data"] is True
    response = skill.convert(file, target, keep_metadata=True)
    assert "dropped" in response.raw_data["note"]
    assert b"ACME" not in response.files[0].data


def test_a_plain_tiff_file_has_no_camera_data(skill):
    assert skill.info(write(two_halves(), "TIFF"))["has_camera_data"] is False


@pytest.mark.parametrize("keep", [False, True])
def test_a_picture_that_lies_on_its_side_is_turned_upright_once(skill, keep):
    """Orientation 6: the camera was turned; in the upright picture, the left side of the stored one is on top."""
    file = write(two_halves(), "JPEG", exif=camera_data(orientation=6), quality=95)
    (converted,) = skill.convert(file, "png", keep_metadata=keep).files
    picture = Image.open(io.BytesIO(converted.data))
    assert picture.size == (40, 80)
    assert is_near(picture.getpixel((20, 10)), RED)
    assert picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert read(skill.resize(file, width=20, keep_metadata=keep)).size == (20, 40)


def test_the_colour_profile_is_kept(skill):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = write(two_halves(), "JPEG", icc_profile=profile)
    assert read(skill.convert(file, "png")).info["icc_profile"] == profile
    assert read(skill.resize(file, width=8)).info["icc_profile"] == profile


def test_transparency_stays_where_the_format_has_it_and_becomes_white_where_not(skill):
    file = write(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    assert read(skill.convert(file, "webp")).convert("RGBA").getpixel((4, 4))[3] == 0
    assert read(skill.convert(file, "gif")).convert("RGBA").getpixel((4, 4))[3] == 0
    for target in ("jpeg", "bmp"):
        response = skill.convert(file, target)
        assert is_near(read(response).getpixel((4, 4)), (255, 255, 255))
        assert "white" in response.llm_text


def test_of_an_animation_the_first_frame_is_taken_and_the_answer_says_so(skill):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    file = write(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert skill.info(file)["frames"] == 2
    response = skill.convert(file, "png")
    assert "first of 2 frames" in response.llm_text
    assert is_near(read(response).convert("RGB").getpixel((4, 4)), RED)


def test_a_lower_quality_makes_a_smaller_file(skill):
    file = write(Image.effect_noise((100, 100), 80))
    for target in ("jpeg", "webp"):
        low, high = (skill.convert(file, target, quality=quality).raw_data["size_bytes"] for quality in (10, 95))
        assert low < high


def claims_to_be(width: int, height: int) -> File:
    """Return a PNG of a hundred bytes that claims a size; RFC 2083 §4.1."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return File(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8_000, 4_001), (10_000, 10_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(skill, size):
    file = claims_to_be(*size)
    for response in (skill.info(file), skill.convert(file, "png"), skill.resize(file, width=10)):
        assert "32,000,000" in error_of(response)


def test_a_new_picture_beyond_the_limit_is_refused_before_it_is_made(skill):
    assert "ask for less" in error_of(skill.resize(write(two_halves()), width=16_000))
    assert "ask for less" in error_of(skill.resize(write(Image.new("L", (1, 100))), width=1000))
    assert "width, height" in error_of(skill.resize(write(two_halves())))


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg xmlns='x'/>", b"P6 1 1 255 abc"]
)
def test_what_is_no_picture_of_a_known_kind_is_refused(skill, data):
    text = error_of(skill.convert(File(data), "png"))
    assert "can be read" in text or "empty" in text


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_a_picture_that_was_cut_off_is_said_to_be_damaged(skill, kind):
    data = write(Image.effect_noise((64, 64), 90).convert("RGB"), kind).data
    text = error_of(skill.convert(File(data[: len(data) // 2]), "png"))
    assert "damaged" in text or "can be read" in text


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns about damaged tags and continues
@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]),
    at=st.integers(0, 9999),
    junk=st.binary(min_size=1),
)
def test_no_damage_makes_a_tool_raise(skill, kind, at, junk):
    data = write(two_halves(16, 8), kind, **({"exif": camera_data()} if kind in ("JPEG", "TIFF") else {})).data
    at %= len(data)
    file = File(data[:at] + junk + data[at + len(junk) :])
    assert skill.info(file)
    for response in (skill.convert(file, "png", keep_metadata=True), skill.resize(file, width=4)):
        assert response.files or error_of(response)


def test_the_warmup_may_run_again(skill):
    skill.warm()
    skill.warm()
