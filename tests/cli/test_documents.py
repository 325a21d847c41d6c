"""What a person reads about a skill before they agree to it."""

from dataclasses import replace

from silo.cli.documents import header_document
from silo.install.facts import changes, header_facts
from silo.testing.fakes import make_skill


def test_examples_are_shown_before_an_install_and_so_is_a_change_of_them():
    before = make_skill()
    header = replace(before.header, examples={"echo": ("say it again", "parrot")})
    assert ("found by", "echo: 'say it again', 'parrot'") in header_facts(header, ())
    assert "found by" not in dict(header_facts(before.header, ()))
    assert header_document(header)["examples"] == {"echo": ["say it again", "parrot"]}
    assert changes(before, header, ()) == ["examples of echo changed"]
    assert changes(before, before.header, ()) == []
