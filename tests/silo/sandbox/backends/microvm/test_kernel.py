"""The kernel pack is complete, the same each time, and refused if it was changed."""

import json
import subprocess

import pytest

from silo.errors import SandboxBroken
from silo.sandbox.backends.microvm import kernel


@pytest.fixture
def pack(tmp_path):
    folder = tmp_path / "6.1.0-x"
    folder.mkdir()
    kernel.write_pack(folder, release="6.1.0-x", image=b"image", modules={"virtio": b"module"}, busybox=b"busybox")
    return folder


def test_a_pack_is_read_as_it_was_written(pack):
    found = kernel.load(pack)
    assert (found.release, found.image.read_bytes()) == ("6.1.0-x", b"image")
    assert kernel.find(pack.parent) == found == kernel.find(pack)


def test_the_same_inputs_give_the_same_pack_and_others_another(tmp_path, pack):
    digests = set()
    for name, image in (("one", b"image"), ("two", b"image"), ("three", b"other")):
        (tmp_path / name).mkdir()
        kernel.write_pack(tmp_path / name, release="r", image=image, modules={"virtio": b"module"}, busybox=b"busybox")
        digests.add(kernel.load(tmp_path / name).digest)
    assert len(digests) == 2
    assert kernel.load(pack).digest in digests


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs.cpio"])
def test_a_pack_with_a_short_file_is_damaged(pack, name):
    (pack / name).write_bytes((pack / name).read_bytes()[:-1])
    with pytest.raises(SandboxBroken, match="damaged"):
        kernel.load(pack)


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs.cpio", "kernel.json"])
def test_a_pack_without_a_file_is_none(pack, name):
    (pack / name).unlink()
    with pytest.raises(SandboxBroken):
        kernel.load(pack)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"version": 1}', "\x00"])
def test_facts_that_make_no_sense_are_an_error_with_a_hint(pack, text):
    (pack / "kernel.json").write_text(text)
    with pytest.raises(SandboxBroken) as caught:
        kernel.load(pack)
    assert "silo setup" in caught.value.hint


def test_a_pack_of_another_version_is_refused(pack):
    facts = json.loads((pack / "kernel.json").read_text())
    (pack / "kernel.json").write_text(json.dumps(facts | {"version": 99}))
    with pytest.raises(SandboxBroken, match="not a kernel pack of this silo"):
        kernel.load(pack)


def test_where_there_is_no_pack_none_is_found(tmp_path):
    assert kernel.find(tmp_path) is None
    assert kernel.find(tmp_path / "nowhere") is None


def test_the_archive_is_what_cpio_reads(tmp_path):
    archive = kernel.make_initramfs({"virtio": b"one", "virtio_blk": b"three"}, b"busybox")
    (tmp_path / "a.cpio").write_bytes(archive)
    names, place = {}, 0
    while True:
        assert archive[place : place + 6] == b"070701"
        fields = [int(archive[place + 6 + 8 * i : place + 14 + 8 * i], 16) for i in range(13)]
        name = archive[place + 110 : place + 110 + fields[11] - 1].decode()
        start = -(-(place + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            break
        names[name] = (fields[1], archive[start : start + fields[6]])
        place = -(-(start + fields[6]) // 4) * 4
    assert names["bin/busybox"] == (0o100755, b"busybox")
    assert names["modules/order"] == (0o100644, b"virtio.ko\nvirtio_blk.ko\n")
    assert names["modules/virtio_blk.ko"] == (0o100644, b"three")
    assert names["root"] == (0o040755, b"")
    init = names["init"][1].decode()
    assert subprocess.run(["sh", "-n"], input=init, text=True, check=False).returncode == 0
    for disk, place in (("base", "/root"), ("layer", "/root/skill"), ("runtime", "/root/runtime")):
        assert f"-o ro,nosuid,nodev ${disk} {place}\n" in init
