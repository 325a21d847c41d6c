"""Configuration: which source wins, and the errors for bad input."""

from pathlib import Path

import pytest

from silo.config.load import VARIABLES, load
from silo.config.schema import Config
from silo.errors import ConfigInvalid, ConfigUnknownKey
from silo.model import Isolation


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "silo.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return tmp_path

    return write


def test_without_a_file_every_value_is_the_safe_default(tmp_path):
    loaded = load(tmp_path, environ={})
    assert loaded.config == Config()
    assert loaded.config.sandbox.min_isolation is Isolation.MICROVM
    assert loaded.config.files.allow_read == ()
    assert set(loaded.origins.values()) == {"default"}


def test_flag_beats_environment_beats_file_beats_default(write):
    home = write("[sandbox]\nbackend = 'gvisor'\n[approval]\ntimeout_s = 5\n")
    key = "sandbox.backend"
    by_file = load(home, environ={})
    by_environment = load(home, environ={"SILO_BACKEND": "microvm"})
    by_flag = load(home, environ={"SILO_BACKEND": "microvm"}, overrides={key: "namespace"})
    assert (by_file.config.sandbox.backend, by_file.origins[key]) == ("gvisor", "silo.toml:2")
    assert (by_environment.config.sandbox.backend, by_environment.origins[key]) == ("microvm", "SILO_BACKEND")
    assert (by_flag.config.sandbox.backend, by_flag.origins[key]) == ("namespace", "flag")
    assert by_flag.origins["approval.timeout_s"] == "silo.toml:4"
    assert by_flag.origins["call.max_concurrent"] == "default"


def test_a_misspelt_key_is_an_error_with_place_and_suggestion(write):
    home = write("# comment\n[files]\nallow_read = [\n  '/srv',\n]\n\n[sandbox]\nmin_isolaton = 'microvm'\n")
    with pytest.raises(ConfigUnknownKey) as caught:
        load(home, environ={})
    assert str(caught.value) == "silo.toml:8: unknown key 'sandbox.min_isolaton'"
    assert caught.value.hint == "did you mean 'sandbox.min_isolation'?"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[sandbx]\nwarm = 1", "silo.toml:1: unknown key 'sandbx'"),
        ("\nsandbox.warn = 1", "silo.toml:2: unknown key 'sandbox.warn'"),
        ("[sandbox]\nwarm = 1\n[sandbox.deeper]\nx = 1", "silo.toml:3: unknown key 'sandbox.deeper'"),
        ("sandbox = {warm = 1, extra = 2}", "silo.toml:1: unknown key 'sandbox.extra'"),
        ("nothing = 1", "silo.toml:1: unknown key 'nothing'"),
    ],
)
def test_an_unknown_key_is_found_wherever_it_stands(write, text, place):
    with pytest.raises(ConfigUnknownKey) as caught:
        load(write(text), environ={})
    assert str(caught.value) == place
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[sandbox]\nwarm = 9", "silo.toml:2: sandbox.warm"),
        ("[sandbox]\nbackend = 'docker'", "silo.toml:2: sandbox.backend"),
        ("[files]\nallow_read = ['data']", "silo.toml:2: files.allow_read"),
        ("[files]\nallow_read = ['/']", "silo.toml:2: files.allow_read"),
        ("[files]\nallow_read = ['/srv/../etc']", "silo.toml:2: files.allow_read"),
        ("[approval]\nheadless = 'perhaps'", "silo.toml:2: approval.headless"),
        ("sandbox = 1", "silo.toml:1: 'sandbox' is a table"),
        ("x = ", "silo.toml is not TOML"),
        ("[sandbox]\nwarm = 1\nwarm = 2", "silo.toml is not TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        ("#" * 300_000, "is larger than 256 KiB"),
    ],
)
def test_a_bad_file_stops_silo_and_says_where(write, text, place):
    with pytest.raises(ConfigInvalid) as caught:
        load(write(text), environ={})
    assert place in str(caught.value)
    assert caught.value.hint


def test_a_file_that_others_can_write_is_refused_with_the_command_that_mends_it(write):
    home = write("", mode=0o620)
    with pytest.raises(ConfigInvalid, match="can be written by other users") as caught:
        load(home, environ={})
    assert caught.value.hint == f"chmod 600 {home}/silo.toml"


def test_a_folder_in_place_of_the_file_stops_silo(tmp_path):
    (tmp_path / "silo.toml").mkdir()
    with pytest.raises(ConfigInvalid):
        load(tmp_path, environ={})


def test_every_variable_sets_its_key(tmp_path):
    values = {
        "SILO_BACKEND": "namespace",
        "SILO_HEADLESS": "1",
        "SILO_KERNEL": "/srv/kernel",
        "SILO_MIN_ISOLATION": "namespace",
    }
    assert values.keys() == VARIABLES.keys()
    config = load(tmp_path, environ=values).config
    assert config.sandbox.backend == "namespace"
    assert config.sandbox.min_isolation is Isolation.NAMESPACE
    assert config.sandbox.kernel == Path("/srv/kernel")
    assert config.approval.headless is True


@pytest.mark.parametrize("name", ["SILO_HEADLES", "SILO_MIN_ISOLATE", "SILO_"])
def test_an_unknown_variable_of_ours_is_an_error(tmp_path, name):
    with pytest.raises(ConfigUnknownKey, match=name):
        load(tmp_path, environ={name: "1"})


def test_an_empty_variable_is_an_error_and_not_a_default(tmp_path):
    with pytest.raises(ConfigInvalid, match="SILO_MIN_ISOLATION is set but empty"):
        load(tmp_path, environ={"SILO_MIN_ISOLATION": ""})


def test_other_variables_are_left_alone(tmp_path):
    environ = {"SILO_HOME": "x", "SILO_MASTER_KEY": "y", "SILO_TEST_X": "z", "PATH": "/bin", "SILOS": "1"}
    assert load(tmp_path, environ=environ).config == Config()


def test_an_unknown_override_is_an_error(tmp_path):
    with pytest.raises(ConfigUnknownKey, match=r"sandbox\.backends"):
        load(tmp_path, environ={}, overrides={"sandbox.backends": "microvm"})


def test_rows_show_every_key_once_in_json_values(write):
    loaded = load(write("[files]\nallow_read = ['/srv']"), environ={})
    rows = {key: (value, origin) for key, value, origin in loaded.rows()}
    assert rows["files.allow_read"] == (["/srv"], "silo.toml:2")
    assert rows["sandbox.min_isolation"] == ("microvm", "default")
    assert list(rows) == sorted(rows)
    assert rows.keys() == loaded.origins.keys()


def test_every_setting_says_what_it_means():
    for section in Config.model_json_schema()["$defs"].values():
        for name, field in section.get("properties", {}).items():
            assert field.get("description"), name


def test_a_config_can_not_be_changed(tmp_path):
    config = load(tmp_path, environ={}).config
    with pytest.raises(ValueError, match="frozen"):
        config.sandbox.warm = 2
