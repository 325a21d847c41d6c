"""What `build_parts` builds from a home folder and a configuration."""

import pytest

from silo.compose.parts import build_parts
from silo.config.schema import Config
from silo.model import Caller
from silo.testing.fakes import FakeBackend, FakeImages


@pytest.fixture
def build(tmp_path):
    def build(**fields):
        fields = {"config": Config(), "environ": {}, "caller": Caller("library"), "channel": None} | fields
        fields = {"ask_passphrase": None, "show_code": None, "backends": [FakeBackend()]} | fields
        return build_parts(home=tmp_path / "home", images=FakeImages(tmp_path / "images"), **fields)

    return build


def test_nothing_is_made_on_disk_but_the_home_folder(build):
    parts = build()
    assert list(parts.home.iterdir()) == []


def test_a_caller_without_a_session_gets_one_and_each_runtime_another(build):
    sessions = {build().caller.session, build().caller.session}
    assert len(sessions) == 2
    assert "" not in sessions
    assert build(caller=Caller("mcp", "client", "s1")).caller.session == "s1"


def test_with_learning_off_lessons_can_still_be_forgotten(build):
    parts = build(config=Config.model_validate({"router": {"learning": False}}))
    assert parts.finder.usage(parts.caller) == {}
    assert not parts.learned.clear()
