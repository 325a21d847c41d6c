"""Login, renewal and a new login, with a real OpenBao, or with `fake_server` for what OpenBao can't do on demand."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from silo_vault import AccessRefused, KeyUnavailable, KeyUnreachable, VaultLocked
from silo_vault.hashicorp import KvSecrets

READ = 'path "{mount}/data/*" {{ capabilities = ["read"] }}'

PATIENCE_S = 300.0


class Role:
    """An AppRole that may read one KV engine, in which `app#token` is `the-value`."""

    def __init__(self, bao, folder: Path, *, secret_id_num_uses: int = 0, namespace: str = "", **options) -> None:
        self._bao, self._namespace = bao, {"namespace": namespace} if namespace else {}
        self.file = folder / f"secret-id-{secrets.token_hex(4)}"
        self.kv = bao.mount("kv", version="2") if not namespace else "secret"
        bao.write(f"{self.kv}/data/app", {"data": {"token": "the-value"}}, **self._namespace)
        self.policy = bao.policy(READ.format(mount=self.kv), **self._namespace)
        self.place = bao.enable_auth("approle", **self._namespace)
        self.path = f"auth/{self.place}/role/silo"
        self._bao.write(
            self.path,
            {"token_policies": self.policy, "token_ttl": "60s", "secret_id_num_uses": secret_id_num_uses} | options,
            **self._namespace,
        )
        self.id = bao.read(f"{self.path}/role-id", **self._namespace)["data"]["role_id"]
        self.deliver()

    def deliver(self, text: str | None = None) -> str:
        """Write a new secret-id to the file."""
        text = text or self._bao.write(f"{self.path}/secret-id", **self._namespace)["data"]["secret_id"]
        self.file.write_text(text + "\n")
        self.file.chmod(0o600)
        return text

    def wrap(self, path: str | None = None) -> str:
        """Return a token that wraps a new secret-id."""
        answer = self._bao.write(path or f"{self.path}/secret-id", {"role_id": "x"} if path else {}, wrap_ttl="60")
        return answer["wrap_info"]["token"]

    @property
    def settings(self) -> dict:
        return {"auth": "approle", "auth_mount": self.place, "role_id": self.id, "secret_id_file": self.file}

    @property
    def alive(self) -> list[str]:
        """The accessors of its valid tokens."""
        return self._bao.accessors(self.place)


@pytest.fixture
def role(bao, folder):
    def make(**options) -> Role:
        return Role(bao, folder, **options)

    return make


def read(server, role: Role, path: str = "app"):
    """Read the field, without a cache."""
    found = KvSecrets(server, max_cache_s=0).read(f"{role.kv}/{path}", "token")
    return None if found is None else found.reveal()


# --- a token from the settings ----------------------------------------------------------------------------------------


def test_a_given_token_is_used_and_never_ended(bao, role, connect):
    made = role()
    token = bao.write("auth/token/create", {"policies": [made.policy]})["auth"]["client_token"]
    with connect(bao.address, token=token) as server:
        assert read(server, made) == "the-value"
    assert bao.ask("GET", "auth/token/lookup-self", token=token)[0] == 200


def test_a_given_token_is_renewed_when_two_thirds_of_its_time_are_over(bao, role, connect, clock):
    made = role()
    token = bao.write("auth/token/create", {"policies": [made.policy], "ttl": "60s"})["auth"]["client_token"]
    server = connect(bao.address, token=token)
    read(server, made)
    clock.ahead_s += 35
    read(server, made)
    assert bao.read("auth/token/lookup-self", token=token)["data"].get("last_renewal") is None
    clock.ahead_s += 5
    read(server, made)
    assert bao.read("auth/token/lookup-self", token=token)["data"]["last_renewal"]


def test_a_given_token_that_may_not_look_at_itself_is_used_all_the_same(bao, role, connect):
    made = role()
    body = {"policies": [made.policy], "no_default_policy": True}
    token = bao.write("auth/token/create", body)["auth"]["client_token"]
    assert read(connect(bao.address, token=token), made) == "the-value"


def test_a_token_file_is_read_again_when_its_token_has_ended(bao, role, connect, folder):
    made = role()
    file = folder / "token"

    def deliver() -> str:
        answer = bao.write("auth/token/create", {"policies": [made.policy]})["auth"]
        file.write_text(answer["client_token"])
        file.chmod(0o600)
        return answer["accessor"]

    first, server = deliver(), connect(bao.address, token_file=file)
    assert read(server, made) == "the-value"
    bao.end(first)
    with pytest.raises(AccessRefused):
        read(server, made)
    deliver()
    assert read(server, made) == "the-value"


def test_a_token_that_was_given_as_text_is_gone_after_forgetting(bao, role, connect):
    made = role()
    server = connect(bao.address, token=bao.token)
    assert read(server, made) == "the-value"
    server.forget()
    with pytest.raises(KeyUnavailable, match="VAULT_TOKEN was forgotten"):
        read(server, made)


def test_a_token_that_arrives_after_forgetting_is_not_kept(fake, role, connect):
    made = role()
    server = connect(fake.address, **made.settings)
    body = json.dumps({"auth": {"client_token": "s.one", "lease_duration": 60, "renewable": False}}).encode()

    def forget_first(handler) -> None:
        server.forget()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    fake.expect_raw("POST", f"auth/{made.place}/login", forget_first)
    fake.expect("GET", "x", body={})
    server.conversation().ask("GET", "x")  # the use began before, so it may continue
    fake.expect("POST", f"auth/{made.place}/login", 403)
    with pytest.raises(AccessRefused):
        server.conversation().ask("GET", "x")


# --- AppRole ----------------------------------------------------------------------------------------------------------


def test_approle_logs_in_once_and_gives_its_token_back(bao, role, connect):
    made = role()
    with connect(bao.address, **made.settings) as server:
        assert [read(server, made) for _ in range(3)] == ["the-value"] * 3
        assert len(made.alive) == 1
    assert made.alive == []


def test_threads_that_come_together_log_in_once(bao, role, connect):
    made = role()
    server = connect(bao.address, **made.settings)
    gate = threading.Barrier(6)

    def one(_: int) -> str | None:
        gate.wait(10)
        return read(server, made)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, range(6))) == ["the-value"] * 6
    assert len(made.alive) == 1


def test_a_token_that_ends_in_the_middle_is_replaced_for_all_threads_by_one_login(bao, role, connect):
    made = role()
    server = connect(bao.address, **made.settings)
    read(server, made)
    bao.end(made.alive[0])
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: read(server, made), range(8))) == ["the-value"] * 8
    assert len(made.alive) == 1


def test_after_forgetting_it_logs_in_anew(bao, role, connect):
    made = role()
    server = connect(bao.address, **made.settings)
    read(server, made)
    server.forget()
    assert read(server, made) == "the-value"
    assert len(made.alive) == 2  # `forget` sends no request, so the first one expires with its TTL


def test_a_token_is_renewed_while_it_can_be(bao, role, connect, clock):
    made = role()
    server = connect(bao.address, **made.settings)
    read(server, made)
    for _ in range(3):
        clock.ahead_s += 45
        read(server, made)
    (accessor,) = made.alive
    assert bao.token_of(accessor)["last_renewal_time"]


def test_a_token_at_its_max_ttl_is_replaced(bao, role, connect):
    """With the real clock and a server that ends the token, which takes three seconds."""
    made = role(token_ttl="2s", token_max_ttl="3s")
    server = connect(bao.address, **made.settings)
    assert read(server, made) == "the-value"
    (first,) = made.alive
    deadline = time.monotonic() + PATIENCE_S
    while bao.token_of(first) is not None:
        assert time.monotonic() < deadline
        assert read(server, made) == "the-value"
    assert read(server, made) == "the-value"
    assert first not in made.alive


def test_a_token_that_cannot_be_renewed_is_used_to_its_end_and_then_replaced(bao, role, connect, clock, fake):
    made = role(token_type="batch")
    server = connect(bao.address, **made.settings)
    assert read(server, made) == "the-value"
    clock.ahead_s += 61
    assert read(server, made) == "the-value"
    login = {"auth": {"client_token": "s.one", "lease_duration": 60, "renewable": False}}
    server = connect(fake.address, **made.settings)
    fake.expect("POST", f"auth/{made.place}/login", body=login)
    fake.expect("GET", "x", body={}, times=2)
    server.conversation().ask("GET", "x")
    clock.ahead_s += 59
    server.conversation().ask("GET", "x")
    login["auth"]["client_token"] = "s.two"
    fake.expect("POST", f"auth/{made.place}/login", body=login)
    fake.expect("GET", "x", body={})
    clock.ahead_s += 2
    server.conversation().ask("GET", "x")
    assert [request[2].get("X-Vault-Token") for request in fake.requests] == [None, "s.one", "s.one", None, "s.two"]


def test_what_is_forbidden_costs_no_login_however_often_it_is_asked_for(bao, role, connect):
    """Else an agent that calls a tool again and again would use up the secret-id."""
    made = role(secret_id_num_uses=2)
    server = connect(bao.address, **made.settings)
    read(server, made)
    other = bao.mount("kv", version="2")
    for _ in range(5):
        with pytest.raises(AccessRefused, match="refused access to") as caught:
            server.conversation().ask("GET", f"{other}/data/app")
        assert '"read"' in caught.value.hint
    assert len(made.alive) == 1
    assert read(server, made) == "the-value"
    bao.end(made.alive[0])
    assert read(server, made) == "the-value"  # the second use of the secret-id is still there


def test_what_is_forbidden_costs_one_login_if_nobody_may_look_at_the_token(bao, role, connect, clock):
    """silo can't know then whether the token has ended; a login that did not help is not repeated for a while."""
    made = role(token_no_default_policy=True)
    server = connect(bao.address, **made.settings)
    read(server, made)
    other = bao.mount("kv", version="2")
    issued = []
    for _ in range(3):
        with pytest.raises(AccessRefused, match="refused access to"):
            server.conversation().ask("GET", f"{other}/data/app")
        issued.append(set(made.alive))
    assert issued[0] == issued[1] == issued[2]
    assert len(issued[0]) == 2  # of the first login and of the one in vain, which may not revoke itself either
    assert read(server, made) == "the-value"


def test_a_policy_that_a_role_gets_later_is_there_after_forgetting(bao, role, connect):
    made = role(token_policies="default")
    server = connect(bao.address, **made.settings)
    with pytest.raises(AccessRefused):
        read(server, made)
    bao.write(made.path, {"token_policies": made.policy})
    with pytest.raises(AccessRefused):
        read(server, made)
    server.forget()
    assert read(server, made) == "the-value"


LOGIN = {"auth": {"client_token": "s.one", "lease_duration": 60, "renewable": True}}


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda fake, path: fake.expect("POST", path, 503, {"errors": []}), id="503"),
        pytest.param(lambda fake, path: fake.expect("POST", path, 500, {"errors": ["internal"]}), id="500"),
        pytest.param(lambda fake, path: fake.expect("POST", path, 403, {"errors": ["permission denied"]}), id="403"),
        pytest.param(lambda fake, path: fake.expect("POST", path, 200, {"auth": {}}), id="makes no sense"),
        pytest.param(lambda fake, path: fake.expect_hang("POST", path), id="hangs"),
    ],
)
def test_a_renewal_that_fails_costs_no_call_while_the_token_is_valid(fake, role, connect, clock, fail):
    made = role()
    server = connect(fake.address, **made.settings)
    fake.expect("POST", f"auth/{made.place}/login", body=LOGIN)
    fake.expect("GET", "x", body={})
    server.conversation().ask("GET", "x")
    clock.ahead_s += 45
    fail(fake, "auth/token/renew-self")
    fake.expect("GET", "x", body={}, times=2)
    server.conversation().ask("GET", "x")
    server.conversation().ask("GET", "x")  # not renewed again at once
    assert [request[1] for request in fake.requests].count("/v1/auth/token/renew-self") == 1


def test_a_renewal_that_could_not_be_sent_is_tried_again_before_the_token_ends(fake, role, connect, clock):
    made = role()
    server = connect(fake.address, **made.settings)
    fake.expect("POST", f"auth/{made.place}/login", body=LOGIN)
    fake.expect("GET", "x", body={})
    fake.expect("POST", "auth/token/renew-self", 503, {"errors": []})
    fake.expect("GET", "x", body={})
    fake.expect("POST", "auth/token/renew-self", body=LOGIN)
    fake.expect("GET", "x", body={}, times=2)
    for wait_s in (0, 41, 16, 30):
        clock.ahead_s += wait_s
        server.conversation().ask("GET", "x")
    assert [request[2].get("X-Vault-Token") for request in fake.requests] == [None] + ["s.one"] * 6


_Timer = threading.Timer


class Timers:
    """Timers that a test runs by hand."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, threading.Timer]] = []

    def __call__(self, wait_s, function, args=()):
        timer = _Timer(wait_s, function, args)
        timer.start = lambda: self.waiting.append((wait_s, timer))
        return timer

    def run(self) -> float:
        """Run the next one that was not cancelled; return how long it would have waited."""
        wait_s, timer = self.waiting.pop(0)
        if not timer.finished.is_set():
            timer.function(*timer.args)
        return wait_s


@pytest.fixture
def timers(monkeypatch):
    made = Timers()
    monkeypatch.setattr("silo_vault.hashicorp.tokens.threading.Timer", made)
    return made


def test_a_given_token_that_nobody_uses_is_renewed_as_well(bao, role, connect, clock, timers):
    made = role()
    token = bao.write("auth/token/create", {"policies": [made.policy], "ttl": "60s"})["auth"]["client_token"]
    server = connect(bao.address, token=token)
    read(server, made)
    assert len(timers.waiting) == 1
    clock.ahead_s += 40
    assert 30 <= timers.run() <= 40
    assert bao.read("auth/token/lookup-self", token=token)["data"]["last_renewal"]
    assert len(timers.waiting) == 1  # for the next time
    server.forget()
    timers.run()
    assert timers.waiting == []


def test_a_token_that_was_logged_in_for_is_not_renewed_while_nobody_uses_it(bao, role, connect, timers):
    made = role()
    read(connect(bao.address, **made.settings), made)
    assert timers.waiting == []


def test_the_timer_of_a_token_keeps_no_process_alive(bao, role, tmp_path):
    """A real timer in a real process."""
    made = role()
    token = bao.write("auth/token/create", {"policies": [made.policy], "ttl": "600s"})["auth"]["client_token"]
    program = (
        "import sys\n"
        "from silo_vault.hashicorp import HashicorpServer, KvSecrets, settings_from\n"
        "server = HashicorpServer(settings_from({}, address=sys.argv[1], token=sys.argv[2]))\n"
        "print(KvSecrets(server).read(sys.argv[3], 'token').reveal())\n"
    )
    command = [sys.executable, "-c", program, bao.address, token, f"{made.kv}/app"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.stdout == "the-value\n", done.stderr


def test_a_secret_id_for_one_use_lasts_as_long_as_its_token(bao, role, connect):
    made = role(secret_id_num_uses=1)
    server = connect(bao.address, **made.settings)
    assert [read(server, made) for _ in range(3)] == ["the-value"] * 3
    bao.end(made.alive[0])
    with pytest.raises(AccessRefused, match="refused the login by approle") as caught:
        read(server, made)
    assert "secret-id" in caught.value.hint
    made.deliver()
    assert read(server, made) == "the-value"


def test_a_login_that_is_refused_does_not_show_what_was_sent(bao, role, connect):
    made = role()
    secret_id = made.deliver("0" * 8 + "-nobody-may-see-this")
    with pytest.raises(AccessRefused) as caught:
        read(connect(bao.address, **made.settings), made)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert secret_id not in shown
    assert "nobody-may-see" not in shown


def test_an_auth_method_that_is_not_there_is_named(bao, role, connect):
    made = role()
    with pytest.raises(VaultLocked, match="auth/nowhere/login") as caught:
        read(connect(bao.address, **(made.settings | {"auth_mount": "nowhere"})), made)
    assert "auth_mount" in caught.value.hint


def test_a_secret_id_file_can_be_removed_and_later_logins_work(bao, role, connect):
    made = role()
    server = connect(bao.address, **made.settings, remove_secret_id_file=True)
    assert read(server, made) == "the-value"
    assert not made.file.exists()
    bao.end(made.alive[0])
    assert read(server, made) == "the-value"
    server.forget()
    with pytest.raises(KeyUnavailable, match="does not exist"):
        read(server, made)


# --- a wrapped secret-id ----------------------------------------------------------------------------------------------


@pytest.fixture
def wrapped(role):
    made = role()
    made.deliver(made.wrap())
    return made, made.settings | {"secret_id_wrapping_path": f"{made.path}/secret-id"}


def test_a_wrapped_secret_id_is_unwrapped_and_good_for_later_logins(bao, wrapped, connect):
    made, settings = wrapped
    server = connect(bao.address, **settings)
    assert read(server, made) == "the-value"
    bao.end(made.alive[0])
    assert read(server, made) == "the-value"


def test_a_wrapped_secret_id_that_somebody_else_unwrapped_is_an_alarm(bao, wrapped, connect):
    made, settings = wrapped
    bao.write("sys/wrapping/unwrap", token=made.file.read_text().strip())
    with pytest.raises(AccessRefused, match="somebody else unwrapped it") as caught:
        read(connect(bao.address, **settings), made)
    assert "stolen" in caught.value.hint
    assert made.alive == []


def test_a_race_for_a_wrapped_secret_id_that_is_lost_at_the_last_moment_is_an_alarm_too(fake, role, connect):
    made = role()
    made.deliver("s.wrapping")
    fake.expect("POST", "sys/wrapping/lookup", body={"data": {"creation_path": "auth/approle/role/silo/secret-id"}})
    fake.expect("POST", "sys/wrapping/unwrap", 400, {"errors": ["wrapping token is not valid or does not exist"]})
    settings = made.settings | {"secret_id_wrapping_path": "auth/approle/role/silo/secret-id"}
    with pytest.raises(AccessRefused, match="somebody else unwrapped it"):
        read(connect(fake.address, **settings), made)


def test_an_unwrapping_whose_answer_is_lost_is_not_tried_again(fake, role, connect, clock):
    """A second attempt would look as if somebody else had unwrapped it."""
    made = role()
    made.deliver("s.wrapping")
    fake.expect("POST", "sys/wrapping/lookup", body={"data": {"creation_path": "a/secret-id"}})
    fake.expect_raw("POST", "sys/wrapping/unwrap", lambda handler: None)
    with pytest.raises(KeyUnreachable):
        read(connect(fake.address, **made.settings, secret_id_wrapping_path="a/secret-id"), made)
    assert clock.pauses == []


def test_a_token_that_wraps_something_else_is_refused_and_not_used_up(bao, wrapped, connect):
    """Anyone who can write the file could otherwise make us log in with another role."""
    made, settings = wrapped
    token = made.deliver(made.wrap("sys/wrapping/wrap"))
    with pytest.raises(AccessRefused, match="was not made at"):
        read(connect(bao.address, **settings), made)
    assert bao.ask("POST", "sys/wrapping/unwrap", token=token)[0] == 200


def test_our_own_unwrapping_is_not_taken_for_somebody_elses(bao, wrapped, connect):
    made, settings = wrapped
    server = connect(bao.address, **settings)
    read(server, made)
    server.forget()
    with pytest.raises(KeyUnavailable, match="has already used the wrapped"):
        read(server, made)
    made.deliver(made.wrap())
    assert read(server, made) == "the-value"


def test_a_wrapped_secret_id_for_one_use_is_replaced_by_the_next_in_the_file(bao, role, connect):
    made = role(secret_id_num_uses=1)
    made.deliver(made.wrap())
    server = connect(bao.address, **made.settings, secret_id_wrapping_path=f"{made.path}/secret-id")
    read(server, made)
    bao.end(made.alive[0])
    with pytest.raises(AccessRefused):
        read(server, made)
    made.deliver(made.wrap())
    assert read(server, made) == "the-value"


# --- namespaces, and a server that is sealed --------------------------------------------------------------------------


def test_a_namespace_has_its_own_logins_and_secrets(bao, role, connect, folder):
    name = f"team-{secrets.token_hex(4)}"
    bao.write(f"sys/namespaces/{name}")
    bao.write("sys/mounts/secret", {"type": "kv", "options": {"version": "1"}}, namespace=name)
    bao.write("secret/app", {"token": "of-the-team"}, namespace=name)
    bao.write("sys/mounts/kv2", {"type": "kv"}, namespace=name)
    place = bao.enable_auth("approle", namespace=name)
    policy = bao.policy('path "secret/*" { capabilities = ["read"] }', namespace=name)
    bao.write(f"auth/{place}/role/silo", {"token_policies": policy}, namespace=name)
    role_id = bao.read(f"auth/{place}/role/silo/role-id", namespace=name)["data"]["role_id"]
    file = folder / "secret-id"
    file.write_text(bao.write(f"auth/{place}/role/silo/secret-id", wrap_ttl="60", namespace=name)["wrap_info"]["token"])
    file.chmod(0o600)
    settings = {
        "auth": "approle",
        "auth_mount": place,
        "role_id": role_id,
        "secret_id_file": file,
        "secret_id_wrapping_path": f"auth/{place}/role/silo/secret-id",
    }
    found = KvSecrets(connect(bao.address, namespace=name, **settings)).read("secret/app", "token")
    assert found is not None
    assert found.reveal() == "of-the-team"
    with pytest.raises((AccessRefused, VaultLocked)):
        KvSecrets(connect(bao.address, **settings)).read("secret/app", "token")


def test_a_server_that_is_sealed_says_so(bao_module, tmp_path, connect):
    with bao_module.running(tmp_path) as bao:
        server = connect(bao.address, token=bao.token)
        secrets = KvSecrets(server, max_cache_s=0)
        assert secrets.read("secret/app", "token") is None
        bao.write("sys/seal")
        with pytest.raises(KeyUnreachable, match="is sealed") as caught:
            secrets.read("secret/app", "token")
        assert "unseal" in caught.value.hint


# --- JWT and Kubernetes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issuer():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def jwt_role(bao, role, issuer):
    """A role for JWTs of one issuer, audience and subject. Returns its settings and a function that makes such JWTs."""
    made = role()
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    place = bao.enable_auth("jwt")
    bao.write(
        f"auth/{place}/config",
        {"jwt_validation_pubkeys": issuer.public_key().public_bytes(*form).decode(), "bound_issuer": "https://ci.test"},
    )
    bao.write(
        f"auth/{place}/role/ci",
        {
            "role_type": "jwt",
            "bound_audiences": ["silo"],
            "bound_subject": "project/silo",
            "user_claim": "sub",
            "token_policies": made.policy,
            "token_ttl": "60s",
        },
    )

    def sign(**claims) -> str:
        now = int(time.time())
        body = {"iss": "https://ci.test", "aud": "silo", "sub": "project/silo", "iat": now, "exp": now + 60} | claims
        return jwt.encode(body, issuer, algorithm="RS256")

    return made, {"auth": "jwt", "auth_mount": place, "role": "ci"}, sign


def test_a_jwt_logs_in_from_a_file_or_from_a_variable(bao, jwt_role, connect, folder):
    made, settings, sign = jwt_role
    (folder / "jwt").write_text(sign() + "\n")
    assert read(connect(bao.address, **settings, jwt_file=folder / "jwt"), made) == "the-value"
    server = connect(bao.address, **settings, jwt=sign(), jwt_variable="ID_TOKEN")
    assert read(server, made) == "the-value"
    server.close()
    with pytest.raises(KeyUnavailable, match="ID_TOKEN was forgotten"):
        read(server, made)


@pytest.mark.parametrize("claims", [{"exp": 1_600_000_000, "iat": 1_500_000_000}, {"aud": "other"}, {"sub": "other"}])
def test_a_jwt_that_does_not_fit_is_refused_and_not_shown(bao, jwt_role, connect, folder, claims):
    made, settings, sign = jwt_role
    token = sign(**claims)
    (folder / "jwt").write_text(token)
    with pytest.raises(AccessRefused, match="refused the login by jwt") as caught:
        read(connect(bao.address, **settings, jwt_file=folder / "jwt"), made)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert not any(part in shown for part in token.split("."))


def test_kubernetes_reads_its_token_file_at_each_login(fake, connect, folder, clock):
    """With the fake server: a real one would ask a Kubernetes cluster to check the token, and there is none here."""
    file = folder / "sa-token"
    server = connect(fake.address, auth="kubernetes", auth_mount="k8s/prod", role="silo", jwt_file=file)
    for number in (1, 2):
        file.write_text(f"header.payload-{number}.signature")
        file.chmod(0o644)  # as in Kubernetes
        auth = {"client_token": f"s.token-{number}", "lease_duration": 60, "renewable": False}
        fake.expect("POST", "auth/k8s/prod/login", body={"auth": auth})
        fake.expect("GET", "x", body={})
        server.conversation().ask("GET", "x")
        clock.ahead_s += 61
    logins = [body for method, _, _, body in fake.requests if method == "POST"]
    assert logins == [{"role": "silo", "jwt": f"header.payload-{number}.signature"} for number in (1, 2)]


@pytest.mark.parametrize(
    "auth",
    [
        None,
        {},
        {"client_token": "", "lease_duration": 1, "renewable": True},
        {"client_token": "a b", "lease_duration": 1, "renewable": True},
        {"client_token": "a\r\nX: y", "lease_duration": 1, "renewable": True},
        {"client_token": "s.x", "lease_duration": "1", "renewable": True},
        {"client_token": "s.x", "lease_duration": 1},
    ],
)
def test_a_login_whose_answer_makes_no_sense_is_no_login(fake, role, connect, auth):
    made = role()
    fake.expect("POST", f"auth/{made.place}/login", body={"auth": auth})
    with pytest.raises(KeyUnreachable, match="not HashiCorp Vault's"):
        connect(fake.address, **made.settings).conversation().ask("GET", "x")


def test_closing_takes_little_time_even_if_the_server_hangs(fake, role, connect):
    made = role()
    auth = {"client_token": "s.x", "lease_duration": 60, "renewable": True}
    fake.expect("POST", f"auth/{made.place}/login", body={"auth": auth})
    fake.expect("GET", "x", body={})
    server = connect(fake.address, **made.settings, timeout_s=1.5)
    server.conversation().ask("GET", "x")
    fake.expect_hang("POST", "auth/token/revoke-self")
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < PATIENCE_S / 2  # the server hangs for longer


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_token_file_that_others_may_open_is_refused(fake, connect, folder, mode):
    file = folder / ".vault-token"
    file.write_text("s.of-mine")
    file.chmod(mode)
    with pytest.raises(VaultLocked, match="open to other users") as caught:
        connect(fake.address, token_file=file).conversation().ask("GET", "x")
    assert "chmod 600" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_token_file_of_another_user_is_refused(fake, connect, folder):
    file = folder / ".vault-token"
    file.write_text("s.of-theirs")
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(VaultLocked, match="belongs to another user"):
        connect(fake.address, token_file=file).conversation().ask("GET", "x")


def test_a_secret_id_file_may_be_open_to_a_group_and_not_to_all(bao, role, connect):
    made = role()
    made.file.chmod(0o640)
    assert read(connect(bao.address, **made.settings), made) == "the-value"
    made.file.chmod(0o644)
    with pytest.raises(VaultLocked, match="open to other users"):
        read(connect(bao.address, **made.settings), made)


def test_what_is_no_file_or_too_large_is_refused_at_once(fake, connect, folder):
    os.mkfifo(folder / "pipe", 0o600)
    (folder / "large").write_bytes(b"x" * 70_000)
    (folder / "large").chmod(0o600)
    (folder / "empty").touch(0o600)
    cases = {"pipe": "not a file", "large": "more than", "empty": "is empty", ".": "not a file|can't be read"}
    for name, words in cases.items():
        with pytest.raises(VaultLocked, match=words):
            connect(fake.address, token_file=folder / name).conversation().ask("GET", "x")
    with pytest.raises(KeyUnavailable, match="does not exist"):
        connect(fake.address, token_file=folder / "none").conversation().ask("GET", "x")


def test_nothing_that_was_told_to_a_server_can_be_read_from_an_object(bao, role, connect):
    made = role()
    server = connect(bao.address, **made.settings)
    read(server, made)
    shown = repr(server) + repr(server.settings) + repr(KvSecrets(server)) + repr(server.conversation())
    assert made.file.read_text().strip() not in shown
    assert json.dumps("the-value") not in shown
