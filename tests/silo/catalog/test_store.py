from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from silo.catalog.digest import skill_digest
from silo.catalog.lock import Lock
from silo.catalog.store import SkillStore
from silo.errors import SkillChanged, SkillUnknown
from silo.model import Isolation, Skill, SkillHeader, Tool
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

LOCK = Lock('version = 1\nrequires-python = ">=3.11"\n', ())


@pytest.fixture
def store(tmp_path: Path) -> SkillStore:
    return SkillStore(tmp_path / "skills")


def make(store: SkillStore, namespace: str, script: bytes) -> Skill:
    digest = skill_digest(script, LOCK.text)
    return Skill(
        namespace=namespace,
        digest=digest,
        header=SkillHeader(namespace=namespace, requires_python=">=3.11"),
        tools=(Tool(namespace, "act", "Act.", {"type": "object"}, None, False, 600, (), 30.0),),
        folder=store.folder_of(namespace, digest),
        source="builtin:demo",
        instructions=None,
        installed_at="2026-01-02T03:04:05Z",
        image="b" * 64,
        described_by=Isolation.MICROVM,
    )


async def install(
    store: SkillStore, namespace: str = "demo", script: bytes = b"one", manual: str | None = None
) -> Skill:
    skill = make(store, namespace, script)
    async with store.stage(namespace) as stage:
        stage.commit(skill, script=script, lock=LOCK, manual=manual)
    return skill


def left_over(store: SkillStore) -> list[str]:
    return sorted(path.name for path in (store.root / ".staging").iterdir())


async def test_what_was_installed_is_found_again(store: SkillStore):
    skill = await install(store, manual="# Demo\n")
    assert store.get("demo") == skill
    assert store.list() == (skill,)
    assert store.namespaces() == ("demo",)
    assert store.manual(skill) == "# Demo\n"
    assert skill.script.read_bytes() == b"one"
    assert left_over(store) == []


async def test_an_empty_home_has_no_skills_and_is_left_empty(store: SkillStore):
    assert (store.namespaces(), store.list(), store.damaged()) == ((), (), ())
    store.sweep()
    assert not store.root.exists()


async def test_others_can_read_nothing(store: SkillStore):
    skill = await install(store)
    assert [oct(path.stat().st_mode & 0o077) for path in (store.root, skill.folder, skill.script)] == ["0o0"] * 3


async def test_a_new_version_takes_the_place_of_the_old_one(store: SkillStore):
    old = await install(store, script=b"one", manual="old")
    new = await install(store, script=b"two")
    assert store.get("demo") == new
    assert not old.folder.exists()
    assert sorted(path.name for path in (store.root / "demo").iterdir()) == sorted([new.folder.name, "current"])


async def test_installing_the_same_again_renews_its_record_and_drops_what_it_no_longer_has(store: SkillStore):
    await install(store, manual="old")
    again = replace(make(store, "demo", b"one"), installed_at="2027-01-01T00:00:00Z")
    async with store.stage("demo") as stage:
        stage.commit(again, script=b"one", lock=LOCK, manual=None)
    assert store.get("demo") == again
    assert store.manual(again) is None


async def test_an_unknown_skill_gets_the_nearest_names(store: SkillStore):
    await install(store)
    with pytest.raises(SkillUnknown) as caught:
        store.get("dmeo")
    assert caught.value.hint == "did you mean 'demo'?"
    for name in ("", "..", "demo/current", ".staging", "\x00", "x" * 100_000):
        with pytest.raises(SkillUnknown):
            store.get(name)


@pytest.mark.parametrize("name", ["skill.py", "skill.py.lock", "manifest.json"])
@pytest.mark.parametrize(
    "damage", [lambda data: data + b"#", lambda data: data[:-1], lambda data: b"", lambda data: b"\xff"]
)
async def test_a_changed_file_is_noticed_and_installing_again_mends_it(store: SkillStore, name: str, damage):
    skill = await install(store, script=b"print()\n")
    path = skill.folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SkillChanged, match="'demo' was changed after it was installed") as caught:
        store.get("demo")
    assert "install it again" in caught.value.hint
    assert await install(store, script=b"print()\n") == store.get("demo")


async def test_an_edited_record_is_noticed_although_it_reads_well(store: SkillStore):
    """For instance one that no longer asks a person; script and lock are the same."""
    skill = await install(store)
    path = skill.folder / "manifest.json"
    text = path.read_text()
    assert text.count('"require_approval": false') == 2
    path.write_text(text.replace('"require_approval": false', '"require_approval": true'))
    with pytest.raises(SkillChanged, match="its record is not the one that was written"):
        store.get("demo")
    assert [one.namespace for one in store.damaged()] == ["demo"]
    path.write_text(text)
    assert store.get("demo") == skill


async def test_renewing_a_version_leaves_one_seal(store: SkillStore):
    first = await install(store)
    renewed = replace(first, installed_at="2027-01-01T00:00:00Z")
    async with store.stage("demo") as stage:
        stage.commit(renewed, script=b"one", lock=LOCK, manual=None)
    assert len(list(first.folder.glob("manifest.json.*"))) == 1


@pytest.mark.parametrize("name", ["skill.py", "skill.py.lock", "manifest.json"])
async def test_a_missing_file_is_noticed(store: SkillStore, name: str):
    skill = await install(store)
    (skill.folder / name).unlink()
    with pytest.raises(SkillChanged):
        store.get("demo")


async def test_the_record_of_another_skill_is_no_record(store: SkillStore):
    one, other = await install(store, "one"), await install(store, "other")
    (one.folder / "manifest.json").write_bytes((other.folder / "manifest.json").read_bytes())
    with pytest.raises(SkillChanged, match="belongs to another skill"):
        store.get("one")


async def test_a_link_that_leads_out_of_the_store_is_not_followed(store: SkillStore, tmp_path: Path):
    skill = await install(store)
    skill.folder.rename(tmp_path / skill.folder.name)
    current = store.root / "demo" / "current"
    current.unlink()
    current.symlink_to(tmp_path / skill.folder.name)
    with pytest.raises(SkillChanged, match="leads elsewhere"):
        store.get("demo")


async def test_one_damaged_skill_does_not_hide_the_others(store: SkillStore):
    whole, broken = await install(store, "whole"), await install(store, "broken")
    (broken.folder / "manifest.json").write_text("{}")
    assert store.list() == (whole,)
    assert [one.namespace for one in store.damaged()] == ["broken"]


async def test_an_install_that_fails_leaves_nothing_and_changes_nothing(store: SkillStore):
    skill = await install(store)

    async def fail() -> None:
        async with store.stage("demo") as stage:
            (stage.folder / "env").mkdir()
            (stage.folder / "env" / "big").write_text("x")
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        await fail()
    assert store.get("demo") == skill
    assert left_over(store) == []


async def test_a_cancelled_install_leaves_nothing(store: SkillStore):
    with anyio.CancelScope() as scope:
        async with store.stage("demo") as stage:
            (stage.folder / "env").mkdir()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert left_over(store) == []
    assert store.namespaces() == ()


async def test_what_a_killed_install_left_is_swept_by_the_next_one(store: SkillStore):
    program = (
        "import anyio, os, sys\nfrom pathlib import Path\nfrom silo.catalog.store import SkillStore\n"
        "async def main():\n"
        "    async with SkillStore(Path(sys.argv[1])).stage('demo') as stage:\n"
        "        (stage.folder / 'env').mkdir()\n"
        "        os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    for _ in range(2):
        done = await anyio.run_process([sys.executable, "-c", program, str(store.root)], check=False)
        assert done.returncode == -9
    assert len(left_over(store)) == 1
    await install(store)
    assert left_over(store) == []


async def test_sweeping_spares_an_install_that_is_under_way(store: SkillStore):
    await install(store)
    (store.root / ".staging" / "other-0123").mkdir()
    async with store.stage("demo") as stage:
        store.sweep()
        assert left_over(store) == [stage.folder.name]


async def test_a_commit_that_was_killed_is_swept_with_another_skill(store: SkillStore):
    """Killed when the new version is in place but nothing points at it yet, in a first install and in an update."""
    old = await install(store, "known", b"old")
    program = (
        "import anyio, os, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from silo.catalog.store import SkillStore\nfrom test_store import install\n"
        "def hook(event, arguments):\n"
        "    if event == 'os.symlink':\n"
        "        os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(hook)\n"
        "anyio.run(install, SkillStore(Path(sys.argv[1])), sys.argv[3], b'new')\n"
    )
    for name in ("known", "fresh"):
        arguments = [sys.executable, "-c", program, str(store.root), str(Path(__file__).parent), name]
        done = await anyio.run_process(arguments, check=False)
        assert done.returncode == -9, done.stderr
    assert len(left_over(store)) == 2
    assert len(list((store.root / "known").iterdir())) == 3
    store.sweep()
    assert left_over(store) == []
    assert store.list() == (old,)
    assert not (store.root / "fresh").exists()
    assert len(list((store.root / "known").iterdir())) == 2


async def test_nobody_is_alone_while_an_install_is_under_way(store: SkillStore):
    with anyio.fail_after(PATIENCE_S):
        async with store.stage("demo"), store.no_install_in_progress() as is_alone:
            assert not is_alone
        async with store.no_install_in_progress() as is_alone:
            assert is_alone


async def test_an_install_waits_for_who_is_alone_and_so_does_the_next_who_asks(store: SkillStore):
    order: list[str] = []

    async def begin() -> None:
        async with store.stage("demo"):
            order.append("installing")

    async def ask() -> None:
        async with store.no_install_in_progress():
            order.append("asking")

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, store.no_install_in_progress() as is_alone:
            assert is_alone
            tasks.start_soon(begin)
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert order == []
    assert sorted(order) == ["asking", "installing"]


async def test_a_killed_install_is_not_under_way(store: SkillStore):
    program = (
        "import anyio, os, sys\nfrom pathlib import Path\nfrom silo.catalog.store import SkillStore\n"
        "async def main():\n"
        "    async with SkillStore(Path(sys.argv[1])).stage('demo'):\n"
        "        os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    done = await anyio.run_process([sys.executable, "-c", program, str(store.root)], check=False)
    assert done.returncode == -9
    async with store.no_install_in_progress() as is_alone:
        assert is_alone


async def test_of_two_installs_at_once_one_waits_and_both_are_right(store: SkillStore):
    inside: list[str] = []
    results: list[Skill] = []
    first_is_in = anyio.Event()

    async def first() -> None:
        async with store.stage("demo") as stage:
            inside.append("first")
            first_is_in.set()
            await anyio.wait_all_tasks_blocked()
            assert inside == ["first"]
            skill = make(store, "demo", b"one")
            stage.commit(skill, script=b"one", lock=LOCK, manual=None)
            results.append(store.get("demo"))

    async def second() -> None:
        await first_is_in.wait()
        async with store.stage("demo") as stage:
            inside.append("second")
            skill = make(store, "demo", b"two")
            stage.commit(skill, script=b"two", lock=LOCK, manual=None)
            results.append(store.get("demo"))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)
    assert inside == ["first", "second"]
    assert [skill.script.name for skill in results] == ["skill.py"] * 2
    assert store.get("demo").digest == results[1].digest


async def test_installs_of_different_skills_do_not_wait_for_each_other(store: SkillStore):
    with anyio.fail_after(PATIENCE_S):
        async with store.stage("one"), store.stage("other"):
            pass


async def test_readers_never_meet_a_gap_while_versions_change(store: SkillStore):
    await install(store, script=b"0")
    program = (
        "import sys\nfrom pathlib import Path\nfrom silo.catalog.store import SkillStore\n"
        "store = SkillStore(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "while not (store.root / 'stop').exists():\n"
        "    store.get('demo')\n"
        "    assert len(store.list()) == 1\n"
    )
    with anyio.fail_after(PATIENCE_S):
        async with await anyio.open_process([sys.executable, "-c", program, str(store.root)], stderr=None) as reader:
            assert reader.stdout is not None
            assert b"ready".startswith(await reader.stdout.receive(1))
            for number in range(60):
                # Every second time, the same version with another record.
                skill = make(store, "demo", script := str(number // 2).encode())
                async with store.stage("demo") as stage:
                    renewed = replace(skill, installed_at=f"2026-01-02T03:04:{number:02}Z")
                    stage.commit(renewed, script=script, lock=LOCK, manual=None)
            (store.root / "stop").touch()
            assert await reader.wait() == 0


async def test_a_removed_skill_is_gone_and_only_that(store: SkillStore):
    kept, gone = await install(store, "kept"), await install(store, "gone")
    assert await store.remove("gone") == gone
    assert store.list() == (kept,)
    assert not (store.root / "gone").exists()
    assert left_over(store) == []
    with pytest.raises(SkillUnknown):
        await store.remove("gone")


async def test_a_damaged_skill_can_be_removed(store: SkillStore):
    skill = await install(store)
    (skill.folder / "manifest.json").write_text("")
    assert await store.remove("demo") is None
    assert store.namespaces() == ()


async def test_a_skill_that_is_not_the_staged_one_is_not_committed(store: SkillStore):
    skill = make(store, "demo", b"one")
    async with store.stage("demo") as stage:
        for wrong in (replace(skill, namespace="other"), replace(skill, folder=Path("/elsewhere"))):
            with pytest.raises(ValueError, match="not the one that was staged"):
                stage.commit(wrong, script=b"one", lock=LOCK, manual=None)
        with pytest.raises(ValueError, match="not the one that was staged"):
            stage.commit(skill, script=b"two", lock=LOCK, manual=None)
    assert store.namespaces() == ()


async def test_a_name_that_is_no_namespace_makes_no_folder(store: SkillStore):
    with pytest.raises(ValueError, match="not a namespace"):
        async with store.stage("../evil"):
            pass
    assert list(store.root.parent.iterdir()) == []
