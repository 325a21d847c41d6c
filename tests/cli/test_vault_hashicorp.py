"""`[hashicorp]` and `[secrets]` in `silo.toml` with a real OpenBao server: its keys, its secrets, and refusals."""

import importlib.util
import secrets
from pathlib import Path

import pytest

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def bao(tmp_path_factory):
    place = Path(__file__).parents[1] / "silo_vault" / "hashicorp" / "bao.py"
    spec = importlib.util.spec_from_file_location("silo_cli_tests_bao", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.running(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture
def transit(bao):
    """A transit engine with its own key, and a policy that allows its use."""
    mount = bao.mount("transit")
    bao.write(f"{mount}/keys/silo", {})
    return mount


def configure(silo, bao, text, *, token=None):
    silo.home.mkdir(mode=0o700, exist_ok=True)
    path = silo.home / "silo.toml"
    path.write_text(text)
    path.chmod(0o600)
    silo.environ |= {"VAULT_ADDR": bao.address, "VAULT_TOKEN": token or bao.token}


def token_for(bao, rules):
    policy = bao.policy(rules)
    return bao.write("auth/token/create", {"policies": [policy], "no_default_policy": True})["auth"]["client_token"]


def kinds(silo):
    return [key["kind"] for key in silo("vault", "status", "--json").json["keys"]]


NOTHING = 'path "none" { capabilities = ["read"] }'
TRANSIT = '[hashicorp]\nkey = "transit"\ntransit_mount = "{}"\n'
RULES = """
path "{0}/keys/silo" {{ capabilities = ["read"] }}
path "{0}/encrypt/silo" {{ capabilities = ["update"] }}
path "{0}/decrypt/silo" {{ capabilities = ["update"] }}
"""


def test_a_new_vault_is_locked_with_the_servers_key_and_opens_with_it_alone(bare_silo, bao, transit):
    configure(bare_silo, bao, TRANSIT.format(transit), token=token_for(bao, RULES.format(transit)))
    found = bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    assert (found.status, found.err) == (0, "")
    assert kinds(bare_silo) == ["transit"]
    del bare_silo.environ["SILO_MASTER_KEY"]
    assert bare_silo("vault", "list").out == "KEY\n"
    assert SECRET.encode() not in (bare_silo.home / "credentials.silo").read_bytes()


def test_access_that_was_revoked_is_refused_and_not_papered_over_by_another_key(bare_silo, bao, transit):
    configure(bare_silo, bao, TRANSIT.format(transit))
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    assert bare_silo("vault", "rekey", "--add", "env", "--from-env", "SILO_MASTER_KEY").status == 0
    bare_silo.environ["VAULT_TOKEN"] = token_for(bao, NOTHING)
    found = bare_silo("vault", "list")
    assert (found.status, found.code, found.out) == (4, "vault-refused", "")
    assert bare_silo.environ["VAULT_TOKEN"] not in found.err


def test_a_server_that_is_gone_is_said_to_be_and_a_second_key_opens_the_vault(bare_silo, bao, transit):
    configure(bare_silo, bao, TRANSIT.format(transit) + "deadline_s = 2\nmax_retries = 0\n")
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo.environ["VAULT_ADDR"] = "http://127.0.0.1:1"
    found = bare_silo("vault", "list")
    assert (found.status, found.code) == (4, "vault-unreachable")
    bare_silo.environ["VAULT_ADDR"] = bao.address
    bare_silo("vault", "rekey", "--add", "env", "--from-env", "SILO_MASTER_KEY")
    bare_silo.environ["VAULT_ADDR"] = "http://127.0.0.1:1"
    assert bare_silo("vault", "list").out == "KEY\n"


def test_after_a_rotation_on_the_server_the_data_key_is_wrapped_by_the_new_version(bare_silo, bao, transit):
    configure(bare_silo, bao, TRANSIT.format(transit))
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    assert b"vault:v1:" in (bare_silo.home / "credentials.silo").read_bytes()
    bao.write(f"{transit}/keys/silo/rotate")
    assert bare_silo("vault", "rekey", "--replace", "transit").status == 0
    assert b"vault:v2:" in (bare_silo.home / "credentials.silo").read_bytes()
    bao.write(f"{transit}/keys/silo/config", {"min_decryption_version": 2})
    assert bare_silo("vault", "list").out == "KEY\n"


def test_a_vault_moves_from_the_environments_key_to_the_servers(bare_silo, bao, transit):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    old = bare_silo("vault", "status", "--json").json["keys"][0]["key_id"]
    configure(bare_silo, bao, TRANSIT.format(transit))
    assert bare_silo("vault", "rekey", "--add", "transit", "--remove", old).status == 0
    assert kinds(bare_silo) == ["transit"]
    assert bare_silo("vault", "rotate").status == 0
    del bare_silo.environ["SILO_MASTER_KEY"]
    assert bare_silo("vault", "list").out == "KEY\n"


def test_the_key_can_lie_in_a_kv_engine(bare_silo, bao):
    mount = bao.mount("kv", version="2")
    bao.write(f"{mount}/data/silo", {"data": {"kek": "ab" * 32}})
    configure(bare_silo, bao, f'[hashicorp]\nkey = "kv"\nkek_path = "{mount}/silo#kek"\n')
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    assert kinds(bare_silo) == ["kv"]
    bao.write(f"{mount}/data/silo", {"data": {"kek": "cd" * 32}})
    assert bare_silo("vault", "list").code == "vault-locked"


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_call_gets_its_secret_from_the_server_before_any_other_place(silo, bao, version):
    mount = bao.mount("kv", version=version)

    def store(path, **values):
        bao.write(
            f"{mount}/data/{path}" if version == "2" else f"{mount}/{path}",
            {"data": values} if version == "2" else values,
        )

    silo("vault", "add", "DEMO_KEY", stdin=b"an older copy in the file")
    store("silo", DEMO_KEY="for all skills on the server")
    configure(silo, bao, f'[secrets]\nhashicorp_path = "{mount}/silo"\n')
    assert silo("run", "demo.keyed").out == "the key is [redacted:DEMO_KEY]\n"
    store("silo", OTHER="x")
    assert silo("run", "demo.keyed").status == 0  # from the vault file, because the server has no such secret
    silo("vault", "remove", "DEMO_KEY")
    found = silo("run", "demo.keyed")
    assert (found.status, found.code) == (4, "secret-missing")
    store("silo/demo", DEMO_KEY="for this skill on the server")
    assert silo("run", "demo.keyed").out == "the key is [redacted:DEMO_KEY]\n"


def test_a_server_that_refuses_a_secret_ends_the_call_though_the_file_has_one(silo, bao):
    silo("vault", "add", "DEMO_KEY", stdin=b"an older copy in the file")
    configure(silo, bao, '[secrets]\nhashicorp_path = "secret/silo"\n', token=token_for(bao, NOTHING))
    found = silo("run", "demo.keyed")
    assert (found.status, found.code, found.out) == (4, "vault-refused", "")
    silo.environ["SILO_HEADLESS"] = "1"
    assert "SILO_AUTH_REQUIRED" in silo("run", "demo.keyed").err


def test_a_mapped_secret_is_looked_up_there_alone(silo, bao):
    mount = bao.mount("kv", version="1")
    token = secrets.token_hex(8)
    bao.write(f"{mount}/team", {"token": token})
    silo("vault", "add", "DEMO_KEY", stdin=b"not this one")
    configure(silo, bao, f'[secrets.sources]\nDEMO_KEY = "vault://{mount}/team#token"\n')
    assert silo("run", "demo.keyed").out == "the key is [redacted:DEMO_KEY]\n"
    assert token not in silo("run", "demo.keyed", "--json").out
    configure(silo, bao, f'[secrets.sources]\n"demo.DEMO_KEY" = "vault://{mount}/team#gone"\n')
    found = silo("run", "demo.keyed")
    assert (found.status, found.code) == (4, "secret-missing")
    assert "#gone" in found.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[hashicorp]\nkey = "transit"\naddress = "http://vault.example:8200"\n', "unencrypted"),
        ('[hashicorp]\nkey = "kv"\n', "kek_path"),
        ('[hashicorp]\nkey = "transit"\nauth = "approle"\n', "approle"),
        ('[secrets.sources]\nKEY = "vault://x"\n', "must be vault://"),
        ('[secrets]\nhashicorp_path = "../sys"\n', "must be vault://"),
        ('[hashicorp]\ntoken = "s.secret-token"\n', "unknown key"),
        ("[hashicorp]\nskip_verify = true\n", "unknown key"),
    ],
)
def test_a_setting_that_opens_what_must_stay_shut_is_an_error(bare_silo, bao, text, said):
    configure(bare_silo, bao, text)
    if "address" in text:
        del bare_silo.environ["VAULT_ADDR"]  # it would override the file
    found = bare_silo("vault", "list")
    assert found.status in (2, 4)
    assert said in found.err
    assert found.hint


def test_a_variable_comes_before_the_file(bare_silo, bao, transit):
    configure(bare_silo, bao, TRANSIT.format(transit) + 'address = "http://127.0.0.1:1"\n')
    assert bare_silo("vault", "add", "KEY", stdin=SECRET.encode()).status == 0
    assert kinds(bare_silo) == ["transit"]
