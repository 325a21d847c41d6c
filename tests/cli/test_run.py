"""`silo run`: from words to a result, which stream gets what, and how each failure ends."""

import base64
import json

import pytest

SECRET = "correct horse battery staple"


def test_words_become_arguments_of_the_types_that_the_tool_takes(silo):
    found = silo(
        "run",
        "demo.echo",
        "text=7",
        "times=7",
        "ratio=0.5",
        "loud",
        "tags=a",
        "tags=b",
        'claims={"sub": "42"}',
        "--json",
    )
    assert found.status == 0, found.err
    data = found.json["data"]
    del data["files"]
    assert data == {
        "text": "7",
        "times": 7,
        "ratio": 0.5,
        "loud": True,
        "tags": ["a", "b"],
        "claims": {"sub": "42"},
    }


def test_skill_and_tool_may_be_two_words(silo):
    assert silo("run", "demo", "echo", "text=hi").json == {"files": [], "text": "hi"}
    assert silo("run", "demo__echo", "text=hi").json == {"files": [], "text": "hi"}


def test_a_file_is_read_where_the_tool_takes_one_and_only_there(silo, tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("a,b\n")
    found = silo("run", "demo.echo", f"data=@{path}", f"more=@{path}", f"more=@{path}", f"text=@{path}")
    assert found.status == 0, found.err
    assert found.json["files"] == [["sales.csv", "text/csv", "a,b\n"]] * 3
    assert found.json["text"] == f"@{path}"


def test_standard_input_can_be_a_file_or_all_arguments(silo):
    assert silo("run", "demo.echo", "data=@-", stdin=b"piped").json["files"][0][2] == "piped"
    assert silo("run", "demo.echo", "--args", "-", "times=2", stdin=b'{"text": "x", "times": 1}').json == {
        "files": [],
        "text": "x",
        "times": 2,
    }
    found = silo("run", "demo.echo", "--args", "-", "data=@-")
    assert (found.status, found.code) == (2, "usage")


def test_arguments_come_from_a_file(silo, tmp_path):
    (tmp_path / "args.json").write_text('{"text": "x"}')
    assert silo("run", "demo.echo", "--args", f"@{tmp_path / 'args.json'}").json["text"] == "x"


def test_text_goes_to_stdout_and_what_the_skill_printed_to_stderr(silo):
    found = silo("run", "demo.printing")
    assert (found.status, found.out) == (0, "done\n")
    assert "  | first\n  | second\n" in found.err
    assert found.err.count("  | ") == 3


def test_the_document_has_everything_that_a_call_came_to(silo, golden):
    found = silo("run", "demo.printing", "--json")
    document = found.json
    assert document.pop("timing")["total"] >= 0
    golden("run.json", json.dumps(document, indent=2, sort_keys=True) + "\n")
    assert found.err == ""


def test_timing_is_told_on_stderr(silo):
    found = silo("run", "demo.echo", "--timing")
    assert found.json == {"files": []}
    assert [line.split()[0] for line in found.err.splitlines()][-1] == "total"


def test_files_are_written_beside_each_other_and_over_nothing(silo, tmp_path):
    folder = tmp_path / "new" / "out"
    assert silo("run", "demo.files", "--output", str(folder)).status == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.txt": b"one",
        "a-2.txt": b"two",
        "file-3.bin": b"\x00\xff",
    }
    found = silo("run", "demo.files", "--output", str(folder), "--json")
    assert (folder / "a.txt").read_bytes() == b"one"
    assert [file["path"] for file in found.json["files"]] == [
        str(folder / name) for name in ("a-3.txt", "a-4.txt", "file-3-2.bin")
    ]


def test_a_link_in_the_output_folder_is_not_followed(silo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to(tmp_path / "elsewhere.txt")
    silo("run", "demo.files", "--output", str(tmp_path / "out"))
    assert not (tmp_path / "elsewhere.txt").exists()


def test_files_that_are_not_written_are_in_the_document_or_named(silo):
    document = silo("run", "demo.files", "--json").json
    assert base64.b64decode(document["files"][2]["base64"]) == b"\x00\xff"
    found = silo("run", "demo.files")
    assert found.out == "three files\n"
    assert "--output" in found.err


def test_an_output_folder_that_cannot_be_is_told_before_the_call(silo, tmp_path):
    (tmp_path / "file").write_text("")
    found = silo("run", "demo.echo", "--output", str(tmp_path / "file"))
    assert (found.status, found.code) == (2, "usage")
    assert silo("audit", "show", "--json").json["records"][-1]["event"] == "install"


def test_a_document_holds_nothing_that_moves_a_cursor(silo):
    found = silo("run", "demo.hostile", "--json")
    assert found.out.isprintable() or set(found.out) - {"\n"} == {c for c in found.out if c.isprintable()}
    assert found.json["data"] == "\x9b\u202e\x7f"


def test_a_failure_that_the_tool_reports_is_printed_and_exits_with_1(silo):
    found = silo("run", "demo.complaining")
    assert (found.status, found.out, found.code) == (1, "no such row\n", "skill-failed")
    document = silo("run", "demo.complaining", "--json")
    assert (document.status, document.json["is_error"]) == (1, True)


def test_an_exception_shows_traceback_and_prints_on_stderr_only(silo):
    found = silo("run", "demo.raising", "--json")
    assert (found.status, found.out, found.code) == (1, "", "skill-exception")
    assert "  | ValueError: no\n" in found.err
    assert "  | first\n" in found.err


def test_a_secret_is_leased_from_the_vault_and_redacted(silo):
    missing = silo("run", "demo.keyed")
    assert (missing.status, missing.code, missing.out) == (4, "secret-missing", "")
    assert missing.hint == "add it with `silo vault add DEMO_KEY`"
    silo("vault", "add", "DEMO_KEY", stdin=SECRET.encode())
    found = silo("run", "demo.keyed")
    assert (found.status, found.out) == (0, "the key is [redacted:DEMO_KEY]\n")
    del silo.environ["SILO_MASTER_KEY"]
    locked = silo("run", "demo.keyed")
    assert (locked.status, locked.code) == (4, "vault-locked")


def test_without_a_terminal_a_guarded_tool_is_refused(silo):
    found = silo("run", "demo.guarded")
    assert (found.status, found.code, found.out) == (3, "approval-required", "")
    assert "SILO_APPROVAL_REQUIRED" in found.err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["demo.ecko"], "tool-unknown", "demo.echo"),
        (["dem.echo"], "skill-unknown", "demo"),
        (["DEMO.echo"], "skill-unknown", "did you mean 'demo.echo'"),
        (["demoecho", "text=x"], "tool-unknown", "did you mean 'demo.echo'"),
        (["echo"], "tool-unknown", "did you mean 'demo.echo'"),
        (["zzz", "text=x"], "tool-unknown", "silo list"),
        (["demo"], "usage", "silo inspect demo"),
        (["demo", "text=x"], "usage", "silo inspect demo"),
        (["demo.echo", "txt=x"], "arguments-invalid", "'text'"),
        (["demo.echo", "times=x"], "arguments-invalid", "times?: integer"),
        (["demo.echo", "claims={"], "arguments-invalid", "single quotes"),
        (["demo.echo", "text:=nope"], "arguments-invalid", "single quotes"),
        (["demo.echo", "times=1", "times=2"], "arguments-invalid", "once"),
        (["demo.echo", "=x"], "arguments-invalid", "key=value"),
        (["demo.echo", "--args", "[]"], "arguments-invalid", "--args"),
        (["demo.echo", "--args", "{"], "arguments-invalid", "single quotes"),
        (["demo.echo", "--args", "@/nonexistent"], "file-refused", "check the path"),
        (["demo.echo", "data=@/nonexistent"], "file-refused", "check the path"),
        (["demo.echo", "data=@/"], "file-refused", "check the path"),
        (["demo.echo", "data=@/a\0b"], "file-refused", "check the path"),
        (["demo.echo", "data=@/dev/zero"], "file-refused", "max_mib"),
        (["demo.echo", "--backend", "container"], "usage", "silo run --help"),
        (["demo.echo", "--jason"], "usage", "silo run --help"),
        ([], "usage", "silo run --help"),
    ],
)
def test_what_makes_no_sense_exits_with_2_says_why_and_runs_nothing(silo, words, code, told):
    found = silo("run", *words)
    assert (found.status, found.code, found.out) == (2, code, ""), found.err
    assert told in found.hint
    assert all(record["event"] != "call" for record in silo("audit", "show", "--json").json["records"])


def test_no_sandbox_exits_with_5(silo):
    silo.works = False
    found = silo("run", "demo.echo")
    assert (found.status, found.code, found.out) == (5, "sandbox-unavailable", "")


def test_a_backend_that_was_named_is_not_replaced_by_another(silo):
    found = silo("run", "demo.echo", "--backend", "namespace")
    assert (found.status, found.code) == (5, "sandbox-unavailable")


def test_a_bug_exits_with_70_and_quotes_nothing(silo):
    found = silo("run", "demo.broken")
    assert (found.status, found.code, found.out) == (70, "internal-error", "")
    assert "RuntimeError" in found.err
    assert "s3cr3t" not in found.err
    assert "Traceback" not in found.err
    assert "SILO_DEBUG=1" in found.hint
    assert "Traceback" in silo("run", "demo.broken", debug=True).err
