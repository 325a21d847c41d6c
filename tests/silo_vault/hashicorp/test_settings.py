import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import KeyUnavailable, VaultLocked
from silo_vault.hashicorp import VARIABLES, ServerSettings, settings_from
from silo_vault.hashicorp.settings import is_loopback, is_path

PATIENCE_S = 300.0

HTTPS = {"VAULT_ADDR": "https://vault.example:8200", "VAULT_TOKEN": "s.0123456789"}


def test_importing_it_loads_neither_hvac_nor_tls_nor_cryptography():
    code = (
        "import sys, silo_vault.hashicorp, silo_vault.keys.transit, silo_vault.keys.kv\n"
        "names = ('hvac', 'requests', 'ssl', 'http.client', 'cryptography', 'keyring'); "
        "print([name for name in names if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=PATIENCE_S) == "[]\n"


def test_the_variables_of_hashicorps_programs_are_honoured():
    environ = HTTPS | {
        "VAULT_NAMESPACE": "team/a/",
        "VAULT_CACERT": "/etc/ca.pem",
        "VAULT_CAPATH": "/etc/ca",
        "VAULT_CLIENT_CERT": "/etc/cert.pem",
        "VAULT_CLIENT_KEY": "/etc/key.pem",
        "VAULT_TLS_SERVER_NAME": "vault.internal",
        "VAULT_SKIP_VERIFY": "false",
        "VAULT_CLIENT_TIMEOUT": "1m30s",
        "VAULT_MAX_RETRIES": "5",
    }
    assert set(environ) == set(VARIABLES)
    assert settings_from(environ) == ServerSettings(
        "https://vault.example:8200",
        namespace="team/a",
        token="s.0123456789",
        ca_cert=Path("/etc/ca.pem"),
        ca_path=Path("/etc/ca"),
        client_cert=Path("/etc/cert.pem"),
        client_key=Path("/etc/key.pem"),
        tls_server_name="vault.internal",
        timeout_s=90.0,
        max_retries=5,
    )


def test_a_field_that_is_given_wins_over_its_variable_and_an_empty_variable_is_none():
    settings = settings_from(HTTPS | {"VAULT_NAMESPACE": ""}, address="https://other:1", ca_cert="/x.pem", role=None)
    assert (settings.address, settings.namespace, settings.ca_cert) == ("https://other:1", "", Path("/x.pem"))


def test_without_a_token_its_file_in_the_home_is_named():
    environ = {"VAULT_ADDR": HTTPS["VAULT_ADDR"], "HOME": "/home/me"}
    assert settings_from(environ).token_file == Path("/home/me/.vault-token")
    assert settings_from(environ | {"VAULT_TOKEN": "s.x"}).token_file is None
    assert settings_from(environ, token_file="/run/token").token_file == Path("/run/token")


def test_a_token_is_not_kept_where_the_login_is_another():
    settings = settings_from(HTTPS, auth="kubernetes", role="silo")
    assert settings.token is None
    assert settings.jwt_file == Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def test_a_jwt_comes_from_the_variable_that_is_named():
    settings = settings_from(HTTPS | {"ID_TOKEN": "a.b.c"}, auth="jwt", role="ci", jwt_variable="ID_TOKEN")
    assert settings.jwt == "a.b.c"


def test_no_repr_shows_a_token_or_a_jwt():
    shown = repr(settings_from(HTTPS)) + repr(ServerSettings("https://v", auth="jwt", role="r", jwt="a.secret.jwt"))
    assert "0123456789" not in shown
    assert "secret" not in shown.replace("secret_id", "")


def test_no_address_is_unavailable_and_not_wrong():
    with pytest.raises(KeyUnavailable, match="VAULT_ADDR is not set"):
        settings_from({"VAULT_TOKEN": "s.x"})


@pytest.mark.parametrize(
    "address",
    [
        "vault:8200",
        "ftp://vault",
        "https://",
        "https://:8200",
        "https://vault:port",
        "https://vault:99999",
        "https://vault:0",
        "https://user:hunter2@vault",
        "https://vault?x=1",
        "https://vault#x",
        "https://vault/../x",
        "https://va ult",
        "https://[::1",
        "unix:///run/vault.sock",
    ],
)
def test_what_is_no_address_is_refused_without_showing_a_password_in_it(address):
    with pytest.raises(VaultLocked) as caught:
        ServerSettings(address, token="s.x")
    assert "hunter2" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8200", "http://127.9.9.9", "http://[::1]:8200", "http://localhost"]
)
def test_plain_http_and_an_unchecked_certificate_are_for_this_machine(address):
    assert ServerSettings(address, token="s.x", skip_verify=True).address == address


@pytest.mark.parametrize(
    "host", ["vault", "10.0.0.1", "localhost.example", "127.0.0.1.example", "0.0.0.0", "[fe80::1]"]
)
def test_elsewhere_plain_http_and_an_unchecked_certificate_are_refused(host):
    with pytest.raises(VaultLocked, match="unencrypted"):
        ServerSettings(f"http://{host}", token="s.x")
    with pytest.raises(VaultLocked, match="VAULT_SKIP_VERIFY"):
        settings_from({"VAULT_ADDR": f"https://{host}", "VAULT_TOKEN": "s.x", "VAULT_SKIP_VERIFY": "1"})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"auth": "ldap"}, "no auth method 'ldap'"),
        ({"auth": "approle", "role_id": "r"}, "login by approle are missing"),
        ({"auth": "kubernetes"}, "login by kubernetes are missing"),
        ({"auth": "jwt", "role": "r"}, "login by jwt are missing"),
        ({"token": None}, "login by token are missing"),
        ({"namespace": "a/../b"}, "namespace"),
        ({"namespace": "a\r\nX-Vault-Token: b"}, "namespace"),
        ({"auth_mount": "a/./b"}, "auth_mount"),
        ({"auth_mount": "/a"}, "auth_mount"),
        ({"secret_id_wrapping_path": "a?b"}, "secret_id_wrapping_path"),
        ({"transit_mount": ""}, "transit_mount"),
        ({"transit_key": "../sys"}, "transit_key"),
        ({"transit_key": "a@b"}, "transit_key"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"max_retries": -1}, "max_retries"),
        ({"client_key": Path("k")}, "client_key"),
    ],
)
def test_a_setting_that_is_wrong_is_named(fields, words):
    with pytest.raises(VaultLocked, match=words):
        ServerSettings(**({"address": "https://vault", "token": "s.x"} | fields))


@pytest.mark.parametrize(
    ("text", "timeout_s"), [("60", 60), ("60s", 60), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400)]
)
def test_a_timeout_is_read_as_gos_programs_do(text, timeout_s):
    assert settings_from(HTTPS | {"VAULT_CLIENT_TIMEOUT": text}).timeout_s == timeout_s


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("VAULT_CLIENT_TIMEOUT", "soon"),
        ("VAULT_CLIENT_TIMEOUT", "-1"),
        ("VAULT_CLIENT_TIMEOUT", "0"),
        ("VAULT_MAX_RETRIES", "many"),
        ("VAULT_SKIP_VERIFY", "yes"),
    ],
)
def test_a_variable_that_is_malformed_is_refused(variable, text):
    with pytest.raises(VaultLocked):
        settings_from(HTTPS | {variable: text})


@given(st.text())
def test_a_path_holds_nothing_that_could_make_it_another_one(text):
    if is_path(text):
        assert not set(text) & set("?#%\\ \r\n\t\0")
        assert all(step.strip(".") for step in text.split("/"))


@given(st.text())
def test_only_this_machine_is_loopback(host):
    if is_loopback(host):
        assert host.lower() == "localhost" or host.startswith("127.") or ":" in host
