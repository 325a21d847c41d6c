"""What a guest runs for a skill, also after an update of the host: files that guests have copies of have changed."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from silo.catalog.interpreter import inspect_interpreter
from silo.errors import SandboxBroken
from silo.runners.units import ImageReference, SkillUnits
from silo.sandbox import base_image, image
from silo.sandbox.base import Limits
from silo.sandbox.image import Images
from silo.testing.fakes import make_skill

pytestmark = pytest.mark.anyio

PATIENCE_S = 300.0
_spec = importlib.util.spec_from_file_location("elf_files", Path(__file__).parents[1] / "sandbox" / "test_elf.py")
_elf_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_elf_files)


class Host:
    """A machine whose certificates and whose library `libleaf.so.1` are files of the test, which updates them."""

    def __init__(self, folder, monkeypatch, interpreter):
        self.steps = []
        self.certificates = folder / "ca.crt"
        self.certificates.write_text("first authority\n")
        self.shared = folder / "libleaf.so.1"
        self.shared.write_bytes(_elf_files.make([]) + b"first")
        # Enough of an interpreter to be copied: the real one's base has 100 MB.
        small = folder / "python"
        (small / "lib-dynload").mkdir(parents=True)
        (small / "os.py").write_text("x = 1\n")
        executable = folder / "python3"
        executable.write_bytes(_elf_files.make([]))
        self.small = replace(interpreter, executable=executable, stdlib=small, platstdlib=small)
        monkeypatch.setattr(base_image, "_CA_BUNDLES", (str(self.certificates),))
        monkeypatch.setattr(base_image, "_ZONES", folder / "no-zones")
        monkeypatch.setattr(image, "system_libraries", lambda: {"libleaf.so.1": self.shared})
        self.images = Images(folder / "images")
        self.units = SkillUnits(self.images, Limits(), self.inspect)
        self.inspected = []

    async def inspect(self, executable):
        self.inspected.append(executable)
        return self.small

    async def install(self):
        """Return a skill whose environment has a file that needs `libleaf.so.1`."""
        staged = self.images.staging()
        (staged / "env").mkdir()
        (staged / "env" / "leaf.so").write_bytes(_elf_files.make(["libleaf.so.1"]))
        (staged / "skill.py").write_text("x = 1\n")
        base = await self.images.base(self.small, self.steps.append)
        layer = await self.images.layer("d" * 64, staged, base, self.steps.append)
        self.steps.clear()
        reference = ImageReference(self.small.version, base.digest, layer.digest)
        return replace(make_skill(), digest="d" * 64, image=str(reference))

    async def unit(self, skill):
        return await self.units.of(skill, self.steps.append)


@pytest.fixture
def host(tmp_path, monkeypatch, interpreter):
    return Host(tmp_path, monkeypatch, interpreter)


def change(path, data):
    """Replace a file, as a package manager does."""
    new = path.with_name("new")
    new.write_bytes(data)
    new.rename(path)


async def test_without_an_update_the_images_of_the_install_are_used(host):
    skill = await host.install()
    first, second = await host.unit(skill), await host.unit(skill)
    assert first == second == await host.units.built(skill)
    assert str(ImageReference(host.small.version, first.base.digest, first.layer.digest)) == skill.image
    assert (host.steps, host.inspected) == ([], [])


async def test_after_new_certificates_the_next_call_has_them(host):
    skill = await host.install()
    old = await host.unit(skill)
    change(host.certificates, b"second authority\n")
    new = await host.unit(skill)
    certificates = "etc/ssl/certs/ca-certificates.crt"
    assert (new.base.tree / certificates).read_text() == "second authority\n"
    assert (old.base.tree / certificates).read_text() == "first authority\n"  # guests of it may still run
    assert host.steps[0] == "this machine was updated: building the images of 'demo' again"
    host.steps.clear()
    assert await host.unit(skill) == new == await host.units.built(skill)
    assert host.steps == []
    assert len(host.inspected) == 1


async def test_after_a_library_of_the_layer_was_updated_the_next_call_has_it(host):
    """A layer has copies of libraries as well: `libstdc++`, for wheels that need it."""
    skill = await host.install()
    old = await host.unit(skill)
    change(host.shared, _elf_files.make([]) + b"second")
    new = await host.unit(skill)
    assert (old.layer.tree / "lib/libleaf.so.1").read_bytes().endswith(b"first")
    assert (new.layer.tree / "lib/libleaf.so.1").read_bytes().endswith(b"second")
    assert new.base == old.base
    # The skill's own files are the same ones.
    assert (new.layer.tree / "skill.py").samefile(old.layer.tree / "skill.py")
    assert (new.layer.tree / "env/leaf.so").samefile(old.layer.tree / "env/leaf.so")


async def test_two_updates_in_a_row_are_both_followed(host):
    skill = await host.install()
    for text in ("second\n", "third\n"):
        change(host.certificates, text.encode())
        unit = await host.unit(skill)
        assert (unit.base.tree / "etc/ssl/certs/ca-certificates.crt").read_text() == text


async def test_another_patch_of_the_same_python_is_followed(host):
    skill = await host.install()
    host.small = replace(host.small, version=".".join([*host.small.version.split(".")[:2], "99"]))
    change(host.small.executable, host.small.executable.read_bytes() + b"x")
    assert (await host.unit(skill)).base != await host.images.base(replace(host.small, version="0.0.0"), print)
    text = host.images.successor(host.images.find("layer", ImageReference.parse(skill.image).layer))
    assert ImageReference.parse(text).python == host.small.version


async def test_if_the_python_is_gone_the_skill_keeps_its_images_and_says_so(host):
    skill = await host.install()
    old = await host.unit(skill)
    host.small.executable.unlink()

    async def gone(executable):
        return None

    units = replace(host.units, inspect=gone)
    assert await units.of(skill, host.steps.append) == old
    assert "is gone" in host.steps[0]
    assert "silo install" in host.steps[0]


async def test_images_of_an_older_silo_are_used_as_they_are_and_say_so(host):
    """They have no note of their sources."""
    skill = await host.install()
    old = await host.unit(skill)
    for image_ in (old.base, old.layer):
        (image_.tree.parent / "sources.json").unlink()
    units = SkillUnits(Images(host.images._folder), Limits(), host.inspect)
    assert await units.of(skill, host.steps.append) == old
    assert "an older silo built its images" in host.steps[0]


async def test_calls_that_come_at_once_after_an_update_build_once(host):
    skill = await host.install()
    change(host.certificates, b"second\n")
    found = []

    async def ask(units):
        found.append(await units.of(skill, host.steps.append))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask, SkillUnits(Images(host.images._folder), Limits(), host.inspect))
    assert len({(unit.base.digest, unit.layer.digest) for unit in found}) == 1
    assert sum("was updated" in step for step in host.steps) == 1


async def test_images_of_before_are_pruned_with_their_skill_and_new_ones_are_kept(host):
    skill = await host.install()
    change(host.certificates, b"second\n")
    new = await host.unit(skill)
    installed = ImageReference.parse(skill.image)
    assert host.images.prune([installed.base, installed.layer]) == []
    assert await host.unit(skill) == new
    assert len(host.images.prune([])) == 4
    with pytest.raises(SandboxBroken, match="is gone"):
        await host.unit(skill)


async def test_while_images_are_renewed_nothing_of_them_is_pruned(host):
    skill = await host.install()
    change(host.certificates, b"second\n")
    async with host.images.renewing():
        base = await host.images.base(host.small, print)
        assert host.images.prune([]) == []
        assert host.images.find("base", base.digest) == base
    assert skill


@pytest.mark.parametrize("text", ["", "nonsense", "3.11.2/00/11", f"3.11.2/{'0' * 64}/{'1' * 64}"])
async def test_a_damaged_or_dead_successor_is_made_again(host, text):
    skill = await host.install()
    change(host.certificates, b"second\n")
    first = await host.unit(skill)
    host.images.replace(host.images.find("layer", ImageReference.parse(skill.image).layer), text)
    assert await host.unit(skill) == first


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stamps": []}', '{"stamps": {"/x": 1}}'])
async def test_an_image_with_damaged_sources_counts_as_out_of_date(host, text):
    skill = await host.install()
    unit = await host.unit(skill)
    (unit.layer.tree.parent / "sources.json").write_text(text)
    assert not Images(host.images._folder).is_current(unit.layer)


async def test_the_interpreter_of_this_test_is_found_again(images, interpreter):
    base = await images.base(interpreter, print)
    assert images.is_current(base)
    assert await inspect_interpreter(images.interpreter(base), os.environ) == interpreter
