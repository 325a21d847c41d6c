"""Failures of the network and bad servers, with `fake_server`: requests end in time, and bad answers are refused."""

import datetime
import gzip
import ipaddress
import os
import socket
import ssl
import threading
import time
import traceback
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from silo_vault import AccessRefused, KeyUnreachable, VaultLocked
from silo_vault.hashicorp import HashicorpServer, settings_from
from silo_vault.hashicorp.messages import MAX_BODY_BYTES

TOKEN = "s.token-that-nobody-may-see"
PATIENCE_S = 300.0
TIMEOUT_S = 1.5  # for what does not come; what does come on loopback takes a thousandth of it
NO_TTL = {"data": {"ttl": 0, "renewable": False}}


@pytest.fixture
def server(fake, connect):
    """A server object that already has its token, so that tests don't have to log in."""
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    made = connect(fake.address, token=TOKEN, timeout_s=PATIENCE_S, deadline_s=PATIENCE_S)
    fake.expect("GET", "x", body={"first": True})
    assert made.conversation().ask("GET", "x").body == {"first": True}
    return made


def ask(server: HashicorpServer):
    return server.conversation().ask("GET", "x")


def test_a_request_has_the_token_the_namespace_and_nothing_from_the_environment(fake, connect, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    for name, value in {
        "HOME": str(tmp_path),
        "HTTP_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("POST", "a/b", body={"yes": 1})
    connect(fake.address, token=TOKEN, namespace="team/a").conversation().ask("POST", "a/b", {"c": "d"})
    method, path, headers, body = fake.requests[-1]
    assert (method, path, body) == ("POST", "/v1/a/b", {"c": "d"})
    assert headers["X-Vault-Token"] == TOKEN
    assert headers["X-Vault-Namespace"] == "team/a"
    assert headers["X-Vault-Request"] == "true"
    assert set(headers) == {
        *("Host", "User-Agent", "Connection", "Accept-Encoding", "Content-Length", "Content-Type"),
        *("X-Vault-Token", "X-Vault-Namespace", "X-Vault-Request"),
    }


def test_an_address_may_have_a_path_before_the_api(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake._expected[0] = ("GET", "/prefix/v1/auth/token/lookup-self", fake._expected[0][2])
    fake._expected.append(("GET", "/prefix/v1/x", fake._expected[0][2]))
    ask(connect(fake.address + "/prefix/", token=TOKEN))


# --- failures that may pass -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [412, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_waits(fake, server, clock, status):
    fake.expect("GET", "x", status, {"errors": []}, times=2)
    fake.expect("GET", "x", body={"ok": True})
    assert ask(server).body == {"ok": True}
    assert clock.pauses == [0.25 * 0.75, 0.5 * 0.75]


@pytest.mark.parametrize(
    ("status", "words"), [(429, "too many requests"), (500, "HTTP 500"), (412, "behind its active server")]
)
def test_what_does_not_pass_is_unreachable(fake, server, status, words):
    fake.expect("GET", "x", status, {"errors": []}, times=3)
    with pytest.raises(KeyUnreachable, match=words):
        ask(server)


def test_the_server_is_left_alone_for_as_long_as_it_asks(fake, server, clock):
    fake.expect("GET", "x", 429, Retry_After="0")
    fake.expect("GET", "x", body={"ok": True})
    ask(server)
    fake.expect("GET", "x", 429, Retry_After="3600")  # longer than the deadline, so it ends at once
    with pytest.raises(KeyUnreachable, match="too many requests"):
        ask(server)
    assert clock.pauses == [0.25 * 0.75]


@pytest.mark.parametrize(
    ("status", "words"),
    [(472, "standby"), (473, "standby"), (503, "is sealed"), (501, "HTTP 501"), (307, "redirects are not followed")],
)
def test_what_does_not_pass_by_itself_is_not_tried_again(fake, server, clock, status, words):
    fake.expect("GET", "x", status, {"errors": ["Vault is sealed"] if status == 503 else []})
    with pytest.raises(KeyUnreachable, match=words):
        ask(server)
    assert clock.pauses == []


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:{port}/v1/y", "/v1/y", "https://elsewhere.example/", "http://[", ""]
)
def test_no_redirect_is_followed_not_even_to_the_same_server(fake, server, place):
    for status in (301, 302, 307, 308):
        fake.expect("GET", "x", status, Location=place.format(port=fake.port))
        with pytest.raises(KeyUnreachable, match="redirects are not followed"):
            ask(server)


# --- answers that never end -------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


def ends_in_time(server: HashicorpServer, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(KeyUnreachable, match=words):
        ask(server)
    assert time.monotonic() - began < PATIENCE_S / 2  # the servers here go on for longer


def test_a_server_that_hangs_is_given_up_at_the_timeout(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect_hang("GET", "x", times=2)
    ends_in_time(connect(fake.address, token=TOKEN, timeout_s=TIMEOUT_S, max_retries=1), "did not answer in time")


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b"H"),
        (OK, b"X-A: b\r\n"),
        (OK + b"X-A: ", b"b"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Content-Length: 1000000\r\n\r\n", b"{"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (OK + b"\r\n", b"{"),
    ],
)
def test_a_server_that_sends_a_byte_at_a_time_is_given_up_too(fake, connect, head, drop):
    """A timeout that starts again with each byte would never expire."""
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect_drip("GET", "x", head, drop)
    ends_in_time(
        connect(fake.address, token=TOKEN, timeout_s=TIMEOUT_S, max_retries=0), "did not answer in time|did not speak"
    )


def test_all_tries_together_end_at_the_deadline(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    server = HashicorpServer(
        settings_from({"VAULT_ADDR": fake.address}, token=TOKEN, timeout_s=PATIENCE_S, deadline_s=TIMEOUT_S)
    )
    fake.expect_hang("GET", "x")
    ends_in_time(server, "did not answer in time")


def test_a_handshake_that_hangs_is_given_up(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts connections and sends nothing
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        ends_in_time(connect(address, token=TOKEN, timeout_s=TIMEOUT_S, max_retries=0), "did not answer in time")


# --- answers that are too large or malformed --------------------------------------------------------------------------


@pytest.mark.parametrize("head", [b"Content-Length: 99999999\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_that_is_too_large_is_not_read(fake, server, head):
    def flood(handler) -> None:
        handler.wfile.write(OK + head + b"\r\n")
        block = b"10000\r\n" + b" " * 65536 + b"\r\n" if b"chunked" in head else b" " * 65536
        for _ in range(64):
            handler.wfile.write(block)

    fake.expect_raw("GET", "x", flood)
    with pytest.raises(KeyUnreachable, match="larger than"):
        ask(server)


def test_an_answer_of_just_the_largest_size_is_read(fake, server):
    body = b'{"a": "' + b"x" * (MAX_BODY_BYTES - 9) + b'"}'
    fake.expect("GET", "x", body=body)
    assert len(ask(server).take(str, "a")) == MAX_BODY_BYTES - 9


def test_packed_answers_are_not_unpacked(fake, server):
    fake.expect("GET", "x", body=gzip.compress(b'{"a": 1}'), Content_Encoding="gzip")
    assert ask(server).body is None


@pytest.mark.parametrize(
    "data", [b"", b"nonsense\r\n\r\n", OK + b"Content-Length: 100\r\n\r\n{}", b"HTTP/1.1 404 Not", OK + b"\r\n{}"]
)
def test_an_answer_that_breaks_off_is_no_answer(fake, server, data):
    fake.expect_raw("GET", "x", lambda handler: handler.wfile.write(data), times=3)
    with pytest.raises(KeyUnreachable, match=r"broke|speak HTTP"):
        ask(server)


def test_nobody_there_is_tried_again_and_then_unreachable(clock, connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(KeyUnreachable, match="refused") as caught:
        ask(connect(f"http://127.0.0.1:{port}", token=TOKEN))
    assert len(clock.pauses) == 2
    assert "bao status" in caught.value.hint


def test_a_name_that_does_not_exist_is_unreachable(connect):
    with pytest.raises(KeyUnreachable, match="can't be resolved"):
        ask(connect("https://vault.invalid:8200", token=TOKEN, max_retries=0))


# --- what messages must not show --------------------------------------------------------------------------------------


def everything_shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + getattr(error, "hint", "")


def test_no_error_shows_the_token_even_if_the_server_says_it_back(fake, server, caplog):
    caplog.set_level("DEBUG")
    fake.expect("GET", "x", 403, {"errors": [f"{TOKEN} may not"]})
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    with pytest.raises(AccessRefused) as refused:
        ask(server)
    fake.expect("GET", "x", 500, {"errors": [TOKEN]}, times=3)
    with pytest.raises(KeyUnreachable) as failed:
        ask(server)
    assert TOKEN not in everything_shown(refused.value) + everything_shown(failed.value) + repr(server) + caplog.text


@pytest.mark.parametrize("token", [f"{TOKEN}\r\nX-Evil: 1", f" {TOKEN}", f"{TOKEN}\n", "s.пароль-token-that", ""])
def test_a_token_that_can_be_no_header_is_refused_without_quoting_it(fake, connect, tmp_path, token):
    file = tmp_path / "token"
    file.write_text(f"a{token}b")
    file.chmod(0o600)
    makers = [lambda: connect(fake.address, token=token)] if token else []
    if not token.isspace() and "\n" in token.strip():
        makers.append(lambda: connect(fake.address, token_file=file))
    for make in makers:
        with pytest.raises(VaultLocked) as caught:
            ask(make())
        assert "token-that" not in everything_shown(caught.value)


# --- TLS --------------------------------------------------------------------------------------------------------------


class Authority:
    """A CA that signs any certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = self._write(name, self._sign(self._name, self._key, None, is_ca=True))

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, list(names) or [x509.DNSName(name)], is_ca=False)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (key_path := self._folder / f"{name}.key").write_bytes(key.private_bytes(*form))
        return self._write(name, certificate), key_path

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        (path := self._folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(self, subject, key, names, *, is_ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path, "our-ca")


@pytest.fixture
def tls_fake(fake_module, authority):
    """A server with TLS, for the name vault.test and the address 127.0.0.1. It requests client certificates."""
    made = []

    def make(*names: x509.GeneralName, wants_client: bool = False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("vault.test", *names))
        if wants_client:
            context.load_verify_locations(authority.path)
            context.verify_mode = ssl.CERT_REQUIRED
        made.append(fake_module.FakeServer(context))
        return made[-1]

    yield make
    for server in made:
        server.close()
        server.check()


LOCALHOST = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def test_a_server_with_the_right_certificate_is_spoken_to(tls_fake, authority, connect):
    fake = tls_fake(LOCALHOST)
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "x", body={"ok": True})
    assert ask(connect(fake.address, token=TOKEN, ca_cert=authority.path)).body == {"ok": True}


def test_a_certificate_of_another_ca_is_not_accepted_and_nothing_is_sent(tls_fake, tmp_path, connect, clock):
    fake = tls_fake(LOCALHOST)
    other = Authority(tmp_path, "other-ca")
    for settings in ({"ca_cert": other.path}, {}):  # {}: the CAs of the system
        with pytest.raises(KeyUnreachable, match="certificate was not accepted") as caught:
            ask(connect(fake.address, token=TOKEN, **settings))
        assert "VAULT_CACERT" in caught.value.hint
    assert (fake.requests, clock.pauses) == ([], [])


def test_a_certificate_for_another_name_is_not_accepted_unless_that_name_is_set(tls_fake, authority, connect):
    fake = tls_fake(x509.DNSName("vault.test"))
    with pytest.raises(KeyUnreachable, match="certificate was not accepted"):
        ask(connect(fake.address, token=TOKEN, ca_cert=authority.path))
    assert fake.requests == []
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "x", body={"ok": True})
    ask(connect(fake.address, token=TOKEN, ca_cert=authority.path, tls_server_name="vault.test"))


def test_a_client_certificate_is_shown_to_a_server_that_wants_one(tls_fake, authority, connect):
    fake = tls_fake(LOCALHOST, wants_client=True)
    cert, key = authority.issue("client")
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "x", body={"ok": True})
    ask(connect(fake.address, token=TOKEN, ca_cert=authority.path, client_cert=cert, client_key=key))
    with pytest.raises(KeyUnreachable, match=r"TLS failed|broke"):
        ask(connect(fake.address, token=TOKEN, ca_cert=authority.path, max_retries=0))


def test_plain_http_where_tls_is_expected_is_a_clear_error(fake, connect):
    with pytest.raises(KeyUnreachable, match="TLS failed"):
        ask(connect(f"https://127.0.0.1:{fake.port}", token=TOKEN))


def test_the_certificate_may_go_unchecked_on_this_machine_only_if_told_so(tls_fake, connect):
    fake = tls_fake(LOCALHOST)
    fake.expect("GET", "auth/token/lookup-self", body=NO_TTL)
    fake.expect("GET", "x", body={"ok": True})
    ask(connect(fake.address, token=TOKEN, skip_verify=True))


def test_certificates_that_cannot_be_read_are_named(fake, connect, tmp_path):
    (tmp_path / "empty.pem").touch()
    address = f"https://127.0.0.1:{fake.port}"
    for fields in (
        {"ca_cert": tmp_path / "none.pem"},
        {"ca_cert": tmp_path / "empty.pem"},
        {"client_cert": tmp_path / "empty.pem"},
    ):
        with pytest.raises(VaultLocked, match="certificate") as caught:
            ask(connect(address, token=TOKEN, **fields))
        assert not isinstance(caught.value, KeyUnreachable)


def test_nothing_is_left_open(fake, server):
    """No socket stays open after an answer or a failure."""
    fake.expect("GET", "x", body={"ok": True}, times=5)
    fake.expect_raw("GET", "x", lambda handler: None, times=3)
    sockets = lambda: [  # noqa: E731
        link
        for descriptor in Path("/proc/self/fd").iterdir()
        if (link := os.path.realpath(descriptor)) and "socket:" in link
    ]
    before = len(sockets())
    for _ in range(5):
        ask(server)
    with pytest.raises(KeyUnreachable):
        ask(server)
    deadline = time.monotonic() + PATIENCE_S
    while len(sockets()) > before and time.monotonic() < deadline:  # the handlers of the fake are in this process too
        threading.Event().wait(0.01)
    assert len(sockets()) <= before
