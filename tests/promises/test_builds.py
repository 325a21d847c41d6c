"""A package without a wheel is built only after a person agreed, and its build reaches nothing of the host.

Each package here brings its own build backend (PEP 517), which leaves a mark on the host if it can, tries what an
attacker would try, and puts what it found into the module that it builds.
"""

import hashlib
import io
import json
import os
import socket
import sysconfig
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from silo_interaction import Answer

from silo.audit.log import read
from silo.config.schema import Config
from silo.errors import ApprovalRequired, CallDenied, DependencyUnavailable, SandboxUnavailable
from silo.install.installer import InstallRequest
from silo.model import Caller, Isolation
from silo.runtime import Runtime
from silo.sandbox.build import BuildSandbox
from silo.testing.fakes import FakeBackend, FakeImages, ScriptedChannel, described_tool

pytestmark = pytest.mark.anyio

SCRIPT = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [{needs}]
# [tool.silo]
# namespace = "demo"
# ///
"""
TOOL = described_tool("act")

BACKEND = """
import json, os, pathlib, socket, zipfile

found = {{}}

def attempt(name, act):
    try:
        found[name] = act()
    except BaseException as error:
        found[name] = "refused: " + type(error).__name__

attempt("mark", lambda: open({mark!r}, "a").write("x"))
{attack}

def get_requires_for_build_wheel(settings=None):
    return {more}

def build_wheel(folder, settings=None, metadata=None):
    info = "{name}-{version}.dist-info"
    made = "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + made, "w", zipfile.ZIP_STORED) as wheel:
        wheel.writestr("{name}.py", "found = " + repr(found))
        wheel.writestr("{name}.json", json.dumps(found))
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{requires}")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return made
"""


class Bench:
    """An index, and a home in which a script is installed that needs packages of it."""

    def __init__(self, folder):
        self.folder = folder
        self.marks = folder / "marks"
        self.index = folder / "index"
        self.user = folder / "user"
        for one in (self.marks, self.index, self.user):
            one.mkdir()
        self.marks.chmod(0o777)
        self.home = folder / "home"
        self.person = ScriptedChannel([])
        self.plans = []
        self.answers = []
        self.config = {}

    def add(self, name, *, attack="", static=False, requires=(), more=(), version="1.0"):
        """Add a source distribution to the index; its metadata is static (PEP 643) or only known once it is built."""
        depends = "".join(f"Requires-Dist: {one}\n" for one in requires)
        kind = "2.2" if static else "2.1"
        files = {
            "PKG-INFO": f"Metadata-Version: {kind}\nName: {name}\nVersion: {version}\n{depends if static else ''}",
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": BACKEND.format(
                name=name,
                version=version,
                attack=attack,
                more=list(more),
                requires=depends.replace("\n", "\\n"),
                mark=str(self.marks / name),
            ),
        }
        folder = self.index / name
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}-{version}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for file, text in files.items():
                member = tarfile.TarInfo(f"{name}-{version}/{file}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        links = [
            f"<a href='{one.name}#sha256={hashlib.sha256(one.read_bytes()).hexdigest()}'>{one.name}</a>\n"
            for one in sorted(folder.glob("*.gz"))
        ]
        (folder / "index.html").write_text("<!doctype html>\n" + "".join(links))
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    def script(self, *needs):
        (self.folder / "demo.py").write_text(SCRIPT.format(needs=", ".join(f'"{one}"' for one in needs)))

    def open(self):
        said = {"namespace": "demo", "summary": "", "instructions": None, "tools": [TOOL]}
        return Runtime(
            home=self.home,
            config=Config.model_validate(self.config),
            environ={
                "PATH": os.environ["PATH"],
                "HOME": str(self.user),
                "UV_CACHE_DIR": str(self.folder / "cache"),
                "UV_DEFAULT_INDEX": self.index.as_uri(),
                "SILO_MASTER_KEY": "ab" * 32,
            },
            channel=self.person,
            backends=[FakeBackend(isolation=Isolation.MICROVM, described=said)],
            images=FakeImages(self.folder / "images"),
        )

    async def agree(self, plan):
        assert not plan.builds or self.ran() == [one for one in self.ran() if one in self.allowed()]
        self.plans.append(plan)
        return self.answers.pop(0) if self.answers else True

    def allowed(self):
        return {one.package.partition("==")[0] for plan in self.plans for one in plan.builds}

    def ran(self):
        """The packages whose build left its mark on the host."""
        return sorted(path.name for path in self.marks.iterdir())

    async def install(self, *, sandbox=None, **fields):
        """Install the script; `sandbox` takes the place of the one that is used here."""
        async with self.open() as silo:
            path = str(self.folder / "demo.py")
            if sandbox is None:
                return await silo.install(path, agree=self.agree, **({"allow_builds": True} | fields))
            installer = replace(silo._parts.installer(), build_sandbox=sandbox)
            request = InstallRequest(path, Path("/"), Caller("cli"), **fields)
            return await installer.install(request, agree=self.agree, on_step=lambda step: None)

    def found(self, name="raw"):
        """What the build of a package found; it is in the image of the skill."""
        (path,) = (self.folder / "images").glob(f"layer-*/tree/env/{name}.json")
        return json.loads(path.read_text())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_without_the_flag_nothing_is_built_and_nobody_is_asked(bench):
    bench.add("raw")
    bench.script("raw")
    with pytest.raises(DependencyUnavailable) as caught:
        await bench.install(allow_builds=False)
    assert "--allow-builds" in caught.value.hint
    assert (bench.plans, bench.ran()) == ([], [])


async def test_a_no_comes_before_any_build(bench):
    """The fault: the lock ran build backends before the person was asked, so a refused install had run one as root."""
    digest = bench.add("raw")
    bench.script("raw")
    bench.answers = [False]
    with pytest.raises(CallDenied):
        await bench.install()
    (plan,) = bench.plans
    assert plan.is_partial
    ((build),) = plan.builds
    assert (build.package, build.hash, build.is_confined) == ("raw==1.0", digest, True)
    assert build.source.endswith("/index/raw/raw-1.0.tar.gz")
    assert bench.ran() == []
    assert not [record for record in read(bench.home) if record.event == "build"]


async def test_what_says_its_dependencies_itself_is_asked_about_once_and_built_afterwards(bench):
    digest = bench.add("raw", static=True, requires=["other"])
    bench.add("other", static=True)
    bench.script("raw")
    bench.answers = [False]
    with pytest.raises(CallDenied):
        await bench.install()
    (plan,) = bench.plans
    assert not plan.is_partial
    assert plan.packages == ("other==1.0", "raw==1.0")
    assert [one.package for one in plan.builds] == ["other==1.0", "raw==1.0"]
    assert plan.builds[1].hash == digest
    assert bench.ran() == []
    skill = await bench.install()
    assert (skill.folder / "skill.py.lock").read_text().count("sdist = { hash =") == 2
    assert bench.found()["mark"].startswith("refused")


async def test_what_only_a_build_can_tell_is_built_after_its_own_question(bench):
    bench.add("raw", requires=["other"])
    bench.add("other")
    bench.script("raw")
    skill = await bench.install()
    assert [(plan.is_partial, [one.package for one in plan.builds]) for plan in bench.plans] == [
        (True, ["raw==1.0"]),
        (True, ["other==1.0"]),
        (False, ["other==1.0", "raw==1.0"]),
    ]
    assert skill.packages == ("other==1.0", "raw==1.0")
    assert bench.ran() == []
    built = [record.body["packages"] for record in read(bench.home) if record.event == "build"]
    assert [[one["package"] for one in each] for each in built] == [
        ["raw==1.0"],
        ["other==1.0"],
        ["other==1.0", "raw==1.0"],
    ]


async def test_the_header_says_which_version_is_built(bench):
    bench.add("raw")
    bench.add("raw", version="2.0")
    bench.script("raw<2")
    assert (await bench.install()).packages == ("raw==1.0",)


async def test_a_lock_that_came_with_the_script_is_built_after_the_question(bench):
    bench.add("raw", static=True)
    bench.script("raw")
    skill = await bench.install()
    lock = (skill.folder / "skill.py.lock").read_text()
    (bench.folder / "demo.py.lock").write_text(lock)
    async with bench.open() as silo:
        await silo.uninstall("demo")
    bench.answers = [False]
    with pytest.raises(CallDenied):
        await bench.install()
    assert [one.package for one in bench.plans[-1].builds] == ["raw==1.0"]
    again = await bench.install()
    assert (again.digest, bench.ran()) == (skill.digest, [])
    bench.add("raw", static=True, attack="# another file of the same name")
    with pytest.raises(DependencyUnavailable, match=r"another source of raw==1\.0 than the lock"):
        await bench.install()


ATTACKS = """
attempt("environment", lambda: sorted(os.environ))
attempt("home", lambda: os.listdir({user!r}))
attempt("silo home", lambda: os.listdir({home!r}))
attempt("cache", lambda: open({cache!r} + "/planted", "w").write("x"))
attempt("system", lambda: open("/usr/planted", "w").write("x"))
attempt("shadow", lambda: open("/etc/shadow").read())
attempt("processes", lambda: sorted(name for name in os.listdir("/proc") if name.isdigit())[:9])
attempt("connection", lambda: socket.create_connection(("127.0.0.1", {port}), 2).close() or "connected")
attempt("interfaces", lambda: [name for _, name in socket.if_nameindex()])
attempt("kernel", lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x"))
attempt("identity", lambda: [os.getuid(), open("/proc/self/status").read().split("CapEff:")[1].split()[0]])
attempt("archive", lambda: open("/build/archive.tar.gz", "a").write("x"))
attempt("hook", lambda: open("/build/hook.py", "a").write("x"))
attempt("root", lambda: sorted(os.listdir("/")))
"""


async def test_a_build_reaches_nothing_of_the_host(bench):
    (bench.user / ".netrc").write_text("machine example.org login a password b")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        attack = ATTACKS.format(
            user=str(bench.user),
            home=str(bench.home),
            cache=str(bench.folder / "cache"),
            port=server.getsockname()[1],
        )
        bench.add("raw", attack=attack)
        bench.script("raw")
        await bench.install()
        with pytest.raises(TimeoutError):
            server.accept()
    found = bench.found()
    refused = {name for name, value in found.items() if str(value).startswith("refused")}
    assert refused == {
        *("mark", "home", "silo home", "cache", "system", "shadow", "connection", "kernel", "archive", "hook"),
        "interfaces",
    }
    assert not {name for name in found["environment"] if name.startswith(("SILO", "UV", "VAULT"))}
    assert len(found["processes"]) <= 3
    assert found["identity"] == [1000, "0" * 16]
    assert not {"root", "home", "var", "srv", "mnt"} - {"root"} & set(found["root"])
    assert bench.ran() == []
    assert not (bench.folder / "cache" / "planted").exists()


@pytest.mark.parametrize("is_hidden", [True, False])
async def test_a_home_inside_of_what_a_build_sees_is_empty_there(bench, is_hidden):
    """Somebody's SILO_HOME may lie under the folder of the interpreter; a part of its library stands for it here."""
    inside = Path(sysconfig.get_path("stdlib")) / "wsgiref"
    bench.add("raw", attack=f'attempt("inside", lambda: os.listdir({str(inside)!r}))')
    bench.script("raw")
    await bench.install(sandbox=BuildSandbox(hidden=(inside,) if is_hidden else ()), allow_builds=True)
    assert (bench.found()["inside"] == []) is is_hidden


@pytest.mark.parametrize("requirement", ["other @ https://example.org/x.whl", "-e /etc", "other\n--index-url=http://x"])
async def test_a_build_asks_for_nothing_but_packages_of_the_index(bench, requirement):
    bench.add("raw", more=[requirement])
    bench.script("raw")
    with pytest.raises(DependencyUnavailable, match="needs for its build what silo does not install"):
        await bench.install()


async def test_what_a_build_needs_is_never_built_itself(bench):
    bench.add("raw", more=["other"])
    bench.add("other")
    bench.script("raw")
    with pytest.raises(DependencyUnavailable, match=r"what the build of raw==1\.0 needs"):
        await bench.install()
    assert bench.ran() == []


async def test_a_build_that_makes_too_much_ends(bench):
    bench.add("raw", attack="found['big'] = 'x' * 100_000")
    bench.script("raw")
    with pytest.raises(DependencyUnavailable, match="more than 50000 bytes"):
        await bench.install(sandbox=BuildSandbox(max_wheel_bytes=50_000), allow_builds=True)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("import os\nos.write(1, b'no json\\n')\nos._exit(0)", "no answer that can be read"),
        ("import os\nos._exit(7)", "status 7"),
        ("raise RuntimeError('as it likes')", "as it likes"),
        ("import time\nwhile True: time.sleep(1)", "took more than 3 s"),
        ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\nos._exit(5)", "status 5"),
    ],
)
async def test_a_build_that_misbehaves_fails_and_ends(bench, attack, words):
    bench.add("raw", attack=attack)
    bench.script("raw")
    with pytest.raises(DependencyUnavailable, match=words):
        await bench.install(sandbox=BuildSandbox(timeout_s=3), allow_builds=True)


async def test_a_build_can_not_make_another_package(bench):
    bench.add("raw")
    path = bench.index / "raw" / "raw-1.0.tar.gz"
    text = BACKEND.format(name="other", version="1.0", attack="", more=[], requires="", mark=str(bench.marks / "raw"))
    with tarfile.open(path, "w:gz") as archive:
        for file, content in {
            "PKG-INFO": "Metadata-Version: 2.1\nName: raw\nVersion: 1.0\n",
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": text,
        }.items():
            member = tarfile.TarInfo(f"raw-1.0/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "index.html").write_text(f"<a href='{path.name}#sha256={digest}'>{path.name}</a>\n")
    bench.script("raw")
    with pytest.raises(DependencyUnavailable, match="made something else"):
        await bench.install()


LYING = """
import stat, sys
if sys.argv[1] == "wheel":
    for descriptor in range(3, 20):
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, json.dumps({{"wheel": {name!r}}}).encode() + b"\\nanything")
        except OSError:
            pass
    os._exit(0)
"""


@pytest.mark.parametrize(
    "name",
    ["raw-1.0-py3-none-../../../x.whl", "/etc/raw-1.0-py3-none-any.whl", "raw-1.0-py3-none-a\n.whl", None, [], 5],
)
async def test_the_name_of_a_wheel_is_no_path(bench, name):
    bench.add("raw", attack=LYING.format(name=name))
    bench.script("raw")
    with pytest.raises(DependencyUnavailable, match="made something else"):
        await bench.install()


# --- without a sandbox ------------------------------------------------------------------------------------------------


class NoSandbox(BuildSandbox):
    """A machine on which no build can be confined."""

    async def missing(self, interpreter):
        return "user namespaces are switched off"


async def test_without_a_sandbox_allow_builds_builds_nothing(bench):
    bench.add("raw")
    bench.script("raw")
    with pytest.raises(SandboxUnavailable) as caught:
        await bench.install(sandbox=NoSandbox(), allow_builds=True)
    assert "--allow-unsandboxed-builds" in caught.value.hint
    assert (bench.plans, bench.ran()) == ([], [])


async def test_without_a_sandbox_a_person_must_agree_whatever_flags_say(bench):
    bench.add("raw", attack='attempt("environment", lambda: sorted(os.environ))')
    bench.script("raw")
    fields = {"sandbox": NoSandbox(), "allow_unsandboxed_builds": True}
    for answers, error in (([], ApprovalRequired), ([Answer(False, "no")], CallDenied)):
        bench.person.answers = answers
        with pytest.raises(error):
            await bench.install(**fields)
        assert bench.ran() == []
    assert "OUTSIDE of any sandbox" in bench.person.asked[-1].danger
    bench.person.answers = [Answer(True, "yes"), Answer(True, "yes")]
    await bench.install(**fields)
    assert bench.ran() == ["raw"]
    assert not {name for name in bench.found()["environment"] if name.startswith(("SILO", "UV", "VAULT"))}


async def test_a_sandbox_that_works_is_used_whatever_flags_say(bench):
    bench.add("raw")
    bench.script("raw")
    await bench.install(allow_unsandboxed_builds=True)
    assert bench.ran() == []
    assert bench.person.asked == []
