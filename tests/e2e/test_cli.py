"""The command line as a process: what it prints where, how it exits, and what is left after an interruption."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from silo.testing import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parents[2]
QEMU = f"qemu-system-{platform.machine()}"

TINY = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.silo]
# namespace = "tiny"
# memory_mib = 128
# ///
"""A skill that is quickly installed."""

from silo import Skill

skill = Skill("tiny")


@skill.tool()
def answer() -> int:
    """Answer."""
    return 42
'''


@pytest.fixture
def tiny(tmp_path) -> Path:
    """The script of a small skill that is not installed, and that has no template from another test."""
    script = tmp_path / "tiny.py"
    script.write_text(f"{TINY}# {secrets.token_hex(8)}\n")
    return script


@pytest.fixture
def without_tiny(silo):
    """The silo. After the test, nothing of `tiny` is left in it."""
    yield silo
    if "tiny" in silo.installed():
        silo.run("uninstall", "tiny")


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def code(done) -> str:
    """Return the code of the error that a command ended with; checks that there is one, with a hint below it."""
    *_, error, hint = lines(done.err)
    assert error.startswith("silo: error: "), done.err
    assert hint.startswith("silo: hint: "), done.err
    return error.rpartition("[")[2].removesuffix("]")


# --- calls ------------------------------------------------------------------------------------------------------------


def test_words_become_arguments_and_the_answer_is_all_of_stdout(silo):
    signed = silo.run("run", "jwt.sign", 'claims:={"sub":"42"}', "expires_in_s=60")
    token = signed.json["token"]
    assert len(lines(signed.out)) == 1
    checked = silo.run("run", "jwt", "verify", f"token={token}", "--json").json
    assert checked["data"]["claims"]["sub"] == "42"
    assert checked["isolation"] == "microvm"
    assert checked["guest"]["kernel"] != platform.release()


def test_file_goes_in_by_path_and_on_stdin_and_comes_out_into_a_folder(silo, tmp_path):
    table = tmp_path / "visits.csv"
    table.write_text("city,visitors\nVienna,17\nGraz,4\n")
    asked = ("run", "table.query", "data=@visits.csv", "sql=SELECT sum(visitors) AS n FROM data", "--json")
    assert silo.run(*asked, cwd=tmp_path).json["data"]["rows"] in ([[21]], [{"n": 21}])
    measured = silo.run("run", "tricky.measure", "data=@-", "--json", stdin=table.read_bytes()).json
    assert measured["data"]["size"] == table.stat().st_size
    silo.run("run", "tricky.picture", "--output", str(tmp_path / "out"))
    assert (tmp_path / "out" / "dot.png").read_bytes().startswith(b"\x89PNG")


def test_timing_is_told_on_stderr_and_leaves_stdout_alone(silo):
    done = silo.run("run", "tricky.add", "a=1", "--timing")
    assert done.out == "2\n"
    phases = {line.split()[0] for line in lines(done.err) if line.endswith(" ms")}
    assert {"check", "open", "run", "total"} <= phases


def test_weaker_backend_runs_only_where_it_is_named_and_is_told(silo):
    assert silo.run("run", "tricky.add", "a=1", "--json").json["isolation"] == "microvm"
    assert silo.run("run", "tricky.add", "a=1", "--json", "--backend", "namespace").json["isolation"] == "namespace"


def test_secret_is_in_nothing_that_a_call_prints_or_leaves(silo, list_files):
    done = silo.run("run", "tricky.leak", "--json")
    assert done.json["text"] == "the key is [redacted:FIRST_KEY]"
    assert silo.secrets["FIRST_KEY"] not in done.out + done.err
    needle = silo.secrets["FIRST_KEY"].encode()
    records = [path for path in map(Path, list_files([silo.home])) if path.is_file() and path.parent == silo.home]
    assert len(records) >= 3
    assert not [path for path in records if needle in path.read_bytes()]


STATUSES = [
    (["tricky.add", "a=1"], 0, None),
    (["tricky.fail"], 1, "skill-exception"),
    (["tricky.report_failure"], 1, "skill-failed"),
    (["tricky.leave"], 1, "skill-exited"),
    (["tricky.crash"], 1, "skill-crashed"),
    (["tricky.add"], 2, "arguments-invalid"),
    (["tricky.ad", "a=1"], 2, "tool-unknown"),
    (["trickster.add", "a=1"], 2, "skill-unknown"),
    (["tricky.add", "a=1", "--no-such-flag"], 2, "usage"),
    (["tricky.dangerous"], 3, "approval-required"),
    (["tricky.wants_more"], 4, "secret-missing"),
    (["hasty.hang"], 124, "timeout"),
]


@pytest.mark.parametrize(("words", "status", "expected"), STATUSES, ids=[" ".join(words) for words, *_ in STATUSES])
def test_status_and_code_say_how_a_call_ended(silo, words, status, expected):
    done = silo.run("run", *words, status=status)
    assert expected is None or code(done) == expected


def test_wrong_key_is_told_as_a_locked_vault(silo):
    done = silo.run("run", "tricky.leak", status=4, environ={"SILO_MASTER_KEY": "f" * 64})
    assert code(done) == "vault-locked"


def test_missing_qemu_is_named_with_what_to_do_and_nothing_weaker_is_taken(silo):
    covered = shutil.which(QEMU)
    assert covered is not None
    prefix = _with_mount(f'mount --bind /dev/null "{Path(covered).resolve()}"')
    called = silo.run("run", "tricky.add", "a=1", status=5, prefix=prefix)
    assert code(called) == "sandbox-unavailable"
    assert QEMU in called.err
    assert "silo setup" in called.err
    assert called.out == ""
    told = silo.run("doctor", "--json", status=5, prefix=prefix).json
    (backend,) = [one for one in told["backends"] if one["isolation"] == "microvm"]
    assert (backend["works"], told["chosen"]) == (False, None)
    assert any(QEMU in one for one in backend["missing"])
    assert "silo setup" in backend["hint"]


def test_doctor_says_what_works_in_one_document(silo):
    told = silo.run("doctor", "--json").json
    assert {"silo", "backends", "chosen", "kernel", "uv", "vault", "home", "python", "min_isolation"} <= told.keys()
    assert told["chosen"] == "microvm"
    assert {one["isolation"]: one["works"] for one in told["backends"]} == {"microvm": True, "namespace": True}
    assert (told["vault"]["problem"], told["vault"]["secrets"]) == (None, 3)


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_middle_of_a_call_ends_all_of_it_before_its_time(silo, processes):
    with silo.start("run", "tricky.hang") as process:
        while b"hanging" not in (line := process.stderr.readline()):  # said once the tool has run for a second
            assert line, "it ended before it could be interrupted"
        guests = processes.guests(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
        processes.wait_gone(guests)
        told = process.stderr.read().decode()
    assert "[interrupted]" in told  # and not `timeout`, as at the end of its time
    assert "Traceback" not in told


def test_call_that_was_interrupted_is_on_record(silo, processes, eventually):
    with silo.start("run", "tricky.hang") as process:
        eventually(lambda: processes.guests(process.pid), PATIENCE_S, "no guest was started")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
    last = silo.run("audit", "show", "--json").json["records"][-1]
    assert (last["event"], last["outcome"]) in {("end", "interrupted"), ("refused", "interrupted")}
    silo.run("audit", "verify")


# --- installing -------------------------------------------------------------------------------------------------------


def test_two_installs_at_once_both_succeed_and_the_skill_works(without_tiny, tiny):
    started = [without_tiny.start("install", str(tiny), "--yes", stdin=subprocess.DEVNULL) for _ in range(2)]
    ends = [(process.communicate(timeout=PATIENCE_S)[1].decode(), process.returncode) for process in started]
    assert [status for _, status in ends] == [0, 0], ends
    assert without_tiny.run("run", "tiny.answer").out == "42\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_install_that_is_cut_off_installs_nothing_and_the_next_one_works(
    without_tiny, tiny, processes, eventually, number, status
):
    silo = without_tiny
    with silo.start("install", str(tiny), "--yes", stdin=subprocess.DEVNULL) as process:
        guests = eventually(lambda: processes.guests(process.pid), PATIENCE_S, "no guest was started")
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE_S) == status
        processes.wait_gone(guests)
    assert "tiny" not in silo.installed()
    assert code(silo.run("run", "tiny.answer", status=2)) == "skill-unknown"
    if number != signal.SIGKILL:
        return  # the rest costs a template, and the harder case tests it
    silo.run("install", str(tiny), "--yes")
    assert silo.run("run", "tiny.answer").out == "42\n"
    assert not list((silo.home / "skills" / ".staging").iterdir())
    leftovers = [*(silo.home / "images").glob(".building-*"), *(silo.home / "images").glob(".staging-*")]
    assert not [*leftovers, *(silo.home / "templates").glob(".building-*")]


def test_installed_script_that_was_changed_does_not_run_until_installed_again(without_tiny, tiny):
    silo = without_tiny
    silo.run("install", str(tiny), "--yes")
    (skill,) = [one for one in silo.run("list", "--json").json["skills"] if one["namespace"] == "tiny"]
    copy = Path(skill["folder"]) / "skill.py"
    copy.write_text(TINY.replace("42", "43"))
    assert code(silo.run("run", "tiny.answer", status=2)) == "skill-changed"
    silo.run("install", str(tiny), "--yes")
    assert silo.run("run", "tiny.answer").out == "42\n"
    silo.run("uninstall", "tiny")
    assert code(silo.run("run", "tiny.answer", status=2)) == "skill-unknown"


def test_install_needs_a_yes_where_nobody_can_be_asked(silo, tiny):
    assert code(silo.run("install", str(tiny), status=3)) == "approval-required"
    assert "tiny" not in silo.installed()


BROKEN = [
    ("no header", lambda text: text.partition("# ///\n")[2], 2, "header-invalid", "PEP 723"),
    ("unknown key", lambda text: text.replace("memory_mib", "memory_mb"), 2, "header-invalid", "memory_mib"),
    ("broken TOML", lambda text: text.replace('"tiny"', "tiny", 1), 2, "header-invalid", "tiny.py"),
    ("network", lambda text: _add(text, 'network = ["example.com"]'), 2, "not-in-this-version", "example.com"),
    ("syntax error", lambda text: text.replace("return 42", "return (42"), 1, "skill-syntax-error", "line"),
    (
        "missing import", lambda text: text.replace("from silo", "import absent\nfrom silo"), 1,
        "skill-import-error", "absent",
    ),
]  # fmt: skip


def _add(text: str, line: str) -> str:
    return text.replace("# memory_mib", f"# {line}\n# memory_mib")


@pytest.mark.parametrize(
    ("spoil", "status", "expected", "named"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN]
)
def test_broken_script_is_refused_with_its_own_code_and_not_installed(silo, tiny, spoil, status, expected, named):
    tiny.write_text(spoil(TINY))
    # The same guest code finds mistakes in the script on every backend; this backend starts fastest.
    done = silo.run("install", str(tiny), "--yes", "--backend", "namespace", status=status)
    assert code(done) == expected
    assert named in done.err
    assert "tiny" not in silo.installed()


def test_package_that_cannot_be_had_is_named(silo, tiny):
    tiny.write_text(TINY.replace("dependencies = []", 'dependencies = ["silo-tests-absent==1"]'))
    # Without an index, so that nobody is asked for a package that does not exist.
    done = silo.run("install", str(tiny), "--yes", status=2, environ={"UV_OFFLINE": "1", "UV_NO_INDEX": "1"})
    assert code(done) == "dependency-unavailable"
    assert "silo-tests-absent" in done.err


def test_lock_that_does_not_fit_the_header_is_refused(silo, tmp_path):
    folder = tmp_path / "jwt"
    shutil.copytree(REPOSITORY / "skills" / "jwt", folder)
    script = folder / "skill.py"
    text = script.read_text()
    assert '"pyjwt>=2.10.1,<3"' in text
    script.write_text(text.replace('"pyjwt>=2.10.1,<3"', '"pyjwt>=2.10.1,<3", "packaging"'))
    done = silo.run("install", str(folder), "--yes", "--name", "drifted", status=2)
    assert code(done) == "lock-drift"
    assert "packaging" in done.err
    assert "drifted" not in silo.installed()


@pytest.mark.parametrize("mib", [8, 120, 200])
def test_full_disk_is_told_in_a_line_and_leaves_nothing_half_installed(silo, tiny, tmp_path, mib):
    """8 MiB are too few for the interpreter's files, 120 MiB for their image, and 200 MiB for a guest's memory."""
    home = tmp_path / "full"
    home.mkdir(mode=0o700)
    report = tmp_path / "left"
    script = f'mount -t tmpfs -o size={mib}m,mode=700 tmpfs "{home}"'
    after = f'; status=$?; find "{home}" >"{report}"; exit $status'
    done = silo.run(
        "install",
        str(tiny),
        "--yes",
        status=5,
        prefix=_with_mount(script, after),
        environ={"SILO_HOME": str(home)},
    )
    assert code(done) == "sandbox-broken"
    assert "No space left on device" in done.err
    assert "free space" in done.err
    assert max(len(line) for line in lines(done.err)) < 1000
    left = report.read_text()
    assert str(home) in left
    assert "/skills/tiny" not in left
    assert "/.building-" not in left
    assert "/.staging-" not in left


def _with_mount(mount: str, after: str = "") -> list[str]:
    """Return the prefix of a command that runs it in a mount namespace with something mounted."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    return [*own, "sh", "-c", f'{mount} && "$@"{after}', "sh"]


def test_documents_of_commands_are_json_with_sorted_keys(silo):
    for command in (["list"], ["inspect", "jwt"], ["search", "sign"], ["vault", "list"], ["audit", "show"]):
        done = silo.run(*command, "--json")
        document = json.loads(done.out)
        assert list(document) == sorted(document), command
        assert done.err == "", command
