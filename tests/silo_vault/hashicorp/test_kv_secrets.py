import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import AccessRefused, KeyUnreachable, SecretInvalid
from silo_vault.hashicorp import KvSecrets, Reference, parse_reference

STEPS = st.text("abcdefgXYZ019_.-@:=+~", min_size=1, max_size=12).filter(lambda step: step.strip("."))
MOUNTS = STEPS.filter(lambda step: step not in ("auth", "cubbyhole", "identity", "sys"))
FIELDS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@:=+~-]{0,20}", fullmatch=True)


@given(MOUNTS, st.lists(STEPS, min_size=1, max_size=4), FIELDS)
def test_a_reference_comes_back_as_it_was_written(mount, steps, field):
    reference = Reference("/".join([mount, *steps]), field)
    assert parse_reference(str(reference)) == reference


@given(st.text() | st.text("ab./#?%\\: \n").map(lambda text: "vault://a/" + text))
def test_any_text_is_a_reference_as_it_stands_or_none_at_all(text):
    try:
        reference = parse_reference(text)
    except SecretInvalid:
        return
    assert str(reference) == text
    assert not set(text) & set("?%\\ \n\r\0")
    assert text.count("#") == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret/app#token",
        "VAULT://secret/app#token",
        "vault:/secret/app#token",
        "vault://secret/app",
        "vault://secret/app#",
        "vault://secret#token",
        "vault:///app#token",
        "vault://secret/#token",
        "vault://secret/app/#token",
        "vault://secret//app#token",
        "vault://secret/../sys/raw#token",
        "vault://secret/./app#token",
        "vault://secret/.../app#token",
        "vault://secret/app?version=1#token",
        "vault://secret/app#token?version=1",
        "vault://secret/%2e%2e/sys#token",
        "vault://secret/app#a#b",
        "vault://secret/a b#token",
        "vault://secret/app#token\n",
        "vault://secret/" + "a" * 2000 + "#token",
        "vault://auth/token/lookup-self#id",
        "vault://sys/internal/ui/mounts#secret",
        "vault://cubbyhole/response#response",
        "vault://identity/oidc/token/x#token",
    ],
)
def test_what_is_no_reference_is_refused_and_not_quoted(text):
    with pytest.raises(SecretInvalid) as caught:
        parse_reference(text)
    assert text.removeprefix("vault://") not in caught.value.message or not text
    assert "vault://MOUNT/PATH#FIELD" in caught.value.hint


def test_what_is_read_is_checked_like_a_reference(fake, connect):
    secrets_ = KvSecrets(connect(fake.address, token="s.x"))
    for path, field in (("secret/../sys", "a"), ("secret", "a"), ("secret/app", ""), ("auth/token/lookup-self", "id")):
        with pytest.raises(SecretInvalid):
            secrets_.read(path, field)


# --- a real server ----------------------------------------------------------------------------------------------------


class Store:
    """A KV engine of one version."""

    def __init__(self, bao, version: str) -> None:
        self._bao = bao
        self.mount = bao.mount("kv", version=version)
        self.is_v2 = version == "2"

    def path(self, name: str) -> str:
        return f"{self.mount}/data/{name}" if self.is_v2 else f"{self.mount}/{name}"

    def put(self, name: str, **values: object) -> str:
        self._bao.write(self.path(name), {"data": values} if self.is_v2 else values)
        return f"{self.mount}/{name}"

    def delete(self, name: str) -> None:
        assert self._bao.ask("DELETE", self.path(name))[0] == 204


@pytest.fixture(params=["1", "2"])
def store(bao, request):
    return Store(bao, request.param)


@pytest.fixture
def reader(bao, connect, store):
    """Secrets read with a token that may read everything in the store except `forbidden`."""
    path = store.path("")
    policy = bao.policy(
        f'path "{path}*" {{ capabilities = ["read"] }}\npath "{path}forbidden" {{ capabilities = ["deny"] }}'
    )
    token = bao.write("auth/token/create", {"policies": [policy]})["auth"]["client_token"]
    return KvSecrets(connect(bao.address, token=token)), policy


@pytest.fixture
def kv(reader):
    return reader[0]


def revealed(kv: KvSecrets, path: str, field: str = "token") -> str | None:
    found = kv.read(path, field)
    return None if found is None else found.reveal()


def test_the_version_of_the_engine_is_found_out(kv, store):
    path = store.put("team/app", token="grüße", user="me")
    found = kv.read(path, "token")
    assert found is not None
    assert (found.name, found.reveal()) == (f"vault://{path}#token", "grüße")
    assert "grüße" not in repr(found) + repr(kv)


def test_what_is_not_there_is_none(kv, store):
    path = store.put("app", token="x")
    assert kv.read(path, "other") is None
    assert kv.read(f"{store.mount}/none", "token") is None


def test_an_engine_mounted_at_a_path_of_several_steps_is_found(bao, kv, connect, store):
    mount = f"deep-{secrets.token_hex(4)}/kv"
    bao.write(f"sys/mounts/{mount}", {"type": "kv"})
    bao.write(f"{mount}/data/app", {"token": "of version 1, in spite of its path"})
    found = KvSecrets(connect(bao.address, token=bao.token)).read(f"{mount}/data/app", "token")
    assert found is not None
    assert found.reveal().startswith("of version 1")


def test_a_deleted_version_is_none_and_comes_back_when_it_is_undeleted(bao, connect):
    store = Store(bao, "2")
    path = store.put("app", token="first")
    kv = KvSecrets(connect(bao.address, token=bao.token), max_cache_s=0)
    store.delete("app")
    assert bao.ask("GET", store.path("app"))[1]["data"]["metadata"]["deletion_time"]  # 404 with a body
    assert revealed(kv, path) is None
    bao.write(f"{store.mount}/undelete/app", {"versions": [1]})
    assert revealed(kv, path) == "first"
    bao.write(f"{store.mount}/destroy/app", {"versions": [1]})
    assert revealed(kv, path) is None


def test_an_engine_that_keeps_no_secrets_is_not_read(bao, connect):
    """Reading a path of a database engine creates a user."""
    mount = bao.mount("transit")
    with pytest.raises(SecretInvalid, match="is of type 'transit'"):
        KvSecrets(connect(bao.address, token=bao.token)).read(f"{mount}/keys/x", "name")


def test_a_value_that_is_not_text_is_refused_and_not_shown(kv, store):
    values = {"number": 987654, "list": ["hidden-1"], "object": {"a": "hidden-2"}, "flag": True}
    path = store.put("app", **values, none=None, empty="")
    kinds = {"number": "number", "list": "array", "object": "object", "flag": "boolean"}
    for field, kind in kinds.items():
        with pytest.raises(SecretInvalid, match=f"JSON type {kind}") as caught:
            kv.read(path, field)
        assert not any(value in caught.value.message + caught.value.hint for value in ("987654", "hidden"))
    assert kv.read(path, "none") is None
    with pytest.raises(SecretInvalid, match="is empty"):
        kv.read(path, "empty")


def test_what_is_forbidden_is_refused_and_not_missing(kv, store):
    with pytest.raises(AccessRefused, match="HTTP 403"):
        kv.read(f"{store.mount}/forbidden", "token")


def test_a_refusal_drops_what_was_read_before(bao, reader, store):
    kv, policy = reader
    first, second = store.put("first", token="one"), store.put("second", token="two")
    assert revealed(kv, first) == "one"
    bao.policy('path "nothing" { capabilities = ["read"] }', name=policy)
    assert revealed(kv, first) == "one"  # from memory, until the server is asked
    with pytest.raises(AccessRefused):
        kv.read(second, "token")
    with pytest.raises(AccessRefused):
        kv.read(first, "token")


def test_a_value_is_asked_for_again_after_five_minutes(bao, connect, store, clock):
    path = store.put("app", token="old")
    kv = KvSecrets(connect(bao.address, token=bao.token), clock=clock)
    assert revealed(kv, path) == "old"
    store.put("app", token="new")
    clock.ahead_s += 290
    assert revealed(kv, path) == "old"
    clock.ahead_s += 11
    assert revealed(kv, path) == "new"


def test_a_value_with_a_shorter_lease_is_asked_for_again_sooner(bao, connect, clock):
    store = Store(bao, "1")
    path = store.put("app", token="old", ttl="20s")
    kv = KvSecrets(connect(bao.address, token=bao.token), clock=clock)
    assert revealed(kv, path) == "old"
    store.put("app", token="new", ttl="20s")
    clock.ahead_s += 21
    assert revealed(kv, path) == "new"


def test_forgetting_drops_all_values_also_when_the_server_object_is_told(bao, connect, store, folder):
    file = folder / "token"
    file.write_text(bao.token)
    file.chmod(0o600)
    path = store.put("app", token="old")
    server = connect(bao.address, token_file=file)
    kv = KvSecrets(server)
    for forget, value in ((kv.forget, "second"), (server.forget, "third")):
        assert revealed(kv, path) is not None
        store.put("app", token=value)
        forget()
        assert revealed(kv, path) == value


# --- servers that hide the type of an engine, or misbehave ------------------------------------------------------------

NO_TTL = {"data": {"ttl": 0, "renewable": False}}
V1 = {"data": {"token": "of v1"}, "lease_duration": 60}
V2 = {"data": {"data": {"token": "of v2"}, "metadata": {"version": 1}}, "lease_duration": 0}
MISSING = {"errors": []}


@pytest.fixture
def guessing(fake, connect):
    """A server that does not tell its mounts."""
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "sys/internal/ui/mounts/secret/app", 404, MISSING)
    return KvSecrets(connect(fake.address, token="s.x"))


@pytest.mark.parametrize(
    ("v2", "v1", "value"),
    [
        ((200, V2), None, "of v2"),
        ((404, MISSING), (200, V1), "of v1"),
        ((200, V1), (200, V1), "of v1"),  # version 1, with an entry whose name begins with data/
        ((404, MISSING), (404, MISSING), None),
        ((404, {"data": {"data": None, "metadata": {}}}), (404, {"data": None, "warnings": ["x"]}), None),
        ((403, MISSING), (200, V1), "of v1"),
        ((403, MISSING), (404, MISSING), AccessRefused),
        ((404, MISSING), (403, MISSING), AccessRefused),
        ((403, MISSING), (403, MISSING), AccessRefused),
    ],
)
def test_without_that_version_2_is_tried_and_then_version_1(fake, guessing, v2, v1, value):
    fake.expect("GET", "secret/data/app", *v2)
    if v1 is not None:
        fake.expect("GET", "secret/app", *v1)
    if value is AccessRefused:
        with pytest.raises(AccessRefused):
            guessing.read("secret/app", "token")
    else:
        assert revealed(guessing, "secret/app") == value


def test_a_server_that_refuses_to_tell_what_is_mounted_may_still_allow_the_reading(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "sys/internal/ui/mounts/secret/app", 403, MISSING)
    fake.expect("GET", "secret/data/app", body=V2)
    assert revealed(KvSecrets(connect(fake.address, token="s.x")), "secret/app") == "of v2"


@pytest.mark.parametrize(
    ("mount", "entry"),
    [
        ({"data": {"path": "other/", "type": "kv"}}, None),
        ({"data": {"path": "secret/app/", "type": "kv"}}, None),
        ({"data": {"type": "kv"}}, None),
        ({"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}}, {"data": {"token": "x"}}),
        ({"data": {"path": "secret/", "type": "kv", "options": None}}, {"data": "x"}),
        ({"data": {"path": "secret/", "type": "kv", "options": None}}, {"data": {"token": "x"}, "lease_duration": "1"}),
    ],
)
def test_an_answer_that_makes_no_sense_is_not_believed(fake, connect, mount, entry):
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "sys/internal/ui/mounts/secret/app", body=mount)
    if entry is not None:
        is_v2 = bool(mount["data"]["options"])
        fake.expect("GET", "secret/data/app" if is_v2 else "secret/app", body=entry)
    with pytest.raises(KeyUnreachable, match="not HashiCorp Vault's"):
        KvSecrets(connect(fake.address, token="s.x")).read("secret/app", "token")


def test_a_server_that_is_away_is_unreachable_and_what_was_read_is_still_good(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect(
        "GET", "sys/internal/ui/mounts/secret/app", body={"data": {"path": "secret/", "type": "kv", "options": None}}
    )
    fake.expect("GET", "secret/app", body=V1)
    fake.expect("GET", "sys/internal/ui/mounts/secret/other", 502)
    kv = KvSecrets(connect(fake.address, token="s.x", max_retries=0))
    assert revealed(kv, "secret/app") == "of v1"
    with pytest.raises(KeyUnreachable):
        kv.read("secret/other", "token")
    assert revealed(kv, "secret/app") == "of v1"
