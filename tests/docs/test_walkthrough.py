"""The follower of tutorials itself: a follower that overlooks a difference would make the tutorial's test worthless."""

from __future__ import annotations

import os

import pytest

PAGE = """\
Save this:

```python title="folder/greet.py"
print("hello")
```

```console
$ export WHO=world
$ python3 folder/greet.py
hello
$ false
$ echo $? $WHO
1 world
```
"""


@pytest.fixture
def environ():
    return {"PATH": os.environ["PATH"]}


def _walk(walkthrough, tmp_path, text, environ, **given):
    page = tmp_path / "page.md"
    page.write_text(text)
    folder = tmp_path / "work"
    folder.mkdir()
    return walkthrough.walk(page, folder, environ, **given)


def test_files_and_commands_are_found_in_order_with_their_lines(walkthrough):
    steps = walkthrough.read_steps(PAGE)
    assert [step.line for step in steps] == [3, 8, 9, 11, 12]
    assert steps[0].path == "folder/greet.py"
    assert steps[2].expected == ("hello",)


def test_what_a_command_exports_is_there_for_the_next_and_a_status_can_be_shown(walkthrough, tmp_path, environ):
    text = PAGE.replace("$ false\n$ echo $? $WHO\n1 world", "$ echo $WHO\nworld\n$ false\n$ echo $?\n1")
    assert _walk(walkthrough, tmp_path, text, environ) == 6


@pytest.mark.parametrize(
    ("shown", "said", "fits"),
    [
        (["hello"], ["hello"], True),
        (["hello"], ["hello", "more"], False),
        (["hello"], [], False),
        ([], ["anything"], False),
        (["..."], [], True),
        (["..."], ["one", "two"], True),
        (["a", "...", "z"], ["a", "b", "c", "z"], True),
        (["a", "...", "z"], ["a", "b", "c"], False),
        (["took ... s"], ["took 0.12 s"], True),
        (["took ... s"], ["took 0.12 s, or more"], False),
        (["took ... s"], ["took", "0.12 s"], False),
        (["a.c"], ["abc"], False),
    ],
)
def test_dots_stand_for_lines_or_text_and_for_nothing_else(walkthrough, shown, said, fits):
    assert walkthrough.matches(shown, said) is fits


def test_output_that_the_page_does_not_show_is_a_failure(walkthrough, tmp_path, environ):
    with pytest.raises(walkthrough.WalkthroughFailed, match=r"page\.md:2.*surprise"):
        _walk(walkthrough, tmp_path, "```console\n$ echo surprise\n```\n", environ)


def test_a_command_that_fails_unannounced_is_a_failure(walkthrough, tmp_path, environ):
    with pytest.raises(walkthrough.WalkthroughFailed, match="status 1"):
        _walk(walkthrough, tmp_path, "```console\n$ false\n```\n", environ)


def test_words_are_replaced_in_what_is_expected_and_not_in_what_is_typed(walkthrough, tmp_path, environ):
    text = "```console\n$ echo namespace # microvm\nmicrovm\n```\n"
    assert _walk(walkthrough, tmp_path, text, environ, replacing={"microvm": "namespace"}) == 1


def test_a_command_that_hangs_is_ended(walkthrough, tmp_path, environ):
    with (
        walkthrough.Shell(tmp_path, environ) as shell,
        pytest.raises(walkthrough.WalkthroughFailed, match="did not end"),
    ):
        shell.run("read line < <(tail -f /dev/null)", timeout_s=0.2)


def test_lines_of_progress_are_left_out_and_hints_are_not(walkthrough, tmp_path, environ):
    with walkthrough.Shell(tmp_path, environ) as shell:
        said = shell.run("echo 'silo: booting a microVM ...'; echo 'silo: hint: silo run x ...'; echo 'other: a ...'")
    assert said == (0, ["silo: hint: silo run x ...", "other: a ..."])


def test_a_command_gets_no_input(walkthrough, tmp_path, environ):
    with walkthrough.Shell(tmp_path, environ) as shell:
        assert shell.run("cat") == (0, [])
