"""SILO_HOME: made private, refused when others could change it."""

import os
from pathlib import Path

import pytest

from silo.config.home import default_home, prepare_home
from silo.errors import HomeUnsafe


def test_it_is_made_for_its_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        home = prepare_home(tmp_path / "new" / "home")
    finally:
        os.umask(old)
    assert home.stat().st_mode & 0o777 == 0o700


def test_an_existing_one_is_left_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    prepare_home(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_one_that_others_can_write_is_refused_with_the_command_that_mends_it(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(HomeUnsafe) as caught:
        prepare_home(tmp_path)
    assert caught.value.hint == f"chmod 700 {tmp_path}"
    tmp_path.chmod(0o700)


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeUnsafe, match="not a folder"):
        prepare_home(tmp_path / "home")


def test_a_place_that_can_not_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnsafe, match="can't use"):
        prepare_home(tmp_path / "file" / "home")


def test_one_of_another_user_is_refused(tmp_path):
    theirs = Path("/usr")  # belongs to root; root itself can make a folder that belongs to another user
    if os.geteuid() == 0:
        theirs = tmp_path
        os.chown(theirs, 12345, -1)
    with pytest.raises(HomeUnsafe, match="belongs to another user"):
        prepare_home(theirs)


def test_it_is_found_by_variable_then_below_the_users_home(tmp_path):
    assert default_home({"SILO_HOME": str(tmp_path)}) == tmp_path
    assert default_home({"HOME": str(tmp_path)}) == tmp_path / ".silo"
    assert default_home({"SILO_HOME": "", "HOME": str(tmp_path)}) == tmp_path / ".silo"


def test_a_relative_one_is_refused():
    with pytest.raises(HomeUnsafe, match="not an absolute path"):
        default_home({"SILO_HOME": "state"})
