import stat
from pathlib import Path

import pytest

from silo.sdk.files import File, guess_extension, guess_media_type


def test_repr_does_not_show_the_data():
    assert "hunter2" not in repr(File(b"hunter2", "text/plain", "note.txt"))


def test_a_file_read_from_a_path_knows_its_name_and_media_type(tmp_path: Path):
    path = tmp_path / "sales.CSV"
    path.write_bytes(b"a,b\n1,2\n")
    file = File.from_path(path)
    assert (file.data, file.media_type, file.name, file.size) == (b"a,b\n1,2\n", "text/csv", "sales.CSV", 8)


def test_what_is_read_from_a_path_can_be_given_another_name_and_media_type(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert File.from_path(str(path), media_type="image/png", name="") == File(b"", "image/png", "")


def test_text_drops_a_byte_order_mark():
    assert File("\ufeffä".encode()).text() == "ä"
    assert File("ä".encode("latin-1")).text("latin-1") == "ä"


def test_a_text_is_refused_as_data():
    with pytest.raises(TypeError, match=r"encode text with `text.encode\(\)`"):
        File("text")  # type: ignore[arg-type]


def test_a_bytearray_becomes_bytes():
    assert type(File(bytearray(b"x")).data) is bytes  # type: ignore[arg-type]


def test_save_keeps_the_name_and_lets_nobody_else_read(tmp_path: Path):
    path = File(b"x", name="a.parquet").save(tmp_path)
    assert path == tmp_path / "a.parquet"
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_save_without_a_folder_gives_each_file_one_of_its_own():
    file = File(b"x", name="a.csv")
    first, second = file.save(), file.save()
    assert first != second
    assert first.name == second.name == "a.csv"
    for path in (first, second):
        path.unlink()
        path.parent.rmdir()


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\passwd", "/etc/passwd", "a/../passwd", "pass\0wd"])
def test_a_name_never_chooses_the_folder(tmp_path: Path, name: str):
    assert File(b"x", name=name).save(tmp_path) == tmp_path / "passwd"


@pytest.mark.parametrize("name", ["", ".", "..", "a/", " "])
def test_a_name_that_is_none_is_replaced(tmp_path: Path, name: str):
    assert File(b"x", "image/png", name).save(tmp_path) == tmp_path / "file.png"


def test_save_never_replaces_a_file(tmp_path: Path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(FileExistsError):
        File(b"x", name="a.csv").save(tmp_path)
    assert (tmp_path / "a.csv").read_text() == "mine"


def test_save_does_not_follow_a_link(tmp_path: Path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        File(b"x", name="link.csv").save(tmp_path)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.json", "application/json"),
        ("a.tar.gz", "application/gzip"),
        ("README", "application/octet-stream"),
        (".x", "application/octet-stream"),
    ],
)
def test_media_type_is_guessed_from_the_ending(name: str, media_type: str):
    assert guess_media_type(name) == media_type


def test_extension_is_the_usual_one():
    assert guess_extension("IMAGE/JPEG") == ".jpg"
    assert guess_extension("x/unknown") == ".bin"
