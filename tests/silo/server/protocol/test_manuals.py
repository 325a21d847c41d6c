from __future__ import annotations

import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from silo.server.protocol.manuals import MAX_MANUAL_BYTES, compose, read_manual


def test_what_the_code_says_of_itself_comes_before_the_file(fakes, tmp_path):
    (tmp_path / "SKILL.md").write_text("from the file")
    skill = fakes.make_skill("demo", folder=tmp_path, instructions="from the code")
    assert "from the code" in read_manual(skill).text
    assert "from the file" not in read_manual(skill).text


def test_skill_without_any_text_has_a_manual_of_its_tools(fakes):
    skill = fakes.make_skill("demo", fakes.make_tool("demo.a"), fakes.make_tool("demo.b", require_approval=True))
    text = read_manual(skill).text
    assert "- `demo.a`: Do a.\n" in text
    assert "- `demo.b`: Do b. (asks a person first)\n" in text


def test_link_in_place_of_the_file_is_not_followed(fakes, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not show")
    (tmp_path / "SKILL.md").symlink_to(secret)
    assert "do not show" not in read_manual(fakes.make_skill("demo", folder=tmp_path)).text


def test_fifo_or_socket_in_place_of_the_file_does_not_block(fakes, tmp_path):
    os.mkfifo(tmp_path / "SKILL.md")
    assert "## Tools" in read_manual(fakes.make_skill("demo", folder=tmp_path)).text
    (tmp_path / "SKILL.md").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "SKILL.md"))
        assert "## Tools" in read_manual(fakes.make_skill("demo", folder=tmp_path)).text


def test_endless_file_is_cut(fakes, tmp_path):
    (tmp_path / "SKILL.md").write_bytes(b"x" * (MAX_MANUAL_BYTES + 1000))
    assert read_manual(fakes.make_skill("demo", folder=tmp_path)).text.count("x") <= MAX_MANUAL_BYTES + 10


@given(st.text(max_size=200))
def test_front_matter_is_always_ours(fakes, author):
    text = compose(fakes.make_skill("demo"), author).text
    assert text.startswith('---\nname: "demo"\ndescription: "The demo skill."\n---\n')


def test_front_matter_of_the_author_is_dropped_and_an_open_one_is_kept_as_text(fakes):
    skill = fakes.make_skill("demo")
    assert "name: evil" not in compose(skill, "---\r\nname: evil\r\n---\r\nbody").text
    assert "name: evil" in compose(skill, "---\nname: evil\nbody").text
